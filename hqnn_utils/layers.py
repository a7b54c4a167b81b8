"""Quantum circuits as torch modules: what a hybrid network is built from.

`QuantumActivation` and `QuantumLayer` run on `simulator="statevector"`, the package's own exact engine, or on any PennyLane
device (itself, or its name), with the same parameters, shapes and results. Their controls, `ScrambledLayer` and
`ReuploadingLayer`, have the engine only.
"""

from copy import copy, deepcopy
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from pennylane.devices import Device
from torch import Tensor, nn

from hqnn_utils import statevector
from hqnn_utils.circuits import cnot_pairs, expval_z, h_ry, layered, qnode
from hqnn_utils.gradients import ShiftRule


class _Outcomes:
    """The randomness of measurements on our engine: seeded, and started anew in a copy, as a device is."""

    def __init__(self, seed: int | None):
        self.seed, self.generators = seed, {}

    def on(self, device: torch.device) -> torch.Generator:
        """The generator for tensors of a device of torch."""
        if device not in self.generators:
            generator = self.generators[device] = torch.Generator(device)
            generator.seed() if self.seed is None else generator.manual_seed(self.seed)
        return self.generators[device]

    def __deepcopy__(self, memo):
        return _Outcomes(self.seed)

    def __getstate__(self):
        return {"seed": self.seed, "generators": {}}


