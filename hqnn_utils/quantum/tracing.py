"""From a PennyLane quantum function to what it does: a list of gates, and where the angle of each comes from.

PennyLane runs a quantum function anew, gate by gate, whenever a layer is called. Here it is run once, on tensors that torch
watches (`torch.fx`). PennyLane takes its templates apart, and every gate that is left is one of four kinds:

- `Fixed`: a matrix that no input and no weight changes;
- `Rotation`: exp(-iθP/2) of a Pauli word P, with an angle θ that is computed from inputs and weights;
- `Given`: a matrix that is computed from them, as in `qml.QubitUnitary(w)`, or of any other small gate;
- `Start`: a state that is computed from them, as in `qml.AmplitudeEmbedding(x)`.

Any gate with one parameter and a generator of commuting Pauli words is a product of rotations: exp(iφG) with G = Σ c_P P has
the angles -2 c_P φ. A controlled R_X, say, is two of them. Derived in book/foundations/simulation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pennylane as qml
import torch
from numpy import ndarray
from pennylane.measurements import MeasurementProcess
from pennylane.operation import Operator
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from hqnn_utils.quantum.angles import Analysis, Sources

Measure = Callable[[], Any]
"""What is measured: a function that returns one of PennyLane's measurements, or several."""

MATRIX_WIRES = 5
"""Gates without parameters are taken as matrices up to so many wires, and taken apart beyond."""


class Refused(ValueError):
    """A circuit that cannot be traced, with the reason and what to do."""


class Fixed(NamedTuple):
    """A gate that is always the same."""

    wires: tuple[int, ...]
    matrix: ndarray
    gate: Operator | None = None
    """PennyLane's own, for devices."""


class Rotation(NamedTuple):
    """exp(-iθP/2), with the Pauli word P as one letter for each wire."""

    wires: tuple[int, ...]
    word: str
    angle: int
    """Which angle: a column of `Angles`, of those that depend on the data or of the others."""
    data: bool
    """Whether the angle depends on the input, and not on weights alone."""


class Given(NamedTuple):
    """A matrix, `(2**k, 2**k)`, or as `Start` a state, `(2**k,)`, that is computed from weights, or from inputs too."""

    wires: tuple[int, ...]
    output: int
    data: bool
    is_complex: bool


class Start(Given):
    """The state in which some wires begin."""


class Noise(NamedTuple):
    """What only a noisy device can compute."""

    wires: tuple[int, ...]
    gate: Operator


Gate = Fixed | Rotation | Given | Noise


class Definition(NamedTuple):
    """A quantum function, and what else is needed to run it."""

    circuit: Callable[..., Any]
    """PennyLane's quantum function of a row of inputs and of weights by name."""
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of the weights, by name."""
    measure: Measure | None = None
    """Returns what is measured; `None` where the circuit itself returns it."""
    wires: tuple[Any, ...] | None = None
    """Labels of the wires, qubit 0 first; by default those that the circuit uses."""
    input_arg: str | None = None
    """The input's name, if it is handed over by name."""

    def returned(self, x: Tensor, weights: Sequence[Tensor]) -> Any:
        """Apply the gates; what the function, or `measure`, returns."""
        named = dict(zip(dict(self.shapes), weights, strict=True))
        found = self.circuit(x, **named) if self.input_arg is None else self.circuit(**{self.input_arg: x}, **named)
        return found if self.measure is None else self.measure()


class Traced(NamedTuple):
    """What a circuit does to an input of a given width."""

    wires: tuple[Any, ...]
    """The labels of the qubits, qubit 0 first."""
    gates: tuple[Gate, ...]
    sources: Sources
    """Where their angles come from."""
    measurements: tuple[MeasurementProcess, ...]
    returned: type
    """What the function returned: a list, a tuple, or a measurement alone."""
    by_batch: bool
    """Whether it takes batches only, and no single row."""

    @property
    def n_qubits(self) -> int:
        """How many wires there are."""
        return len(self.wires)


