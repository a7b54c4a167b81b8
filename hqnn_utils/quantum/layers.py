"""Quantum circuits as torch modules: what a hybrid network is built from.

`CircuitLayer` makes a layer of any quantum function of PennyLane. `QuantumLayer`, `VariationalLayer` and `ReuploadingLayer`
are layers of the book's own circuits, and `QuantumActivation` is the one-qubit circuit on every element of a tensor.
They run on `simulator="statevector"`, the package's own exact engine. All but the second and third also run on any PennyLane
device (itself, or its name), with the same parameters, shapes and results.

One rule for dtypes holds for all of them, on every simulator and by every method: inputs are real floating-point numbers;
integers, bools and complex numbers raise a `TypeError`. Result and computation have the wider precision of input and weights
(of the input, where there are no weights), but nothing is computed in less than float32: half precision is rounded at the
end. `torch.autocast` changes none of this.

An angle that is NaN or infinite makes an exact value that torch computes NaN; where anything is measured, or a device or the
shift rule computes, it raises a `ValueError` that says where.

Every layer can be copied, pickled, saved whole and sent to other processes. A deep copy has a device of its own, if that was
given by name, and starts its random outcomes anew. `torch.export` and `torch.jit.trace` take what torch itself computes.
`torch.compile` takes it too, as one graph; but a call of compiled code has a price of its own, which in networks as small as
the book's is more than it saves (benchmarks/compiled.py). Where an angle is another function of inputs and weights than a sum
of products of two, a layer is exported for one batch size, and compiled in two graphs.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from math import pi
from typing import Any

import pennylane as qml
import torch
from jaxtyping import Float, Inexact
from pennylane.devices import Device
from torch import Tensor, nn

from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import ENCODINGS, ENTANGLERS, ROTATIONS, cnot_pairs, expval_z, given
from hqnn_utils.quantum.compilation import key_of, program
from hqnn_utils.quantum.engines import Exact, Opaque, engine_for
from hqnn_utils.quantum.inputs import one_dtype, require_sizes
from hqnn_utils.quantum.tracing import Definition, Measure

Initial = Callable[[Tensor], Any] | Mapping[str, Callable[[Tensor], Any] | Tensor] | None


class CircuitLayer(nn.Module):
    """Any quantum function of PennyLane as a layer: inputs and weights in, measurements out.

    The function is run once, by PennyLane; what it does is then computed by torch, on whole batches, fused
    (`quantum.fusion`). It may apply PennyLane's gates and templates, `qml.QubitUnitary` and state preparation, with any torch
    function between inputs, weights and angles.

    Args:
        circuit: a quantum function `circuit(x, **weights)` of a row of inputs, indexed as `x[..., i]` or `x[i]`.
        n_qubits: how many wires there are, 0 … n_qubits - 1.
        weight_shapes: shape of each weight, by its name.
        measure: returns PennyLane's measurements: expectation values, probabilities, or the state alone. By default ⟨Z_i⟩ of
            every qubit.
        simulator: `"statevector"`, or any PennyLane device or its name.
        diff_method: by default `"backprop"` where nothing is measured on `"statevector"` or default.qubit, else
            `"parameter-shift"`: our batched rule, for any device and any shots, which shifts every rotation that the circuit
            is made of. Or a method of that device that takes batches.
        shots: measurements of each circuit; 0 is exact.
        seed: of simulated shots, a whole number; `None` takes a fresh one.
        init_method: how weights start: a function of `torch.nn.init`, or for each name one or a tensor; by default uniform in
            [0, 2π).

    Shape: `(*, n_inputs)` → `(*, n_outputs)`, where probabilities are `2**k` outputs; `(*,)` where `measure` returns a single
    expectation value and no list. Angles in radians; outputs of the wider dtype of input and weights (see above), states
    complex.

    Raises:
        TypeError: an input that is not of real floating-point numbers.
        ValueError: shots or a seed that are none, a method that the simulator has not, or angles that are not finite.
        tracing.Refused: a circuit that looks at values, measures on its way or has noise; a weight that it does not use;
            matrices and states that depend on inputs or weights, where the shift rule or a device is to compute.
        RuntimeError: with shots, on a device or by the shift rule: an export or a trace.
        MemoryError: before anything is allocated, if the states that the backward pass keeps cannot fit.

    Example:
        >>> def circuit(x, w):
        ...     qml.AngleEmbedding(x, wires=range(2))
        ...     qml.StronglyEntanglingLayers(w, wires=range(2))
        >>> layer = CircuitLayer(circuit, 2, {"w": (3, 2, 3)})
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 2])

    Derived in book/foundations/simulation.
    """

    n_inputs: int | None = None
    """How many inputs a row has, where that is known."""
    seen: int | None = None
    """And how many the last one had."""

    def __init__(
        self,
        circuit: Callable[..., Any],
        n_qubits: int,
        weight_shapes: Mapping[str, Any],
        measure: Measure | None = None,
        *,
        simulator: str | Device = "statevector",
        diff_method: str | None = None,
        shots: int = 0,
        seed: int | None = None,
        init_method: Initial = None,
    ):
        require_sizes(n_qubits)
        measure = measure or given(expval_z, n_qubits)
        self._begin(circuit, weight_shapes, measure, range(n_qubits), None)
        self.engine, self.diff_method = engine_for(simulator, diff_method, n_qubits, shots, seed)
        self._draw(init_method)

    @classmethod
    def from_qnode(
        cls, qnode: qml.QNode, weight_shapes: Mapping[str, Any], init_method: Initial = None, *, input_arg: str = "inputs"
    ) -> "CircuitLayer":
        """A layer from what `qml.qnn.TorchLayer` takes, with the same names of parameters: one line of a program changes.

        PennyLane's ideal simulators are replaced by the engine, which gives the same values; with shots it samples. Any other
        device is kept, and differentiated by its QNode's own method if that takes batches.

        Args:
            qnode: a QNode of an input and of weights, by name.
            weight_shapes, init_method: as for `TorchLayer`.
            input_arg: the name of the input.

        Raises:
            TypeError: a QNode without the argument `input_arg`, or without one that `weight_shapes` names.
            ValueError: an argument that has no shape, an interface other than torch's, or several numbers of shots.
        """
        _require_arguments(qnode.func, input_arg, weight_shapes)
        if qnode.interface not in ("auto", "torch", "pytorch"):
            raise ValueError(f"Invalid interface {qnode.interface!r} of the QNode: its layer is one of torch")
        if qnode.shots.has_partitioned_shots:
            raise ValueError(f"a QNode with several numbers of shots, {qnode.shots}, gives several results: give it one")
        device, shots = qnode.device, int(qnode.shots.total_shots or 0)
        ours = device.name == "default.qubit" or device.name.startswith("lightning.")
        method = None if ours or qnode.diff_method in ("best", "parameter-shift") else qnode.diff_method
        layer = cls.__new__(cls)
        layer._begin(qnode.func, weight_shapes, None, device.wires or None, input_arg)
        layer.engine, layer.diff_method = engine_for(
            "statevector" if ours else device, method, len(device.wires or ()) or 1, shots, None
        )
        layer._draw(init_method)
        return layer

    def _begin(
        self,
        circuit: Callable[..., Any],
        weight_shapes: Mapping[str, Any],
        measure: Measure | None,
        wires: Sequence[Any] | None,
        input_arg: str | None,
    ) -> None:
        super().__init__()
        shapes = tuple((name, _shape(size)) for name, size in weight_shapes.items())
        self.is_plain = isinstance(measure, partial) and measure.func is expval_z
        self.definition = Definition(circuit, shapes, measure, None if wires is None else tuple(wires), input_arg)
        self.key = key_of(self.definition)

    def _draw(self, init_method: Initial) -> None:
        for name, shape in self.definition.shapes:
            method = init_method[name] if isinstance(init_method, Mapping) else init_method
            value = method if isinstance(method, Tensor) else torch.empty(shape)
            if not isinstance(method, Tensor):
                found = (method or partial(nn.init.uniform_, b=2 * pi))(value)
                value = value if found is None else found  # a function may fill its argument, or return a tensor of its own
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                got = f"one of the shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                raise ValueError(f"the weight {name!r} must start as a tensor of the shape {shape}, got {got}")
            self.register_parameter(name, nn.Parameter(value))

    @property
    def device(self) -> Device | None:
        """PennyLane's device, or `None` where our own engine computes."""
        return self.engine.device

    @property
    def qnode(self) -> qml.QNode:
        """The circuit and what it measures as PennyLane's QNode of an input and of the weights by name, as for `qml.draw`."""
        circuit, _, measure, wires, _ = self.definition

        @wraps(circuit)
        def run(*inputs: Tensor, **arguments: Tensor) -> Any:
            found = circuit(*inputs, **arguments)
            return found if measure is None else measure()

        return qml.QNode(run, self.device or qml.device("default.qubit", wires=wires))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Inexact[Tensor, "..."]:
        if not torch.jit.is_tracing() and (not x.ndim or self.n_inputs not in (None, x.shape[-1])):
            wanted = "rows of inputs" if self.n_inputs is None else f"{self.n_inputs} angles a row"
            raise ValueError(f"this layer takes {wanted}, got an input of shape {tuple(x.shape)}")
        width = self._width(x)
        weights = [getattr(self, name) for name, _ in self.definition.shapes]
        if x.ndim == 2:
            found = _computed(self.engine, self.key, width, x, *weights)
        else:
            found = _computed(self.engine, self.key, width, x.reshape(-1, x.shape[-1]), *weights)
            found = found.reshape(*x.shape[:-1], found.shape[-1])
        return found if self.is_plain else self._as_returned(found, width)

    def _width(self, x: Tensor) -> int:
        """The width of the input as a number of its own: in compiled code one that came from a shape may stand for any."""
        known = self.n_inputs or self.seen
        if known and (torch.jit.is_tracing() or known == x.shape[-1]):
            return known
        if not torch.compiler.is_compiling():
            self.seen = int(x.shape[-1])
            return self.seen
        return x.shape[-1]

    def _as_returned(self, found: Tensor, width: int) -> Tensor:
        """A single expectation value has no axis of its own; and of a tuple `TorchLayer` stacks the measurements."""
        known = program(self.key, width)
        if (
            self.definition.measure is None
            and known.traced.returned is tuple
            and len(set(known.measured.sizes)) == 1 < len(known.measured.sizes)
        ):
            return torch.stack(found.split(known.measured.sizes[0], dim=-1))
        single = known.n_outputs == 1 and known.traced.returned not in (list, tuple)
        return found.squeeze(-1) if single else found

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.key = key_of(self.definition)  # a name in this process

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"{getattr(self.definition.circuit, '__name__', 'circuit')}, {dict(self.definition.shapes)}"