class _Circuit(nn.Module):
    """What the two layers share: the choice of a simulator, and running it on angles of any leading shape."""

    def __init__(self, circuit, n_qubits: int, simulator: str | Device, diff_method: str | None, shots: int, seed: int | None):
        super().__init__()
        if shots < 0:
            raise ValueError(f"shots must be 0 (exact) or positive, got {shots}")
        self.node = None
        exact = simulator in ("statevector", "default.qubit") and not shots
        self.diff_method = diff_method or ("backprop" if exact else "parameter-shift")
        if self.diff_method == "backprop" and shots:
            raise ValueError("shots leave nothing to go back through: use diff_method='parameter-shift'")
        if simulator == "statevector":
            if self.diff_method not in ("backprop", "parameter-shift"):
                raise ValueError(
                    f"the state vector has the methods 'backprop' and 'parameter-shift', got {diff_method!r}: that needs a "
                    "PennyLane device, e.g. simulator='lightning.qubit'"
                )
            self.shots, self.outcomes = shots, _Outcomes(seed)
            return
        # The shift rule is ours, around the device: PennyLane's refuses batches of trainable inputs. Inside it nothing is
        # differentiated, and devices compute faster with NumPy's numbers than with torch's.
        inside = dict(diff_method=self.diff_method)
        if self.diff_method == "parameter-shift":
            inside = dict(diff_method=None, interface=None)
        measure = partial(expval_z, n_qubits)
        self._connect = partial(qnode, circuit, measure, n_qubits, simulator, shots, seed, **inside)
        self.node = self._connect()

    def __deepcopy__(self, memo):
        """A copy has a device of its own, if that was given by name: not every device can be copied."""
        copied = copy(self)
        others = {name: value for name, value in self.__dict__.items() if name not in ("node", "_connect")}
        copied.__dict__.update(deepcopy(others, memo))
        if self.node is not None:
            copied.node = self._connect()
        return copied

    @property
    def seen_through(self) -> bool:
        """Whether torch itself computes and differentiates the layer."""
        return self.node is None and self.diff_method == "backprop"

    def _run(self, rows: Tensor, *angles) -> Tensor:
        """Expectation values `(rows, n_qubits)` of the device, which broadcasts over one axis of rows."""
        if self.diff_method != "parameter-shift":
            return torch.stack(self.node(rows, *angles), dim=-1).to(rows.dtype)
        plain = [angle.numpy(force=True).astype(float) if isinstance(angle, Tensor) else angle for angle in (rows, *angles)]
        values = np.stack(self.node(*plain), axis=-1)
        return torch.from_numpy(values.reshape(len(rows), -1)).to(rows)


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
        seed: of simulated shots; `None` takes a fresh one.

    Shape: input and output `(*)`; input angles in radians, output in [-1, 1], of the input's dtype.

    Raises:
        ValueError: negative shots, or a method that the simulator has not.

    Derived in book/foundations/pqc (value) and book/foundations/parameter_shift (gradient).
    """

    def __init__(
        self,
        simulator: str | Device = "statevector",
        diff_method: str | None = None,
        shots: int = 0,
        seed: int | None = None,
    ):
        super().__init__(h_ry, 1, simulator, diff_method, shots, seed)

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.seen_through or not theta.numel():  # of nothing, no device is asked
            return -torch.sin(theta)
        if self.diff_method == "parameter-shift":
            return ShiftRule.apply(self._elementwise, theta.unsqueeze(-1)).squeeze(-1)
        return self._elementwise(theta)

    def _elementwise(self, theta: Tensor) -> Tensor:
        if self.node is None:
            f = -torch.sin(theta)
            if not self.shots:
                return f
            # How many of the shots find |0⟩ is binomial.
            found = torch.binomial(torch.full_like(f, self.shots), (1 + f) / 2, self.outcomes.on(theta.device))
            return 2 * found / self.shots - 1
        return self._run(theta.reshape(-1)).reshape(theta.shape)


class QuantumLayer(_Circuit):
    """The layered circuit as a layer: angles of n qubits in, ⟨Z_i⟩ of n qubits out.

    H on each qubit, R_Y(x_i), then `depth` quantum layers of [entangler, R_Y(theta_li)].

    Args:
        n_qubits: width of input and output, at least 1.
        depth: number of quantum layers, at least 0.
        entangler: one of `circuits.ENTANGLERS`; `"none"` makes the separable twin.
        simulator, diff_method, shots, seed: as for `QuantumActivation`.

    Attributes:
        theta: the only parameter, `(depth, n_qubits)`, in radians; starts near zero, normal with a standard deviation of 0.01,
            as in Mari et al. 2020.

    Shape: `(*, n_qubits)` → `(*, n_qubits)`; input angles in radians, output in [-1, 1], of the input's dtype.

    Raises:
        ValueError: as for `QuantumActivation`; an unknown entangler; a size that is no size; an input of another width.

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
    ):
        if n_qubits < 1 or depth < 0:
            raise ValueError(f"a layer needs n_qubits >= 1 and depth >= 0, got n_qubits={n_qubits}, depth={depth}")
        cnot_pairs(n_qubits, entangler)  # refuses an unknown entangler now and not at the first batch
        super().__init__(layered, n_qubits, simulator, diff_method, shots, seed)
        self.n_qubits, self.depth, self.entangler = n_qubits, depth, entangler
        self.theta = nn.Parameter(0.01 * torch.randn(depth, n_qubits))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        if x.shape[-1] != self.n_qubits:
            raise ValueError(f"this layer takes {self.n_qubits} angles a row, got an input of shape {tuple(x.shape)}")
        if self.seen_through or not x.numel():
            return statevector.expval_z(x, self.theta, self.entangler)
        if self.diff_method == "parameter-shift":
            # Every angle of every row is its own: expand adds up the gradients of the shared weights.
            shared = self.theta.flatten().expand(*x.shape[:-1], -1)
            return ShiftRule.apply(self._shifted, torch.cat([x, shared], dim=-1))
        return self._run(x.reshape(-1, self.n_qubits), self.theta, self.entangler).reshape(x.shape)

    def _shifted(self, angles: Tensor) -> Tensor:
        """Expectation values for rows of all angles, data first: `(*, n_qubits * (1 + depth))` → `(*, n_qubits)`."""
        rows = angles.reshape(-1, angles.shape[-1])
        x, theta = rows.split([self.n_qubits, rows.shape[-1] - self.n_qubits], dim=-1)
        if self.node is None:
            weights = theta.reshape(len(rows), self.depth, self.n_qubits)
            psi = torch.vmap(lambda x, theta: statevector.state(x, theta, self.entangler))(x, weights)
            values = statevector.measured_z(psi, self.shots, self.outcomes.on(x.device) if self.shots else None)
            return values.reshape(*angles.shape[:-1], self.n_qubits)
        layers = theta.T.reshape(self.depth, self.n_qubits, len(rows))
        return self._run(x, layers, self.entangler).reshape(*angles.shape[:-1], self.n_qubits)

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

    def __init__(self, n_qubits: int, depth: int):
        super().__init__()
        self.theta = nn.Parameter(0.01 * torch.randn(depth, n_qubits))
        q, r = torch.linalg.qr(torch.randn(depth, 2**n_qubits, 2**n_qubits))
        self.register_buffer("scramblers", q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2))  # Mezzadri 2007

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        psi = statevector.encoded(x)
        for scrambler, angles in zip(self.scramblers, self.theta, strict=True):
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
        super().__init__()
        cnot_pairs(n_qubits, entangler)
        self.entangler = entangler
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(depth, n_qubits))
        self.theta = nn.Parameter(0.1 * torch.randn(depth, n_qubits))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        psi = torch.complex(plus := statevector.encoded(torch.zeros_like(x)), torch.zeros_like(plus))
        for factors, angles in zip(self.scale, self.theta, strict=True):
            psi = statevector.rotated(statevector.phased(psi, factors * x), angles)
            psi = statevector.entangled(psi, self.entangler)
        return statevector.measured_z(psi)