# What PennyLane's gates are


def _has_tensor(*values: Any) -> bool:
    return any(isinstance(value, Tensor) for value in values)


def abstract() -> AbstractContextManager:
    """PennyLane treats tensors of torch as it treats those of a compiler: it never looks at their values."""
    known = qml.math.is_abstract
    return patch.object(qml.math, "is_abstract", lambda tensor, like=None: _has_tensor(tensor) or known(tensor, like))


@contextmanager
def taking_apart() -> Iterator[None]:
    """And takes gates apart as it would at any values: none of a tensor is known to be close to another."""
    known = qml.math.allclose
    unknown = patch.object(qml.math, "allclose", lambda a, b, **options: not _has_tensor(a, b) and known(a, b, **options))
    with qml.QueuingManager.stop_recording(), abstract(), unknown:
        yield


def is_constant(op: Operator) -> bool:
    """Whether a gate depends on no tensor."""
    return not _has_tensor(*op.data)


def _is_small(op: Operator) -> bool:
    return op.has_matrix and len(op.wires) <= MATRIX_WIRES


def _elementary(op: Operator) -> Iterator[tuple[Operator, dict[Any, Any] | None]]:
    """The gates that a gate consists of; with the Pauli words, and their angles, of one that is a product of rotations."""
    if isinstance(op, (qml.ops.MidMeasure, qml.ops.Conditional)):
        raise Refused(
            f"{op.name}: a measurement amid the circuit leaves no pure state. Defer it, by qml.defer_measurements, or keep "
            "PennyLane's TorchLayer for this circuit"
        )
    if op.name in ("Barrier", "Snapshot", "WireCut", "Identity"):
        return
    if isinstance(op, qml.operation.Channel):
        if not is_constant(op):
            raise Refused(
                f"{op.name} is noise that depends on inputs or weights: keep PennyLane's TorchLayer for this circuit"
            )
        yield op, None
    elif (
        isinstance(op, (qml.StatePrep, qml.QubitUnitary, qml.ControlledQubitUnitary)) if not is_constant(op) else _is_small(op)
    ):
        yield op, None
    elif (rotations := _rotations(op)) is not None:
        yield op, rotations
    elif op.has_decomposition:
        for part in op.decomposition():
            yield from _elementary(part)
    elif _is_small(op) or (is_constant(op) and op.has_matrix):
        yield op, None
    else:
        raise Refused(
            f"{op.name} is neither a matrix of few qubits nor made of gates with commuting generators: write it as such gates"
        )


def _rotations(op: Operator) -> dict[Any, Any] | None:
    """Pauli words and angles of a gate that is a product of rotations; `None` if it is not known to be one."""
    if isinstance(op, qml.ops.Exp):
        base, factor = op.base, op.param if isinstance(op, qml.ops.Evolution) else (1j * op.coeff).real
        if not is_constant(base):
            return None
    elif op.num_params == 1 and op.has_generator:
        base, factor = -op.generator(), op.data[0]
    else:
        return None
    words = base.pauli_rep
    if words is None:
        words = qml.pauli_decompose(qml.matrix(base, wire_order=op.wires), wire_order=op.wires, pauli=True)
    listed = list(words)
    if any(not a.commutes_with(b) for i, a in enumerate(listed) for b in listed[:i]):
        return None
    scale = {word: 2 * complex(coefficient).real for word, coefficient in words.items()}
    return {word: factor if factor_of == 1 else factor_of * factor for word, factor_of in scale.items()}


# Running the function


class Seen(NamedTuple):
    """A gate in a run of a circuit."""

    kind: type[Gate]
    wires: tuple[int, ...]
    what: Any
    """PennyLane's gate, or of a rotation that has a tensor as its angle the word."""
    value: Tensor | None = None
    """The angle, matrix or state that is a tensor."""