@one_dtype
def _computed(engine: Exact | Opaque, key: str, width: int, x: Tensor, *weights: Tensor) -> Tensor:
    return engine(key, width, x, *weights)


def _require_arguments(function: Callable[..., Any], input_arg: str, shapes: Mapping[str, Any]) -> None:
    """Refuse a function that does not take the input and the weights, and these alone, by name."""
    arguments = inspect.signature(function).parameters.values()
    kinds = {argument.kind for argument in arguments}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise TypeError("Cannot have a variable number of positional arguments: input and weights are told by names")
    if input_arg in shapes:
        raise ValueError(f"the {input_arg} argument should not have its dimension in weight_shapes: the input brings its own")
    missing = [name for name in (input_arg, *shapes) if name not in {argument.name for argument in arguments}]
    if missing and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(f"the QNode must include an argument with name {missing[0]!r}: input and weights are told by names")
    for argument in arguments:
        needed = argument.kind is not argument.VAR_KEYWORD and argument.default is argument.empty
        if needed and argument.name not in (input_arg, *shapes):
            raise ValueError(
                f"Must specify a shape for every non-input parameter: {argument.name!r} has none in weight_shapes"
            )


def _shape(size: Any) -> tuple[int, ...]:
    """A shape as `TorchLayer` takes it, where 1 is a single number."""
    if isinstance(size, int):
        return (size,) if size > 1 else ()
    return tuple(map(int, size))


