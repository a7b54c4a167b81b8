"""A quantum function as a program: from inputs and weights to what is measured.

`ready` traces the function and compiles it; the first time it also holds the result against PennyLane's own, so that a circuit
of which the trace does not tell everything is refused and not computed wrongly.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, lru_cache, reduce, wraps
from typing import Any, NamedTuple, no_type_check

import numpy as np
import pennylane as qml
import psutil
import torch
from numpy import ndarray
from pennylane.measurements import ExpectationMP, MeasurementProcess, ProbabilityMP, StateMP
from torch import Tensor
from torch._C import _functorch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_map_only

from hqnn_utils.quantum.engine import TO_Z, CircuitAngles, Plan, Tensors, bits, signs
from hqnn_utils.quantum.tracing import Fixed, Gate, Given, Measure, Noise, Pool, Refused, Rotation, Traced, trace

DENSE_QUBITS = 10
"""Beyond, signs of words are products of those of both halves of the qubits, and not one column each."""

SINGLE_QUBITS = 6
"""Up to so many qubits, sums over probabilities are in the precision of these; in float32 longer ones would drift."""

CHECKED_QUBITS = 12
"""Up to so many qubits a new program is held against PennyLane."""

CHECKED_BYTES = 2**26
"""From here on the free memory is asked for first, which takes longer than a small circuit."""


# What is measured


class Column(NamedTuple):
    """A number that is linear in probabilities: of a word of Z, or of some qubits' basis states."""

    output: int
    wires: tuple[int, ...]
    values: ndarray | float
    """`(2**k,)`, for each basis state of these wires; or the factor of the product of their signs."""


class Setting(NamedTuple):
    """What is measured at once: gates that turn the state, and what is read from the probabilities then."""

    gates: list[Fixed]
    letters: dict[int, str]
    columns: list[Column]


def _settings(measurements: Sequence[MeasurementProcess], wires: Sequence[Any]) -> tuple[list[Setting], list[int]]:
    """Settings for all measurements, as few as a greedy choice finds; and how many outputs each measurement has."""
    settings: list[Setting] = []
    sizes: list[int] = []
    index = {wire: i for i, wire in enumerate(wires)}
    if unknown := [wire for measured in measurements for wire in measured.wires if wire not in index]:
        raise Refused(f"the wire {unknown[0]!r} is measured, and the layer has the wires {list(wires)}")

    def setting(letters: dict[int, str]) -> Setting:
        """One that measures these axes, or that can."""
        for known in settings:
            if not known.gates and all(known.letters.get(wire, letter) == letter for wire, letter in letters.items()):
                known.letters.update(letters)
                return known
        settings.append(Setting([], dict(letters), []))
        return settings[-1]

    for measured in measurements:
        output = sum(sizes)
        own = measured.obs
        if isinstance(measured, ProbabilityMP) and own is None:
            at = tuple(index[wire] for wire in measured.wires or wires)
            if len(at) > DENSE_QUBITS:
                raise Refused(f"{len(at)} qubits have {2 ** len(at)} probabilities: measure those of {DENSE_QUBITS} at most")
            columns = [Column(output + i, at, row) for i, row in enumerate(np.eye(2 ** len(at)))]
            setting(dict.fromkeys(at, "Z")).columns.extend(columns)
            sizes.append(len(columns))
        elif isinstance(measured, ExpectationMP) and own is not None and own.pauli_rep is not None:
            for word, factor in own.pauli_rep.items():
                letters = {index[wire]: letter for wire, letter in word.items()}
                setting(letters).columns.append(Column(output, tuple(letters), complex(factor).real))
            sizes.append(1)
        elif isinstance(measured, (ExpectationMP, ProbabilityMP)) and own is not None and own.has_diagonalizing_gates:
            at = tuple(index[wire] for wire in own.wires)
            turns = [
                Fixed(tuple(index[w] for w in gate.wires), np.asarray(qml.matrix(gate))) for gate in own.diagonalizing_gates()
            ]
            rows = [np.real(own.eigvals())] if isinstance(measured, ExpectationMP) else list(np.eye(2 ** len(at)))
            settings.append(Setting(turns, {}, [Column(output + i, at, row) for i, row in enumerate(rows)]))
            sizes.append(len(rows))
        else:
            raise Refused(
                f"{measured} cannot be measured here: take expectation values, probabilities, or the state alone; or keep "
                "PennyLane's TorchLayer for this circuit"
            )
    return settings, sizes