class Recording:
    """A run of a circuit: its gates, in the elementary ones, and its measurements."""

    def __init__(self, definition: Definition, x: Tensor, weights: Sequence[Tensor]):
        with abstract(), qml.queuing.AnnotatedQueue() as queue:
            returned = definition.returned(x, weights)
        tape = qml.tape.QuantumScript.from_queue(queue)
        self.measurements = tuple(returned) if isinstance(returned, (list, tuple)) else (returned,)
        self.returned, self.operations = type(returned), tape.operations
        if not self.measurements or not all(isinstance(m, MeasurementProcess) for m in self.measurements):
            raise Refused(f"the circuit must return measurements of PennyLane, such as qml.expval(qml.Z(0)), got {returned!r}")
        self.wires = tuple(tape.wires if definition.wires is None else definition.wires)
        with taking_apart():
            self.gates = [gate for op in tape.operations for gate in seen(op, self.wires)]
        used: set[int] = set()
        for gate in self.gates:
            if gate.kind is Start and used.intersection(gate.wires):
                raise Refused(
                    f"{gate.what.name} prepares qubits that other gates have used: let it be the first gate on its wires"
                )
            used.update(gate.wires)

    def values(self) -> tuple[Tensor, ...]:
        """All angles, matrices and states that are tensors, in the order of the gates."""
        return tuple(gate.value for gate in self.gates if gate.value is not None)


def seen(op: Operator, wires: Sequence[Any]) -> Iterator[Seen]:
    """The elementary gates of a gate, on the places of its wires among all."""
    for part, rotations in _elementary(op):
        if rotations is not None:
            for word, angle in rotations.items():
                yield _rotation(part, "".join(word.values()), _places(word, wires), angle)
        elif is_constant(part):
            yield Seen(Noise if isinstance(part, qml.operation.Channel) else Fixed, _places(part.wires, wires), part)
        elif isinstance(part, qml.StatePrep):
            yield Seen(Start, _places(part.wires, wires), part, part.state_vector().reshape(-1))
        else:
            try:
                matrix = part.data[0] if isinstance(part, qml.QubitUnitary) else part.matrix()
            except TypeError as error:  # of a gate of anyone's, whose matrix NumPy computes
                raise Refused(f"{part.name} has no matrix of torch's numbers ({error}): compute it with qml.math") from None
            number = matrix.shape[:-2].numel()
            if number != 1:
                raise Refused(f"{part.name} has {number} matrices: give every gate one for a row of the input")
            yield Seen(Given, _places(part.wires, wires), part, matrix.reshape(matrix.shape[-2:]))


def _rotation(op: Operator, word: str, wires: tuple[int, ...], angle: Any) -> Seen:
    if not isinstance(angle, Tensor):
        return Seen(Fixed, wires, _turn(angle, word, wires))
    if angle.numel() != 1:
        raise Refused(f"{op.name} has {angle.numel()} angles: give every gate one number of a row of the input")
    return Seen(Rotation, wires, word, angle.reshape(()))


def _turn(angle: Any, word: str, wires: Sequence[Any]) -> Operator:
    return qml.PauliRot(angle, word, wires) if wires else qml.GlobalPhase(angle / 2)


def _places(used: Iterable[Any], wires: Sequence[Any]) -> tuple[int, ...]:
    used = list(used)
    unknown = [wire for wire in used if wire not in wires]
    if unknown:
        raise Refused(f"the circuit uses the wire {unknown[0]!r}; its layer has the wires {list(wires)}")
    return tuple(wires.index(wire) for wire in used)


# Running it under torch's eyes


def fixed(gate: Seen, value: Tensor | None) -> Fixed:
    """A gate that depends on no tensor, or on one that nothing changes; a phase of all wires becomes one of the first."""
    op, wires = gate.what, gate.wires
    if value is not None:
        op = (
            _turn(float(value), op, wires)
            if gate.kind is Rotation
            else qml.QubitUnitary(_completed(qml.math.toarray(value)), wires)
        )
    matrix = np.asarray(qml.matrix(op), dtype=complex)
    return Fixed(wires, matrix, op) if wires else Fixed((0,), matrix * np.eye(2))