class QuantumActivation(nn.Module):
    """f(θ) = ⟨Z⟩ of the one-qubit circuit H–R_Y(θ), one qubit for every element of the input.

    Exactly this equals -sin θ, and the state vector needs no more than that; a device runs the circuits of the whole input as
    one broadcast batch. It can be trained and, by any method but `"adjoint"`, differentiated twice and used under
    `torch.vmap`.

    Args:
        simulator, diff_method, shots, seed: as for `CircuitLayer`. With shots each value is one of `shots + 1` steps in
            [-1, 1], and gradients are estimates from the same number of shots per shifted circuit.

    Shape: input and output `(*)`; input angles in radians, output in [-1, 1], of the input's dtype (see above).

    Raises:
        As `CircuitLayer`.

    Derived in book/foundations/pqc (value) and book/foundations/parameter_shift (gradient).
    """

    def __init__(
        self, simulator: str | Device = "statevector", diff_method: str | None = None, shots: int = 0, seed: int | None = None
    ):
        super().__init__()
        self.engine, self.diff_method = engine_for(simulator, diff_method, 1, shots, seed)

    device = CircuitLayer.device

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if isinstance(self.engine, Exact):
            return _minus_sine(theta)
        key = key_of(Definition(circuits.activation, (), given(expval_z, 1), (0,)))
        return _computed(self.engine, key, 1, theta.reshape(-1, 1)).reshape(theta.shape)


