"""From a PennyLane quantum function to what it does: a list of gates, and where the angle of each comes from.

PennyLane runs a quantum function anew, gate by gate, whenever a layer is called. Here it is run once, on tensors that torch
watches (`torch.fx`). PennyLane takes its templates apart, and every gate that is left is one of four kinds:

- `Fixed`: a matrix that no input and no weight changes;
- `Rotation`: exp(-iθP/2) of a Pauli word P, with an angle θ that is computed from inputs and weights;
- `Given`: a matrix that is computed from them, as in `qml.QubitUnitary(w)`;
- `Start`: a state that is computed from them, as in `qml.AmplitudeEmbedding(x)`.

Any gate with one parameter and a generator of commuting Pauli words is a product of rotations: exp(iφG) with G = Σ c_P P has
the angles -2 c_P φ. A controlled R_X, say, is two of them. Derived in book/foundations/simulation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pennylane as qml
import torch
from numpy import ndarray
from pennylane.measurements import MeasurementProcess
from pennylane.operation import Operator
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

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


class Pool(NamedTuple):
    """Where angles come from: variables v as they are, then polynomials of second degree in them, then all others.

    The polynomials are `constant + v @ linear + (v[left] * v[right]) @ products`. Most angles are a weight or an input as it
    is, and need nothing of this.
    """

    n_variables: int

    constant: ndarray  # (polynomials,)
    linear: ndarray  # (variables, polynomials)
    left: ndarray  # (products,), of variables
    right: ndarray
    products: ndarray  # (products, polynomials)
    moved: tuple[tuple[int, ndarray], ...]
    """Matrices and states that are numbers of one argument as they are: which argument, and which of its numbers, in shape."""
    others: GraphModule | None
    """All arguments → angles that are no such polynomials, then all other matrices and states."""
    n_other_angles: int


class Traced(NamedTuple):
    """What a circuit does to an input of a given width."""

    wires: tuple[Any, ...]
    """The labels of the qubits, qubit 0 first."""
    gates: tuple[Gate, ...]
    shared: Pool
    """Of what depends on weights alone; the variables are those weights, flattened, one after the other."""
    data: Pool
    """Of what depends on the input; the variables that may be angles themselves are a row of it, and the weights follow."""
    flat: tuple[int, ...]
    """Which of the weights are variables; the others enter as matrices or states."""
    measurements: tuple[MeasurementProcess, ...]
    returned: type
    """What the function returned: a list, a tuple, or a measurement alone."""

    @property
    def n_qubits(self) -> int:
        """How many wires there are."""
        return len(self.wires)


# What PennyLane's gates are


@contextmanager
def _abstract() -> Iterator[None]:
    """PennyLane treats tensors of torch as it treats those of a compiler: it never looks at their values."""
    known = qml.math.is_abstract
    with patch.object(qml.math, "is_abstract", lambda tensor, like=None: isinstance(tensor, Tensor) or known(tensor, like)):
        yield


def _is_constant(op: Operator) -> bool:
    return not any(isinstance(parameter, Tensor) for parameter in op.data)


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
        if not _is_constant(op):
            raise Refused(
                f"{op.name} is noise that depends on inputs or weights: keep PennyLane's TorchLayer for this circuit"
            )
        yield op, None
    elif (
        isinstance(op, (qml.StatePrep, qml.QubitUnitary, qml.ControlledQubitUnitary))
        if not _is_constant(op)
        else _is_small(op)
    ):
        yield op, None
    elif (rotations := _rotations(op)) is not None:
        yield op, rotations
    elif op.has_decomposition:
        for part in op.decomposition():
            yield from _elementary(part)
    elif _is_constant(op) and op.has_matrix:
        yield op, None
    else:
        raise Refused(f"{op.name} is neither a matrix nor made of gates with commuting generators: write it as such gates")


def _rotations(op: Operator) -> dict[Any, Any] | None:
    """Pauli words and angles of a gate that is a product of rotations; `None` if it is not known to be one."""
    if isinstance(op, qml.ops.Exp):
        base, factor = op.base, op.param if isinstance(op, qml.ops.Evolution) else (1j * op.coeff).real
        if not _is_constant(base):
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


# Running the function under torch's eyes


class _Seen:
    """The gates of a run of the circuit, while torch traces their angles."""

    def __init__(self, circuit: Callable[..., Any], measure: Measure | None, wires: Sequence[Any] | None):
        self.circuit, self.measure, self.given_wires = circuit, measure, wires
        self.gates: list[tuple[str, tuple[int, ...], Any]] = []
        self.measurements: tuple[MeasurementProcess, ...] = ()
        self.returned: type = object

    def run(self, x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
        """All angles, matrices and states that depend on tensors, in the order of the gates."""
        with _abstract():
            with qml.queuing.AnnotatedQueue() as queue:
                returned = self.circuit(x, **weights)
                if self.measure is not None:
                    returned = self.measure()
            tape = qml.tape.QuantumScript.from_queue(queue)
            several = isinstance(returned, (list, tuple))
            self.measurements, self.returned = tuple(returned) if several else (returned,), type(returned)
            if not self.measurements or not all(isinstance(m, MeasurementProcess) for m in self.measurements):
                raise Refused(
                    f"the circuit must return measurements of PennyLane, such as qml.expval(qml.Z(0)), got {returned!r}"
                )
            self.wires = list(self.given_wires if self.given_wires is not None else tape.wires)
            outputs: list[Tensor] = []
            self.gates = []
            with qml.QueuingManager.stop_recording():
                for op in tape.operations:
                    for part, rotations in _elementary(op):
                        outputs += self._note(part, rotations)
        return outputs

    def _note(self, op: Operator, rotations: dict[Any, Any] | None) -> Iterator[Tensor]:
        if rotations is not None:
            for word, angle in rotations.items():
                letters = dict(word)
                wires = self._indices(letters)
                if isinstance(angle, Tensor):
                    if angle.numel() != 1:
                        raise Refused(
                            f"{op.name} has {angle.numel()} angles: give every gate one number of a row of the input"
                        )
                    yield angle.reshape(())
                    self.gates.append(("rotation", wires, "".join(letters.values())))
                else:
                    word = "".join(letters.values())
                    gate = qml.PauliRot(angle, word, wires) if wires else qml.GlobalPhase(angle / 2)
                    self.gates.append(("fixed", wires, gate))
        elif _is_constant(op):
            kind = "noise" if isinstance(op, qml.operation.Channel) else "fixed"
            self.gates.append((kind, self._indices(op.wires), op))
        elif isinstance(op, qml.StatePrep):
            wires = self._indices(op.wires)
            if any(set(wires).intersection(before) for _, before, _ in self.gates):
                raise Refused(
                    f"{op.name} prepares qubits that other gates have used before: let it be the first gate on its wires"
                )
            yield op.state_vector().reshape(-1)
            self.gates.append(("start", wires, op))
        else:
            matrix = op.matrix() if isinstance(op, qml.ControlledQubitUnitary) else op.data[0]
            if matrix.shape[:-2].numel() != 1:
                raise Refused(
                    f"{op.name} has {matrix.shape[:-2].numel()} matrices: give every gate one for a row of the input"
                )
            yield matrix.reshape(matrix.shape[-2:])
            self.gates.append(("given", self._indices(op.wires), op))

    def _indices(self, wires: Any) -> tuple[int, ...]:
        unknown = [wire for wire in wires if wire not in self.wires]
        if unknown:
            raise Refused(f"the circuit uses the wire {unknown[0]!r}; its layer has the wires {self.wires}")
        return tuple(self.wires.index(wire) for wire in wires)


_MOVES = {"alias", "cat", "clone", "detach", "expand", "permute", "reshape", "select", "slice", "split", "split_with_sizes",
          "squeeze", "stack", "t", "transpose", "unbind", "unsqueeze", "view", "getitem", "flip", "roll", "_to_copy",
          "_unsafe_view", "index_select", "diagonal"}  # fmt: skip
"""Operations of torch that only move numbers."""

_LINEAR = _MOVES | {"neg", "add", "sub", "rsub", "sum", "ones_like", "zeros_like"}
"""Operations whose results are of no higher degree than what goes in."""


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def _degree(node: Node, degrees: dict[Node, int | float]) -> int | float:
    """Of which degree, as a polynomial in inputs and weights, the elements of a node are; infinite if it is none."""
    parents = [degrees[parent] for parent in node.all_input_nodes]
    if max(parents, default=0) == 0:
        return 0
    name = _name(node)
    if name in _LINEAR:
        return max(parents)
    if name in ("mul", "mm", "mv", "dot", "bmm"):
        return sum(degrees[a] for a in node.args if isinstance(a, Node))
    if name == "div" and not (isinstance(node.args[1], Node) and degrees[node.args[1]]):
        return max(parents)
    if name == "pow" and isinstance(node.args[1], int) and node.args[1] > 0:
        return max(parents) * node.args[1]
    return float("inf")


def _only(graph: GraphModule, outputs: list[int]) -> GraphModule:
    """The graph of some of the outputs."""
    chosen, found = torch.fx.Graph(), dict[Node, Node]()
    (results,) = next(node for node in graph.graph.nodes if node.op == "output").args
    chosen.graph_copy(graph.graph, found)
    chosen.output(tuple(found[results[i]] for i in outputs))
    chosen.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return GraphModule(graph, chosen)


class _Graph:
    """The graph from a row of the input and all weights to angles, matrices and states, and what is known of each of these."""

    def __init__(self, graph: GraphModule, arguments: list[Tensor], is_angle: list[bool]):
        self.graph, self.arguments, self.is_angle = graph, arguments, is_angle
        nodes = list(graph.graph.nodes)
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        (results,) = nodes[-1].args
        degrees: dict[Node, int | float] = {}
        from_inputs: dict[Node, set[int]] = {}
        moved: dict[Node, bool] = {}
        for node in nodes[:-1]:
            parents, given = node.all_input_nodes, node in self.inputs
            degrees[node] = 1 if given else _degree(node, degrees)
            moved[node] = given or (_name(node) in _MOVES and all(moved[parent] for parent in parents))
            from_inputs[node] = (
                {self.inputs.index(node)} if given else set().union(*(from_inputs[parent] for parent in parents))
            )
        self.degrees = [degrees[result] for result in results]
        self.from_inputs = [from_inputs[result] for result in results]
        self.sources, self.arrays = self._sources([moved[result] for result in results])
        for i, source in enumerate(self.sources):
            if source is not None:
                self.from_inputs[i] = {source[0]}
        of_polynomials = [i for i, angle in enumerate(is_angle) if angle and 0 < self.degrees[i] <= 2]
        self.flat = sorted(set().union(*(self.from_inputs[i] for i in of_polynomials)) - {0})
        self.of_data = [0 in inputs for inputs in self.from_inputs]

    def _sources(self, moved: list[bool]) -> tuple[list[tuple[int, int] | None], list[tuple[int, ndarray] | None]]:
        """Of each output, which argument's numbers it is, if it is these as they are: of single numbers, and of arrays.

        Numbers that are only moved tell, by their value, where they came from. One that does not change sign is a constant.
        """
        sizes = [argument.numel() for argument in self.arguments]
        ends = np.cumsum([0, *sizes])
        numbers = [torch.arange(end - size, end, dtype=torch.float64) + 1 for end, size in zip(ends[1:], sizes, strict=True)]
        shaped = [part.view(argument.shape) for part, argument in zip(numbers, self.arguments, strict=True)]
        single: list[tuple[int, int] | None] = []
        arrays: list[tuple[int, ndarray] | None] = []
        for alike, a, b in zip(moved, self.graph(*shaped), self.graph(*(-part for part in shaped)), strict=True):
            single.append(None)
            arrays.append(None)
            if alike and not a.is_complex() and bool((a == -b).all()) and bool((a != 0).all()):
                places = np.asarray(a.numpy().astype(int) - 1)
                first = int(np.searchsorted(ends, places.min(), side="right")) - 1
                if places.max() < ends[first + 1]:
                    inside = places - int(ends[first])
                    arrays[-1] = first, np.asarray(inside)
                    single[-1] = (first, int(inside)) if a.ndim == 0 else None
        return single, arrays

    def pool(self, *, data: bool) -> tuple[Pool, dict[int, int]]:
        """Where the angles come from that depend on the data, or that do not; and the place of each output."""
        mine = [i for i, degree in enumerate(self.degrees) if degree and self.of_data[i] == data]
        angles = [i for i in mine if self.is_angle[i]]
        moved = [i for i in angles if self.sources[i] is not None]
        polynomials = [i for i in angles if i not in moved and self.degrees[i] <= 2]
        others = [i for i in angles if i not in moved and i not in polynomials]
        arrays = [i for i in mine if not self.is_angle[i]]
        as_they_are = [i for i in arrays if self.arrays[i] is not None]
        arrays = as_they_are + [i for i in arrays if i not in as_they_are]
        of_pool = [0, *self.flat] if data else self.flat
        starts = dict(zip(of_pool, np.cumsum([0, *(self.arguments[a].numel() for a in of_pool)]).tolist(), strict=False))
        n_own = sum(self.arguments[a].numel() for a in ([0] if data else self.flat))
        places = {i: starts[source[0]] + source[1] for i in moved if (source := self.sources[i])}
        places |= {i: n_own + place for place, i in enumerate(polynomials + others)}
        places |= {i: place for place, i in enumerate(arrays)}
        computed = others + arrays[len(as_they_are) :]
        graph = _only(self.graph, computed) if computed else None
        kept = tuple(array for i in as_they_are if (array := self.arrays[i]))
        return Pool(n_own, *self._polynomials(polynomials, of_pool), kept, graph, len(others)), places

    def _polynomials(self, outputs: list[int], of_pool: list[int]) -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray]:
        """Their derivatives at zero, which say all of polynomials of second degree."""
        sizes = [self.arguments[a].numel() for a in of_pool]
        zero = torch.zeros(sum(sizes), dtype=torch.float64)
        left = right = np.zeros(0, dtype=int)
        if not outputs:
            return np.zeros(0), np.zeros((len(zero), 0)), left, right, np.zeros((0, 0))

        def values(variables: Tensor) -> Tensor:
            parts = [torch.zeros_like(argument) for argument in self.arguments]
            for a, part in zip(of_pool, variables.split(sizes), strict=True):
                parts[a] = part.view(self.arguments[a].shape)
            found = self.graph(*parts)
            return torch.stack([found[i] for i in outputs])

        products = np.zeros((0, len(outputs)))
        if any(self.degrees[i] == 2 for i in outputs):
            hessians = torch.func.jacrev(torch.func.jacrev(values))(zero).numpy()  # (polynomials, variables, variables)
            halves = np.triu(hessians) * (1 - np.eye(len(zero)) / 2)  # v_i v_j with i < j stands twice in a Hessian
            left, right = (halves != 0).any(axis=0).nonzero()
            products = halves[:, left, right].T
        return values(zero).numpy(), torch.func.jacrev(values)(zero).T.numpy(), left, right, products


def _fixed(wires: tuple[int, ...], gate: Operator) -> Fixed:
    """A gate of PennyLane without tensors; a phase of all wires becomes one of the first."""
    matrix = np.asarray(qml.matrix(gate), dtype=complex)
    return Fixed(wires, matrix, gate) if wires else Fixed((0,), matrix * np.eye(2))


def _constant(kind: str, wires: tuple[int, ...], word: str, value: Tensor) -> Gate:
    """A gate of tensors that depend on nothing."""
    if kind == "rotation":
        return _fixed(wires, qml.PauliRot(float(value), word, wires) if wires else qml.GlobalPhase(float(value) / 2))
    if kind == "given":
        return _fixed(wires, qml.QubitUnitary(value.numpy(), wires))
    columns = np.linalg.qr(np.column_stack([value.numpy(), np.eye(len(value))]))[0]  # the state, and what completes it
    columns[:, 0] = value.numpy()
    return _fixed(wires, qml.QubitUnitary(columns, wires))


def trace(
    circuit: Callable[..., Any],
    measure: Measure | None,
    n_inputs: int,
    shapes: dict[str, tuple[int, ...]],
    wires: Sequence[Any] | None = None,
    input_arg: str | None = None,
) -> Traced:
    """Run a quantum function once, on a row of the input, and note what it does.

    Args:
        circuit: PennyLane's quantum function of a row of inputs and of weights by name.
        measure: returns what is measured; `None` where the circuit itself returns it.
        n_inputs: the width of the input.
        shapes: of the weights, by name.
        wires: labels of the wires, qubit 0 first; by default those that the circuit uses.
        input_arg: the input's name, if it is handed over by name.

    Raises:
        Refused: a circuit that looks at values, measures on its way, or leaves a weight unused.
    """
    generator = torch.Generator().manual_seed(1)  # of its own: whoever calls a layer first draws the same numbers afterwards
    numbers = [torch.rand(size, generator=generator, dtype=torch.float64) for size in ((n_inputs,), *shapes.values())]
    arguments, weights = numbers, dict(zip(shapes, numbers[1:], strict=True))

    def by_name(x: Tensor, **weights: Tensor) -> Any:
        return circuit(x, **weights) if input_arg is None else circuit(**{input_arg: x}, **weights)

    def traced(row_shape: tuple[int, ...]) -> tuple[GraphModule, _Seen]:
        seen = _Seen(by_name, measure, wires)

        def outputs(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            return tuple(seen.run(x.view(row_shape), dict(zip(weights, values, strict=True))))

        graph = make_fx(torch.func.functionalize(outputs))(*arguments)
        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy.default):
            node.target = torch.ops.aten.expand_as.default  # of which torch knows the derivative
            node.args = node.args[1], node.args[0]
        graph.recompile()
        return graph, seen

    try:
        try:
            graph, seen = traced((n_inputs,))
        except IndexError:  # written for batches, as `x[:, 0]`
            graph, seen = traced((1, n_inputs))
    except RuntimeError as error:
        if "value out of a tracing tensor" not in str(error):
            raise
        raise Refused(
            "the circuit looks at the value of an input or a weight (an if, a float(), a check of PennyLane's), so one trace "
            "does not tell what it does for others: let values enter through gates only, or keep PennyLane's TorchLayer"
        ) from error
    known = _Graph(graph, arguments, [kind == "rotation" for kind, _, _ in seen.gates if kind not in ("fixed", "noise")])
    for name, node, argument in zip(weights, known.inputs[1:], arguments[1:], strict=True):
        if not node.users and argument.numel():
            raise Refused(f"the circuit does not use the weight {name!r}: leave it out of weight_shapes")
    (shared, of_shared), (data, of_data) = known.pool(data=False), known.pool(data=True)
    gates = _placed(known, seen, of_shared | of_data)
    flat = tuple(a - 1 for a in known.flat)
    return Traced(tuple(seen.wires), gates, shared, data, flat, seen.measurements, seen.returned)


def _placed(known: _Graph, seen: _Seen, places: dict[int, int]) -> tuple[Gate, ...]:
    """The gates that were seen, each with its place in a pool."""
    constants = known.graph(*known.arguments)
    outputs = iter(range(len(constants)))
    gates: list[Gate] = []
    for kind, wires, what in seen.gates:
        i = -1 if kind in ("fixed", "noise") else next(outputs)
        if kind == "fixed":
            gates.append(_fixed(wires, what))
        elif kind == "noise":
            gates.append(Noise(wires, what))
        elif not known.degrees[i]:
            gates.append(_constant(kind, wires, what, constants[i]))
        elif kind == "rotation":
            gates.append(Rotation(wires or (0,), what or "I", places[i], known.of_data[i]))
        else:
            gates.append((Start if kind == "start" else Given)(wires, places[i], known.of_data[i], constants[i].is_complex()))
    return tuple(gates)