def _completed(array: ndarray) -> ndarray:
    """A matrix; or one that makes a state of |0…0⟩."""
    if array.ndim == 2:
        return array
    columns = np.linalg.qr(np.column_stack([array, np.eye(len(array))]))[0]
    columns[:, 0] = array
    return columns


def drawn(definition: Definition, n_inputs: int, seed: int, low: float = 0, high: float = 1) -> list[Tensor]:
    """A row of inputs and all weights, at random."""
    generator = torch.Generator().manual_seed(seed)  # of its own: whoever calls a layer first draws the same afterwards
    shapes = (n_inputs,), *dict(definition.shapes).values()
    return [low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _graph(definition: Definition, arguments: list[Tensor], by_batch: bool) -> tuple[GraphModule, Recording]:
    """The graph from a row of inputs and all weights to what depends on them, and the run in which it was seen."""
    runs: list[Recording] = []

    def values(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        runs.append(Recording(definition, x.unsqueeze(0) if by_batch else x, weights))
        return runs[-1].values()

    graph = make_fx(torch.func.functionalize(values))(*arguments)
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy.default):
        node.target = torch.ops.aten.expand_as.default  # of which torch knows the derivative
        node.args = node.args[1], node.args[0]
    graph.recompile()
    return graph, runs[-1]


def _watched(definition: Definition, arguments: list[Tensor]) -> tuple[GraphModule, Recording, bool]:
    """Graph and run of a function of rows, or of batches only."""
    try:
        return *_graph(definition, arguments, False), False
    except IndexError as error:  # perhaps written for batches, as `x[:, 0]`
        try:
            return *_graph(definition, arguments, True), True
        except Exception:
            raise Refused(
                f"the circuit fails on a row of {len(arguments[0])} inputs, with {error}; and on a batch of one row, too"
            ) from error


def trace(definition: Definition, n_inputs: int) -> Traced:
    """Run a quantum function once, on a row of the input, and note what it does.

    Args:
        definition: the function.
        n_inputs: the width of the input.

    Raises:
        Refused: a circuit that looks at values, measures on its way, or leaves a weight unused.
    """
    arguments = drawn(definition, n_inputs, 1)
    try:
        graph, run, by_batch = _watched(definition, arguments)
    except RuntimeError as error:
        if "value out of a tracing tensor" not in str(error):
            raise
        raise Refused(
            "the circuit looks at the value of an input or a weight (an if, a float(), a check of PennyLane's), so one trace "
            "does not tell what it does for others: let values enter through gates only, or keep PennyLane's TorchLayer"
        ) from error
    found = Analysis(graph, arguments, [gate.kind is Rotation for gate in run.gates if gate.value is not None])
    for i, (name, _) in enumerate(definition.shapes, 1):
        if i in found.unused and arguments[i].numel():
            raise Refused(f"the circuit does not use the weight {name!r}: leave it out of weight_shapes")
    gates = tuple(_placed(run, found, graph(*arguments)))
    return Traced(run.wires, gates, found.sources, run.measurements, run.returned, by_batch)


def _placed(run: Recording, found: Analysis, values: Sequence[Tensor]) -> Iterator[Gate]:
    """The gates that were seen, each with its place in a pool."""
    results = iter(range(len(values)))
    for gate in run.gates:
        i = -1 if gate.value is None else next(results)
        if gate.kind is Noise:
            yield Noise(gate.wires, gate.what)
        elif i < 0 or found.is_constant[i]:
            yield fixed(gate, None if i < 0 else values[i])
        elif gate.kind is Rotation:
            yield Rotation(gate.wires or (0,), gate.what or "I", found.places[i], found.of_data[i])
        else:
            kind = Start if gate.kind is Start else Given
            yield kind(gate.wires, found.places[i], found.of_data[i], values[i].is_complex())