@no_type_check
class Outcomes(NamedTuple):
    """From probabilities `(rows, 2**n)` to all outputs: `left.T @ p @ right`, with p as a matrix, and then mixed."""

    left: Tensor | None  # (2**l, lefts)
    right: Tensor  # (2**(n - l), rights)
    mix: Tensor | None  # (lefts * rights, outputs)

    def read(self, p: Tensor) -> Tensor:
        """All outputs, `(rows, outputs)`."""
        if self.left is None or self.mix is None:
            return p @ self.right
        halves = p.unflatten(-1, (self.left.shape[0], -1)) @ self.right
        return (self.left.mT @ halves).flatten(-2) @ self.mix


def _outcomes(columns: Sequence[Column], n_outputs: int, layout: Sequence[int]) -> Outcomes:
    n = len(layout)
    if n <= DENSE_QUBITS or any(isinstance(column.values, ndarray) for column in columns):
        right = np.zeros((2**n, n_outputs))
        for output, wires, values in columns:
            if isinstance(values, ndarray):
                places = [layout.index(wire) for wire in wires]
                right[:, output] += values[2 ** np.arange(len(places))[::-1] @ bits(n, *places).reshape(len(places), -1)]
            else:
                right[:, output] += values * signs("Z" * len(wires), wires, layout)
        return Outcomes(None, torch.from_numpy(right), None)
    halves = layout[: n // 2], layout[n // 2 :]
    parts = [[tuple(wire for wire in half if wire in column.wires) for column in columns] for half in halves]
    kinds = [sorted(set(part)) for part in parts]
    columns_left, columns_right = (
        torch.from_numpy(np.stack([signs("Z" * len(wires), wires, half) for wires in kind], axis=1))
        for half, kind in zip(halves, kinds, strict=True)
    )
    mix = np.zeros((len(kinds[0]) * len(kinds[1]), n_outputs))
    for column, a, b in zip(columns, *parts, strict=True):
        mix[kinds[0].index(a) * len(kinds[1]) + kinds[1].index(b), column.output] += column.values
    return Outcomes(columns_left, columns_right, torch.from_numpy(mix))


def probabilities(psi: Tensor) -> Tensor:
    """Of all basis states."""
    return torch.view_as_real(psi).square().sum(-1) if psi.is_complex() else psi * psi


def sampled(p: Tensor, shots: int, generator: torch.Generator | None) -> Tensor:
    """How often each basis state is found in `shots` measurements, as a share of them.

    Args:
        p: probabilities `(*batch, 2**n)`, in float64: added up in float32, the last ones of many would never be seen.
        shots: how many measurements; `torch.multinomial` would end at 2**24.
        generator: of the outcomes; torch's own by default.

    Raises:
        ValueError: probabilities of states that cannot be measured.

    Memory beyond that of p, in numbers of 8 bytes: `batch * (2 * 2**n + 2 * shots)`.
    """
    below = p.detach().cumsum(-1)
    total = below[..., -1:]
    if not (measurable := total.isfinite() & (total > 0)).all():
        place = (~measurable).nonzero()[0, :-1].tolist()
        raise ValueError(f"the state psi{place or ''} is zero, NaN or infinite and cannot be measured: normalise it")
    if p.shape[-1] == 2:  # a coin
        zeros = torch.binomial(torch.full_like(total, shots), below[..., :1] / total, generator)
        return torch.cat([zeros, shots - zeros], dim=-1) / shots
    drawn = torch.rand(*p.shape[:-1], shots, dtype=torch.float64, device=p.device, generator=generator)
    found = torch.searchsorted(below[..., :-1].contiguous(), drawn.mul_(total), right=True)
    return torch.zeros_like(below).scatter_add_(-1, found, torch.ones_like(drawn)) / shots


# The program


class Program:
    """A traced circuit, compiled.

    Attributes:
        traced: its gates, and where their angles come from.
        shapes: of its weights, by name.
        n_outputs: how many numbers a row of the input gives; 0 where it gives states.
        sizes: how many each measurement gives.
        has_functions: whether an angle is no polynomial of inputs and weights, or a matrix or a state comes from them.
    """

    def __init__(self, traced: Traced, shapes: Mapping[str, tuple[int, ...]]):
        self.traced, self.shapes = traced, shapes
        self.has_functions = any(pool.others is not None for pool in (traced.shared, traced.data))
        self.of_states = any(type(measured) is StateMP for measured in traced.measurements)
        if self.of_states and len(traced.measurements) > 1:
            raise Refused("the state is everything that can be known of a circuit: measure it alone")
        self.settings, sizes = ([], []) if self.of_states else _settings(traced.measurements, traced.wires)
        self.n_outputs, self.sizes = sum(sizes), sizes
        self.before = [[*setting.gates, *_to_z(setting.letters)] for setting in self.settings]

    def planned(self, gates: Sequence[Gate], n_angles: tuple[int, int]) -> Plan:
        """Gates, and then those that the only setting needs."""
        if noise := next((gate for gate in gates if isinstance(gate, Noise)), None):
            raise Refused(
                f"{noise.gate.name} is noise, which leaves no pure state: take a noisy device, such as "
                "simulator=qml.device('default.mixed', wires=…)"
            )
        only = self.before[0] if len(self.before) == 1 else []
        return Plan([*gates, *only], self.traced.n_qubits, n_angles)

    @cached_property
    def plan(self) -> Plan:
        """The gates as steps."""
        return self.planned(self.traced.gates, (_n_angles(self.traced.shared), _n_angles(self.traced.data)))

    @cached_property
    def separate(self) -> "Separate":
        """The circuit as a function of an angle for each of its rotations."""
        return Separate(self)

    def readout(self, plan: Plan, dtype: torch.dtype, device: torch.device) -> "Readout":
        """What is measured of the plan's states."""
        n, layout = self.traced.n_qubits, plan.layout
        several = len(self.before) > 1
        turns = [Plan(gates, n, (0, 0), layout, plan.is_complex) if several and gates else None for gates in self.before]
        outcomes = [
            _outcomes(setting.columns, self.n_outputs, turn.layout if turn else layout)
            for setting, turn in zip(self.settings, turns, strict=True)
        ]
        sums = dtype if n <= SINGLE_QUBITS else torch.float64
        tensors = tree_map_only(Tensor, lambda tensor: tensor.to(device, sums), outcomes)
        # Of each turned state and its probabilities; a single one is the plan's.
        kept = sum(turn.kept if turn else 2 + plan.is_complex for turn in turns) if several else 0
        return Readout([turn.tensors(dtype, device) if turn else None for turn in turns], tensors, dtype, kept)


@no_type_check
class Readout(NamedTuple):
    """From final states to all outputs: for each setting how these are turned, and what is read from the probabilities."""

    turns: Sequence[Tensors | None]
    outcomes: Sequence[Outcomes]
    dtype: torch.dtype
    kept: int

    def probabilities(self, psi: Tensor) -> list[Tensor]:
        """Of the basis states, in each setting."""
        return [probabilities(psi if turn is None else turn.onward(psi, CircuitAngles.none(psi))) for turn in self.turns]

    def exactly(self, psi: Tensor) -> Tensor:
        """All outputs."""
        return self.read(self.probabilities(psi))

    def means(self, psi: Tensor, shots: int, generator: torch.Generator) -> Tensor:
        """The means of so many measurements in each setting."""
        wide = psi.to(torch.complex128 if psi.is_complex() else torch.float64)
        return self.read([sampled(p, shots, generator) for p in self.probabilities(wide)])

    def read(self, p: Sequence[Tensor]) -> Tensor:
        """The outputs of probabilities in each setting."""
        sums = [
            of.read(each if each.dtype == of.right.dtype else each.to(of.right.dtype))
            for of, each in zip(self.outcomes, p, strict=True)
        ]
        found = reduce(torch.add, sums)
        return found if found.dtype == self.dtype else found.to(self.dtype)


@no_type_check
class Pools(NamedTuple):
    """Where angles come from, in a precision and on a device."""

    traced: Traced
    shared: tuple[Tensor, ...]
    data: tuple[Tensor, ...]
    moved: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    """Of matrices and states that are numbers of one argument as they are, which of its numbers; of weights, and of inputs."""
    is_plain: bool
    """Whether all angles are inputs and weights as they are, of one tensor of weights."""
    from_weights: bool
    from_data: bool
    """Whether an angle is no polynomial of weights, or of inputs and weights, or a matrix or a state comes from them."""

    def angles(self, x: Tensor, weights: Sequence[Tensor]) -> CircuitAngles:
        """What the gates take, `(rows, …)` where it depends on the data."""
        if self.is_plain:
            return CircuitAngles(weights[0].reshape(-1), x)
        flat = [weights[i].reshape(-1) for i in self.traced.flat]
        variables = x.new_zeros(0) if not flat else flat[0] if len(flat) == 1 else torch.cat(flat)
        shared, shared_arrays = _drawn(self.shared, self.traced.shared, variables, variables, lambda graph: graph(x, *weights))
        pairs = zip(self.traced.shared.moved, self.moved[0], strict=True)
        shared_arrays = [*(weights[argument - 1].reshape(-1)[places] for (argument, _), places in pairs), *shared_arrays]
        if not self.data and not self.from_data and not self.moved[1]:
            return CircuitAngles(shared, x, shared_arrays)
        everything = torch.cat([x, variables.expand(*x.shape[:-1], -1)], dim=-1)
        dims = (0, *[None] * len(weights))
        data, data_arrays = _drawn(
            self.data, self.traced.data, x, everything, lambda graph: torch.vmap(graph, dims)(x, *weights)
        )
        return CircuitAngles(shared, data, shared_arrays, [*(x[:, places] for places in self.moved[1]), *data_arrays])


@no_type_check
class Ready(NamedTuple):
    """A program in a precision, on a device: a function of inputs `(rows, n_inputs)` and the list of weights."""

    program: Program
    pools: Pools
    plan: Tensors
    readout: Readout
    kept: int
    """How many numbers are kept for the backward pass, for each amplitude of each row."""

    def states(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Final states, `(rows, 2**n)` or `(1, 2**n)`, as the plan leaves them.

        Raises:
            MemoryError: before the allocation, if the states that the backward pass keeps cannot fit.
        """
        angles = self.pools.angles(x, weights)
        if not torch.compiler.is_compiling():  # which allocates nothing yet
            rows = x.shape[0] * max(_mapped(angles.shared), _mapped(angles.data))
            _require_memory(self.program.traced.n_qubits, rows, self.kept * x.element_size(), x.device, self.program.plan.own)
        return self.plan.states(angles)

    def outputs(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Exactly what is measured: `(rows, n_outputs)`, or the states, `(rows, 2**n)`, qubit 0 leftmost."""
        psi = self.states(x, weights)
        found = _natural(psi, self.program.plan.layout) if self.program.of_states else self.readout.exactly(psi)
        return found if found.shape[0] == x.shape[0] else found.expand(x.shape[0], -1)


def _natural(psi: Tensor, layout: Sequence[int]) -> Tensor:
    """States whose qubits lie in their order, qubit 0 leftmost."""
    if layout == sorted(layout):
        return psi
    axes = [1 + layout.index(wire) for wire in range(len(layout))]
    return psi.unflatten(-1, [2] * len(layout)).permute(0, *axes).flatten(1)


# Gate by gate, for those who do not see inside


class Separate:
    """A program whose rotations have an angle each, as a shift rule needs them, or a device."""

    def __init__(self, program: Program):
        gates = program.traced.gates
        given = next((gate for gate in gates if isinstance(gate, Given)), None)
        if given is not None or program.of_states:
            what = "returns states" if given is None else "is given matrices or states that depend on inputs or weights"
            raise Refused(
                f"the shift rule and devices need expectation values that depend on rotation angles alone, and this circuit "
                f"{what}: take simulator='statevector' with diff_method='backprop'"
            )
        numbers = {wire: i for i, wire in enumerate(program.traced.wires)}
        self.measurements = [measured.map_wires(numbers) for measured in program.traced.measurements]
        rotations = [gate for gate in gates if isinstance(gate, Rotation)]
        self.has_words = any(len(gate.wires) > 1 for gate in rotations)
        self.of_data = [gate.angle for gate in rotations if gate.data]
        self.of_weights = [gate.angle for gate in rotations if not gate.data]
        places = {True: iter(range(len(self.of_data))), False: iter(range(len(self.of_weights)))}
        self.gates: list[Gate] = []
        for gate in gates:
            if isinstance(gate, Rotation):
                gate = gate._replace(angle=next(places[gate.data]))
            elif isinstance(gate, (Fixed, Noise)) and gate.gate is not None:
                gate = gate._replace(gate=gate.gate.map_wires(numbers))
            self.gates.append(gate)
        self.program = program

    def names(self, n_inputs: int) -> list[str]:
        """Where each angle comes from, those of the data first."""
        shapes = [("x", (n_inputs,)), *self.program.shapes.items()]
        numbers = {name: [f"{name}[{', '.join(map(str, i))}]" for i in np.ndindex(*shape)] for name, shape in shapes}
        flat = [name for i in self.program.traced.flat for name in numbers[shapes[1 + i][0]]]
        return [
            (known[i] if i < len(known) else f"{i} of {kind}")
            for known, places, kind in ((numbers["x"], self.of_data, "the data"), (flat, self.of_weights, "the weights"))
            for i in places
        ]

    @cached_property
    def plan(self) -> Plan:
        """The gates as steps."""
        return self.program.planned(self.gates, (len(self.of_weights), len(self.of_data)))

    def angles(self, known: CircuitAngles) -> tuple[Tensor, Tensor]:
        """Of each rotation that depends on the data `(rows, …)`, and of each that does not."""
        return known.data[:, self.of_data], known.shared[self.of_weights]

    def apply(self, data: Any, shared: Any) -> None:
        """The gates on a device of PennyLane, whose wires are 0 … n - 1."""
        for gate in self.gates:
            if isinstance(gate, Rotation):
                angle = (data if gate.data else shared)[gate.angle]
                if gate.word in ("X", "Y", "Z"):
                    getattr(qml, "R" + gate.word)(angle, gate.wires[0])
                elif set(gate.word) - {"I"}:
                    qml.PauliRot(angle, gate.word, gate.wires)
            elif isinstance(gate, (Fixed, Noise)) and gate.gate is not None:
                qml.apply(gate.gate)

    def measure(self) -> list[MeasurementProcess]:
        """What is measured on such a device."""
        return [qml.apply(measured) for measured in self.measurements]


def _require_memory(n: int, rows: int, amplitude: int, device: torch.device, own: int = 0) -> None:
    """Refuse states of which each amplitude needs so many bytes, and the program `own` more, if they cannot fit."""
    needed = (rows * amplitude + own) * 2**n
    batch = f" and a batch of {rows}" if rows else ""
    if needed < CHECKED_BYTES:
        return
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"{n} qubits{batch} need about {min(needed, 10**30) / 1e9:.3g} GB and {free / 1e9:.3g} GB are "
            "free: take fewer qubits, fewer layers or a smaller batch"
        )


def _to_z(letters: dict[int, str]) -> list[Fixed]:
    return [Fixed((wire,), TO_Z[letter]) for wire, letter in letters.items() if letter in TO_Z]


class Definition(NamedTuple):
    """A quantum function, and what else makes a program of it; see `tracing.trace`."""

    circuit: Callable[..., Any]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    measure: Measure | None = None
    wires: tuple[Any, ...] | None = None
    input_arg: str | None = None


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """What `make` returns for hashable arguments, made once, of real tensors whoever asks first.

    A tracer, a transform and inference mode hold for one thread, so another one makes what outlives them. Compilers take the
    result as it is; in a mode that has tensors of its own (fake ones) it enters as `torch.tensor` does.
    """

    @lru_cache
    def made(*arguments: Any) -> Any:
        if qml.QueuingManager.recording():  # PennyLane lets one thread record, and another would wait for ever
            with qml.QueuingManager.stop_recording():
                return make(*arguments)
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(make, *arguments).result()

    @wraps(make)
    def known(*arguments: Any) -> Any:
        tensors = made(*arguments)
        if not is_in_torch_dispatch_mode():
            return tensors
        return tree_map_only(Tensor, torch.ops.aten.lift_fresh, tensors)

    # The mark is torch.compiler.assume_constant_result, without its import of two seconds.
    vars(known).update(cache_clear=made.cache_clear, _dynamo_marked_constant=True)
    return known


DEFINITIONS: dict[str, Definition] = {}
"""All that this process knows. Compilers keep texts as constants, and neither functions nor numbers: so each has a name."""


@cache
def key_of(definition: Definition) -> str:
    """The name of a definition in this process, the same for equal ones."""
    key = f"circuit {len(DEFINITIONS)}"
    DEFINITIONS[key] = definition
    return key


@lru_cache(maxsize=256)
def _program(key: str, n_inputs: int) -> Program:
    circuit, shapes, measure, wires, input_arg = DEFINITIONS[key]
    traced = trace(circuit, measure, n_inputs, dict(shapes), wires, input_arg)
    return Program(traced, dict(shapes))


@constant
def program(key: str, n_inputs: int) -> Program:
    """The program of a quantum function for inputs of a width, made once.

    Raises:
        tracing.Refused: a circuit that cannot be traced, or whose trace does not tell everything.
    """
    return _program(key, n_inputs)


@constant
def pools(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> Pools:
    """Where its angles come from, in a precision and on a device."""
    traced = _program(key, n_inputs).traced

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

    shared, data = (tuple(map(to, _as_tensors(pool))) for pool in (traced.shared, traced.data))
    moved_weights, moved_inputs = (
        tuple(torch.from_numpy(places).to(device) for _, places in pool.moved) for pool in (traced.shared, traced.data)
    )
    moved = moved_weights, moved_inputs
    others = [pool.others is not None for pool in (traced.shared, traced.data)]
    is_plain = traced.flat == (0,) and not (shared or data or any(others) or any(moved))
    return Pools(traced, shared, data, moved, is_plain, *others)


@constant
def ready(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> Ready:
    """The program in a precision, on a device.

    Raises:
        tracing.Refused: as `program`.
        MemoryError: before anything is allocated, if not even the program fits.
    """
    # A step that exchanges amplitudes holds two places of each.
    if (wires := DEFINITIONS[key].wires) is not None:  # known before a trace of so many takes its time
        _require_memory(len(wires), 0, 0, torch.device("cpu"), 32)
    made = _program(key, n_inputs)
    n = made.traced.n_qubits
    _require_memory(n, 0, 0, torch.device("cpu"), 32)
    own = pools(key, n_inputs, dtype, device)
    readout = made.readout(made.plan, dtype, device)
    found = Ready(made, own, made.plan.tensors(dtype, device), readout, made.plan.kept + readout.kept)
    if n <= CHECKED_QUBITS and device.type != "meta" and "checked" not in vars(made):
        _check(found, DEFINITIONS[key], n_inputs, dtype)
        vars(made)["checked"] = True
    return found


@constant
def ready_separate(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensors, Readout]:
    """Plan and readout of the program as a function of an angle for each rotation."""
    made = _program(key, n_inputs)
    return made.separate.plan.tensors(dtype, device), made.readout(made.separate.plan, dtype, device)


def _check(made: Ready, definition: Definition, n_inputs: int, dtype: torch.dtype) -> None:
    """Hold the program against PennyLane, at values that the trace has not seen."""
    circuit, shapes, measure, _, input_arg = definition
    generator = torch.Generator().manual_seed(0)
    sizes = ((n_inputs,), *dict(shapes).values())
    x, *weights = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in sizes)

    def run(x: Tensor) -> Any:
        named = dict(zip(dict(shapes), weights, strict=True))
        returned = circuit(x, **named) if input_arg is None else circuit(**{input_arg: x}, **named)
        return returned if measure is None else measure()

    node = qml.QNode(
        run, qml.device("default.qubit", wires=made.program.traced.wires), interface="torch", diff_method="backprop"
    )
    try:
        try:
            expected = node(x)
        except IndexError:  # written for batches
            expected = node(x.unsqueeze(0))
    except ValueError as error:
        if "norm" in str(error):  # these numbers are no state
            return
        raise
    listed = expected if isinstance(expected, (list, tuple)) else [expected]
    values = torch.cat([torch.as_tensor(value).flatten() for value in listed])
    device = made.readout.outcomes[0].right.device if made.readout.outcomes else torch.device("cpu")
    row, given = x.unsqueeze(0).to(device, dtype), [weight.to(device, dtype) for weight in weights]
    angles = made.pools.angles(row, given)
    matrices = [
        array for array in (*angles.shared_arrays, *angles.data_arrays) if array.shape[-1] == array.shape[-2:-1].numel()
    ]
    if any(
        not torch.allclose(m @ m.mH, torch.eye(m.shape[-1]).to(m), atol=1e-3) for m in matrices if m.ndim > 1 and len(m) > 1
    ):
        return  # these numbers are no unitary matrices
    found = made.outputs(row, given)[0]
    off = (found.detach().cpu() - values.detach()).abs().max()
    if not off < 1e-4:
        raise Refused(
            f"at other values PennyLane finds this circuit's results {off:.3g} away from its trace: something in it depends "
            "on values other than through gates (an if, a number taken out of a tensor, a random choice). Keep PennyLane's "
            "TorchLayer for it"
        )


def _n_angles(pool: Pool) -> int:
    return pool.n_variables + pool.linear.shape[1] + pool.n_other_angles


def _as_tensors(pool: Pool) -> tuple[Tensor, ...]:
    """The arrays of a pool's polynomials; nothing, where it has none."""
    if not pool.linear.shape[1]:
        return ()
    return tuple(map(torch.from_numpy, (pool.constant, pool.linear, pool.left, pool.right, pool.products)))


def _drawn(
    arrays: tuple[Tensor, ...], pool: Pool, own: Tensor, variables: Tensor, run: Callable[[Any], Sequence[Tensor]]
) -> tuple[Tensor, Sequence[Tensor]]:
    """All angles of a pool, and the matrices and states that belong to it."""
    parts, given = [own], ()
    if arrays:
        constant, linear, left, right, products = arrays
        found = variables @ linear + constant
        if len(left):
            found = found + (variables.index_select(-1, left) * variables.index_select(-1, right)) @ products
        parts.append(found)
    if pool.others is not None:
        made = list(run(pool.others.to(own.device)))
        if pool.n_other_angles:
            parts.append(torch.stack(made[: pool.n_other_angles], dim=-1).to(own.dtype))
        given = tuple(made[pool.n_other_angles :])  # type: ignore[assignment]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), given


def _mapped(tensor: Tensor) -> int:
    """Over how many models `torch.vmap` maps a tensor: its own size does not tell."""
    inner = tensor
    while _functorch.is_functorch_wrapped_tensor(inner):
        inner = _functorch.get_unwrapped(inner)
    return 1 if inner is tensor else inner.numel() // max(tensor.numel(), 1)
