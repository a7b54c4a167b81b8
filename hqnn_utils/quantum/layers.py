"""Quantum circuits as torch modules: what a hybrid network is built from.

`QuantumActivation` and `QuantumLayer` run on `simulator="statevector"`, the package's own exact engine, or on any PennyLane
device (itself, or its name), with the same parameters, shapes and results. Their controls, `ScrambledLayer` and
`ReuploadingLayer`, have the engine only.

One rule for dtypes holds for all of them, on every simulator and by every method: inputs are real floating-point numbers;
integers, bools and complex numbers raise a `TypeError`. Result and computation have the wider precision of input and weights
(of the input, where there are no weights), but nothing is computed in less than float32: half precision is rounded at the
end. `torch.autocast` changes none of this.

An angle that is NaN or infinite makes an exact value that torch computes NaN; where anything is measured, or a device or the
shift rule computes, it raises a `ValueError` that says where.

Every layer can be copied, pickled, saved whole and sent to other processes. A deep copy has a device of its own, if that was
given by name, and starts its random outcomes anew. `torch.export` and `torch.jit.trace` take what torch itself computes.
`torch.compile` takes it too, as one graph; but a call of compiled code has a price of its own, which in networks as small as
the book's is more than it saves (benchmarks/compiled.py).
"""

import pickle
from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any

import numpy as np
import pennylane as qml
import torch
from jaxtyping import Float
from pennylane.devices import Device
from torch import Tensor, nn

from hqnn_utils.checks import finite
from hqnn_utils.quantum import statevector
from hqnn_utils.quantum.circuits import cnot_pairs, expval_z, layered, qnode
from hqnn_utils.quantum.gradients import ShiftRule
from hqnn_utils.quantum.inputs import one_dtype, require_eager, require_shots, require_sizes

# Engines: functions of data `(*batch, n)`, weights `(depth, n)` and an entangler, to ⟨Z⟩ of every qubit, `(*batch, n)`.