@one_dtype
def _minus_sine(theta: Tensor) -> Tensor:
    return -torch.sin(theta)


STARTS = {
    "near zero": lambda *shape: 0.01 * torch.randn(shape),
    "uniform": lambda *shape: pi * (2 * torch.rand(shape) - 1),
}
"""Where trainable angles may start: normal with a standard deviation of 0.01, as in Mari et al. 2020, or all over [-π, π)."""


class QuantumLayer(CircuitLayer):
    """The layered circuit as a layer: angles of n qubits in, ⟨Z_i⟩ of n qubits out.

    H on each qubit, R_Y(x_i), then `depth` quantum layers of [entangler, R_Y(theta_li)].

    Args:
        n_qubits: width of input and output, at least 1.
        depth: number of quantum layers, at least 0.
        entangler: one of `circuits.ENTANGLERS`; `"none"` makes the separable twin.
        simulator, diff_method, shots, seed: as for `CircuitLayer`.
        start: of the angles, drawn by torch's generator; one of `STARTS`.

    Attributes:
        theta: the only parameter, `(depth, n_qubits)`, in radians.

    Shape: `(*, n_qubits)` → `(*, n_qubits)`; input angles in radians, output in [-1, 1], of the wider dtype of input and
    weights (see above).

    Raises:
        As `CircuitLayer`.
        ValueError: also an unknown entangler or start; a size that is no size; an input of another width.

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
        super().__init__(
            given(circuits.layered, entangler=entangler),
            n_qubits,
            {"theta": (depth, n_qubits)},
            given(expval_z, n_qubits),
            simulator=simulator,
            diff_method=diff_method,
            shots=shots,
            seed=seed,
            init_method={"theta": STARTS[start](depth, n_qubits)},
        )
        self.n_inputs = self.n_qubits = n_qubits
        self.depth, self.entangler = depth, entangler

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"n_qubits={self.n_qubits}, depth={self.depth}, entangler={self.entangler!r}"


RANDOM = "random"
"""In place of the name of an entangler: an orthogonal matrix for each layer, drawn at random and fixed."""


class VariationalLayer(CircuitLayer):
    """`circuits.variational` as a layer: what other papers put where this book has a `QuantumLayer`.

    Args:
        n_qubits, depth, start: as for `QuantumLayer`.
        entangler: as for `QuantumLayer`, or `RANDOM`: as a control it tells what the pattern of CNOTs is worth, since such a
            matrix entangles and has no pattern. Its matrices are `(2**n, 2**n)`, so few qubits.
        encoding: one of `circuits.ENCODINGS`.
        rotation: of each layer, one of `circuits.ROTATIONS`.
        uploads: how often the data enters, at least 1; `depth` layers follow each time.

    Attributes:
        theta: the only parameter, `(uploads, depth, n_qubits, 1 or 3)`, in radians.
        scramblers: the random matrices, `(uploads, depth, 2**n, 2**n)`, drawn by torch's generator from the Haar measure;
            never trained. `None` for a pattern of CNOTs.

    Shape: as for `QuantumLayer`. Used in book/evidence/universe and book/evidence/controls.

    Raises:
        As `QuantumLayer`; also a ValueError for an unknown encoding or rotation.
    """

    scramblers: Tensor | None

    def __init__(
        self,
        n_qubits: int,
        depth: int,
        entangler: str = "ring",
        encoding: str = "h_ry",
        rotation: str = "ry",
        uploads: int = 1,
        start: str = "near zero",
    ):
        require_sizes(n_qubits, depth)
        known: dict[str, Iterable[str]] = {
            "entangler": (*ENTANGLERS, RANDOM),
            "start": STARTS,
            "encoding": ENCODINGS,
            "rotation": ROTATIONS,
        }
        for (what, names), name in zip(known.items(), (entangler, start, encoding, rotation), strict=True):
            if name not in names:
                raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(names)}")
        if not uploads >= 1:
            raise ValueError(f"the data enters at least once, got {uploads} uploads")
        shape = uploads, depth, n_qubits, ROTATIONS[rotation]
        pattern = "none" if entangler == RANDOM else entangler
        circuit, angles = given(circuits.variational, entangler=pattern, encoding=encoding), STARTS[start](*shape)
        super().__init__(circuit, n_qubits, {"theta": shape}, given(expval_z, n_qubits), init_method={"theta": angles})
        self.n_inputs, self.entangler = n_qubits, entangler
        self.register_buffer("scramblers", None)
        if entangler == RANDOM:
            q, r = torch.linalg.qr(torch.randn(uploads, depth, 2**n_qubits, 2**n_qubits))
            self.scramblers = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # Mezzadri 2007
            self.definition = self.definition._replace(shapes=(*self.definition.shapes, ("scramblers", tuple(q.shape))))
            self.key = key_of(self.definition)


class ReuploadingLayer(CircuitLayer):
    """`circuits.reuploading` as a layer: the data enters before every one of `depth` quantum layers.

    Args:
        n_qubits, depth, entangler: as for `QuantumLayer`.

    Attributes:
        scale: factors of the data, `(depth, n_qubits)`; start near 1.
        theta: angles, `(depth, n_qubits)`, in radians; start near zero.

    Shape: as for `QuantumLayer`. Used in book/evidence/where_entanglement_helps. Source: Pérez-Salinas et al. 2020.
    """

    def __init__(self, n_qubits: int, depth: int, entangler: str = "ring"):
        require_sizes(n_qubits, depth)
        cnot_pairs(n_qubits, entangler)
        shape = depth, n_qubits
        starts = {"scale": 1 + 0.1 * torch.randn(shape), "theta": 0.1 * torch.randn(shape)}
        circuit = given(circuits.reuploading, entangler=entangler)
        super().__init__(circuit, n_qubits, dict.fromkeys(starts, shape), given(expval_z, n_qubits), init_method=starts)
        self.n_inputs, self.entangler = n_qubits, entangler