class Exact:
    """Our engine where nothing is measured: torch computes it all, and differentiates it."""

    node: qml.QNode | None = None

    def __call__(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        return statevector.expval_z(x, theta, entangler)


class Opaque:
    """An engine into which torch does not see, differentiated by the shift rule.

    Its `rows` takes data `(rows, n)` and weights `(rows, depth, n)`, a set for each row, to ⟨Z⟩ `(rows, n)`.
    """

    node: qml.QNode | None = None
    rows: Callable[[Tensor, Tensor, str], Tensor]

    @one_dtype
    def __call__(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        require_eager()
        if not x.numel():  # of nothing, nobody is asked
            return statevector.expval_z(x, theta, entangler)
        if torch.compiler.is_compiling():  # nor does a compiler see into it
            return torch.compiler.disable(self.differentiable)(x, theta, entangler)
        return self.differentiable(x, theta, entangler)

    def differentiable(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        """⟨Z⟩ with a gradient."""
        depth, n = theta.shape

        def values(angles: Tensor) -> Tensor:
            data, weights = _finite_rows(angles, depth, n).tensor_split([1], dim=1)
            return self.rows(data.squeeze(1), weights, entangler).reshape(*angles.shape[:-1], n)

        return ShiftRule.apply(values, _angles(x, theta))


def _angles(x: Tensor, theta: Tensor) -> Tensor:
    """Every angle of every row is its own, `(*batch, (1 + depth) * n)`: expand adds up the gradients of shared weights."""
    return torch.cat([x, theta.flatten().expand(*x.shape[:-1], -1)], dim=-1)


def _finite_rows(angles: Tensor, depth: int, n: int) -> Tensor:
    """The angles as `(rows, 1 + depth, n)`, the data first. Of NaN, samplers and devices would make numbers."""
    rows = angles.reshape(-1, (1 + depth) * n)
    names = [f"x[{i}]" for i in range(n)] + [f"theta[{layer}, {i}]" for layer in range(depth) for i in range(n)]
    finite("angles", rows, row=range(len(rows)), angle=names)
    return rows.unflatten(-1, (1 + depth, n))


class Sampled(Opaque):
    """Our engine for the shift rule: with shots seeded outcomes, which start anew in a copy as those of a device do."""

    def __init__(self, shots: int, seed: int | None):
        require_shots(shots, seed)
        self.shots, self.seed = int(shots), seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device) -> torch.Generator:
        """For tensors of a device of torch."""
        if device not in self.generators:
            generator = self.generators[device] = torch.Generator(device)
            generator.seed() if self.seed is None else generator.manual_seed(int(self.seed))
        return self.generators[device]

    def rows(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        """Means of the shots."""
        if not theta.shape[1]:  # of no layers, as in an activation
            psi = statevector.encoded(x)
        else:
            psi = torch.vmap(lambda x, theta: statevector.state(x, theta, entangler))(x, theta)
        return statevector.measured_z(psi, self.shots, self.generator(x.device))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"generators": {}}


class OnDevice(Opaque):
    """A PennyLane device: by a method of its own, or by our shift rule, since PennyLane's refuses trainable batches."""

    node: qml.QNode

    def __init__(self, simulator: str | Device, diff_method: str, n_qubits: int, shots: int, seed: int | None):
        self.given = simulator, diff_method, n_qubits, shots, seed
        self.diff_method = diff_method
        # Inside our rule nothing is differentiated, and devices compute faster with NumPy's numbers than with torch's.
        inside = dict(diff_method=None, interface=None) if diff_method == "parameter-shift" else dict(diff_method=diff_method)
        self.node = qnode(layered, partial(expval_z, n_qubits), n_qubits, simulator, shots, seed, **inside)

    def differentiable(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        """⟨Z⟩ with a gradient, by the shift rule or by the device's own method."""
        if self.diff_method == "parameter-shift":
            return super().differentiable(x, theta, entangler)
        if self.diff_method != "backprop":
            _finite_rows(_angles(x, theta), *theta.shape)
        values = self.node(x.reshape(-1, x.shape[-1]), theta, entangler)  # a device broadcasts over one axis
        return torch.stack(values, dim=-1).to(x.dtype).reshape(x.shape)

    def rows(self, x: Tensor, theta: Tensor, entangler: str) -> Tensor:
        """What the device measures, which broadcasts over the rows."""
        data, weights = (angles.numpy(force=True).astype(float) for angles in (x, theta))
        values = self.node(data, np.moveaxis(weights, 0, -1), entangler)  # rows last, where gates broadcast
        return torch.from_numpy(np.stack(values, axis=-1).reshape(data.shape)).to(x)

    def __deepcopy__(self, memo: dict) -> "OnDevice":
        return OnDevice(*self.given)  # a device that is no name is shared: not every one can be copied

    def __reduce__(self) -> tuple[type["OnDevice"], tuple]:
        try:
            pickle.dumps(self.given)
        except Exception as error:  # whatever a plugin holds
            raise pickle.PicklingError(
                f"the device {self.given[0]} cannot be pickled ({error}): give the layer its name, or save its state_dict()"
            ) from error
        return OnDevice, self.given


def engine_for(
    simulator: str | Device, diff_method: str | None, n_qubits: int, shots: int, seed: int | None
) -> tuple[Exact | Opaque, str]:
    """The engine for the arguments of a layer, and how it is differentiated.

    Raises:
        ValueError: as the layers.
    """
    require_shots(shots, seed)
    exact = simulator in ("statevector", "default.qubit") and not shots
    diff_method = diff_method or ("backprop" if exact else "parameter-shift")
    if diff_method == "backprop" and shots:
        raise ValueError("shots leave nothing to go back through: use diff_method='parameter-shift'")
    if simulator != "statevector":
        return OnDevice(simulator, diff_method, n_qubits, shots, seed), diff_method
    if diff_method not in ("backprop", "parameter-shift"):
        raise ValueError(
            f"the state vector has the methods 'backprop' and 'parameter-shift', got {diff_method!r}: that needs a "
            "PennyLane device, e.g. simulator='lightning.qubit'"
        )
    return Exact() if diff_method == "backprop" else Sampled(shots, seed), diff_method


class _Circuit(nn.Module):
    """What the two layers share: an engine."""

    def __init__(self, n_qubits: int, simulator: str | Device, diff_method: str | None, shots: int, seed: int | None):
        super().__init__()
        self.engine, self.diff_method = engine_for(simulator, diff_method, n_qubits, shots, seed)

    @property
    def node(self) -> qml.QNode | None:
        """PennyLane's QNode, or `None` where our own engine computes."""
        return self.engine.node


class QuantumActivation(_Circuit):
    """f(θ) = ⟨Z⟩ of the one-qubit circuit H–R_Y(θ), one qubit for every element of the input.

    Exactly this equals -sin θ, and the state vector needs no more than that; a device runs the circuits of the whole input as
    one broadcast batch. It can be trained and, by any method but `"adjoint"`, differentiated twice and used under
    `torch.vmap`.

    Args:
        simulator: `"statevector"`, or any PennyLane device or its name.
        diff_method: a method of that device that takes batches; by default `"backprop"` where nothing is measured on
            `"statevector"` or default.qubit, else `"parameter-shift"` (our batched rule, for any device and any shots).
        shots: measurements per circuit; 0 is exact. With shots each value is one of `shots + 1` steps in [-1, 1], and
            gradients are estimates from the same number of shots per shifted circuit.
        seed: of simulated shots, a whole number; `None` takes a fresh one.

    Shape: input and output `(*)`; input angles in radians, output in [-1, 1], of the input's dtype (see above).

    Raises:
        TypeError: an input that is not of real floating-point numbers.
        ValueError: shots or a seed that are none, a method that the simulator has not, or angles that are not finite.
        RuntimeError: with shots, on a device or by the shift rule: an export or a trace.

    Derived in book/foundations/pqc (value) and book/foundations/parameter_shift (gradient).
    """

    def __init__(
        self, simulator: str | Device = "statevector", diff_method: str | None = None, shots: int = 0, seed: int | None = None
    ):
        super().__init__(1, simulator, diff_method, shots, seed)

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if isinstance(self.engine, Exact):
            return _minus_sine(theta)
        return self.engine(theta.unsqueeze(-1), theta.new_zeros(0, 1), "none").squeeze(-1)


@one_dtype
def _minus_sine(theta: Tensor) -> Tensor:
    return -torch.sin(theta)


def _require_width(x: Tensor, n_qubits: int) -> None:
    if not torch.jit.is_tracing() and (not x.ndim or x.shape[-1] != n_qubits):
        raise ValueError(f"this layer takes {n_qubits} angles a row, got an input of shape {tuple(x.shape)}")


STARTS = {
    "near zero": lambda *shape: 0.01 * torch.randn(shape),
    "uniform": lambda *shape: pi * (2 * torch.rand(shape) - 1),
}
"""Where trainable angles may start: normal with a standard deviation of 0.01, as in Mari et al. 2020, or all over [-π, π)."""


class QuantumLayer(_Circuit):
    """The layered circuit as a layer: angles of n qubits in, ⟨Z_i⟩ of n qubits out.

    H on each qubit, R_Y(x_i), then `depth` quantum layers of [entangler, R_Y(theta_li)].

    Args:
        n_qubits: width of input and output, at least 1.
        depth: number of quantum layers, at least 0.
        entangler: one of `circuits.ENTANGLERS`; `"none"` makes the separable twin.
        simulator, diff_method, shots, seed: as for `QuantumActivation`.
        start: of the angles, drawn by torch's generator; one of `STARTS`.

    Attributes:
        theta: the only parameter, `(depth, n_qubits)`, in radians.

    Shape: `(*, n_qubits)` → `(*, n_qubits)`; input angles in radians, output in [-1, 1], of the wider dtype of input and
    weights (see above).

    Raises:
        TypeError, RuntimeError: as for `QuantumActivation`.
        ValueError: as for `QuantumActivation`; an unknown entangler or start; a size that is no size; an input of another
            width.

    Derived in book/foundations/simulation. Source: Mari et al. 2020, the dressed quantum circuit.
    """

    def __init__(
        self,
        n_qubits: int,
        depth: int,
        entangler: str = "ring",
        simulator: str | Device = "statevector",
        diff_method: str | None = None,
        shots: int = 0,
        seed: int | None = None,
        *,
        start: str = "near zero",
    ):
        require_sizes(n_qubits, depth)
        cnot_pairs(n_qubits, entangler)  # refuses an unknown entangler now and not at the first batch
        if start not in STARTS:
            raise ValueError(f"unknown start of the angles {start!r}: choose one of {', '.join(STARTS)}")
        super().__init__(n_qubits, simulator, diff_method, shots, seed)
        self.n_qubits, self.depth, self.entangler = n_qubits, depth, entangler
        self.theta = nn.Parameter(STARTS[start](depth, n_qubits))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        _require_width(x, self.n_qubits)
        return self.engine(x, self.theta, self.entangler)

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"n_qubits={self.n_qubits}, depth={self.depth}, entangler={self.entangler!r}"


class ScrambledLayer(nn.Module):
    """The layered circuit with a fixed random orthogonal matrix in place of the entangler, another one for each layer.

    As a control it tells what the pattern of CNOTs is worth, since it entangles and has no pattern.

    Args:
        n_qubits, depth: as for `QuantumLayer`; few qubits, since the matrices are `(2**n, 2**n)`.

    Attributes:
        theta: the only parameter, as for `QuantumLayer`.
        scramblers: `(depth, 2**n, 2**n)`, drawn by torch's generator from the Haar measure; never trained.

    Shape: as for `QuantumLayer`. Used in book/evidence/how_strong.
    """

    scramblers: Tensor

    def __init__(self, n_qubits: int, depth: int):
        require_sizes(n_qubits, depth)
        super().__init__()
        self.theta = nn.Parameter(STARTS["near zero"](depth, n_qubits))
        q, r = torch.linalg.qr(torch.randn(depth, 2**n_qubits, 2**n_qubits))
        self.register_buffer("scramblers", q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2))  # Mezzadri 2007

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        _require_width(x, self.theta.shape[-1])
        return _scrambled(x, self.theta, self.scramblers)


@one_dtype
def _scrambled(x: Tensor, theta: Tensor, scramblers: Tensor) -> Tensor:
    psi = statevector.encoded(x)
    for scrambler, angles in zip(scramblers, theta, strict=True):
        psi = statevector.rotated(psi @ scrambler, angles)
    return statevector.measured_z(psi)


class ReuploadingLayer(nn.Module):
    """`circuits.reuploading` as a layer: the data enters before every one of `depth` quantum layers.

    Args:
        n_qubits, depth, entangler: as for `QuantumLayer`.

    Attributes:
        scale: factors of the data, `(depth, n_qubits)`; start near 1.
        theta: angles, `(depth, n_qubits)`, in radians; start near zero.

    Shape: as for `QuantumLayer`. Used in book/evidence/how_strong. Source: Pérez-Salinas et al. 2020.
    """

    def __init__(self, n_qubits: int, depth: int, entangler: str = "ring"):
        require_sizes(n_qubits, depth)
        cnot_pairs(n_qubits, entangler)
        super().__init__()
        self.entangler = entangler
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(depth, n_qubits))
        self.theta = nn.Parameter(0.1 * torch.randn(depth, n_qubits))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        _require_width(x, self.theta.shape[-1])
        return _reuploaded(x, self.scale, self.theta, self.entangler)


@one_dtype
def _reuploaded(x: Tensor, scale: Tensor, theta: Tensor, entangler: str) -> Tensor:
    psi = torch.complex(plus := statevector.encoded(torch.zeros_like(x)), torch.zeros_like(plus))
    for factors, angles in zip(scale, theta, strict=True):
        psi = statevector.rotated(statevector.phased(psi, factors * x), angles)
        psi = statevector.entangled(psi, entangler)
    return statevector.measured_z(psi)
