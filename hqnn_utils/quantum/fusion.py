"""From gates to steps: as few operations on states as there can be, and not gate by gate.

A small torch operation takes as long whether it moves four numbers or four thousand. So

1. gates on a few wires, with their few angles, are one table (`quantum.matrices`): features times table give their matrix;
2. what depends on weights alone is one matrix for the whole batch, and all such matrices of one shape are one product;
3. angles of the data turn phases only: a rotation about any axis is one about Z between fixed gates, which the matrices
   around it take in;
4. CNOTs and their like exchange amplitudes: however many there are, they are one permutation;
5. where all of these are real, so is the state.

Few qubits are turned by whole matrices, many by blocks of up to `BLOCK_WIRES`. Derived in book/foundations/simulation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from math import ceil, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from hqnn_utils.quantum.angles import converted
from hqnn_utils.quantum.matrices import TO_Z, exchange, features, is_complex, numbers_of, signs, table, zero
from hqnn_utils.quantum.steps import Apply, Begun, Block, Exchange, Features, Move, Parts, Phases, Prepared, Steps
from hqnn_utils.quantum.tracing import Fixed, Gate, Given, Rotation, Start

WHOLE_WIRES = 6
"""Up to so many qubits a circuit is turned by whole matrices; measured in benchmarks/."""

BLOCK_WIRES = 5
"""Beyond, so many qubits are turned by one matrix; measured in benchmarks/."""

LEAST_WIRES = 4
"""And at least so many: the gradient of a smaller matrix is a sum that float32 products get wrong in the fifth place."""

TABLE_ANGLES = 8
"""Up to so many angles are in one table; where there are more …"""

PART_ANGLES = 6
"""… there are so many in each of several tables, which are far smaller …"""

TABLE_ENTRIES = 2**16
"""… as long as one has no more entries than this; measured in benchmarks/."""


# Gates, and in which order they may act


def _is_shared(gate: Gate) -> bool:
    """Whether a gate is the same for the whole batch."""
    return not isinstance(gate, (Rotation, Given)) or not gate.data


def _front(gates: Iterable[Gate], wanted: Callable[[Gate], bool]) -> tuple[list[Gate], list[Gate]]:
    """The wanted gates before which no other gate acts on their wires, and all others, each in their order."""
    taken, left = [], []
    blocked: set[int] = set()
    for gate in gates:
        if not blocked.intersection(gate.wires) and wanted(gate):
            taken.append(gate)
        else:
            left.append(gate)
            blocked.update(gate.wires)
    return taken, left


def _alike(gates: Iterable[Gate]) -> tuple[list[Rotation], list[Gate]]:
    """Of the data's rotations at the front those that share their axes on every wire, and all other gates."""
    axes: dict[int, str] = {}

    def fits(gate: Gate) -> bool:
        if not isinstance(gate, Rotation) or not gate.data:
            return False
        letters = [(wire, letter) for wire, letter in zip(gate.wires, gate.word, strict=True) if letter != "I"]
        if any(axes.get(wire, letter) != letter for wire, letter in letters):
            return False
        axes.update(letters)
        return True

    return _front(gates, fits)  # type: ignore[return-value]


def _about_z(rotations: list[Rotation]) -> tuple[list[Gate], list[Rotation], list[Gate]]:
    """Rotations that share their axes as rotations about Z, and the fixed gates before and after."""
    axes = {wire: letter for gate in rotations for wire, letter in zip(gate.wires, gate.word, strict=True) if letter in "XY"}
    before: list[Gate] = [Fixed((wire,), TO_Z[letter]) for wire, letter in axes.items()]
    after: list[Gate] = [Fixed((wire,), TO_Z[letter].conj().T) for wire, letter in axes.items()]
    return before, [gate._replace(word=gate.word.translate(str.maketrans("XY", "ZZ"))) for gate in rotations], after


def _connected(gates: Sequence[Gate]) -> list[set[int]]:
    """The sets of wires that gates connect."""
    sets: list[set[int]] = []
    for gate in gates:
        touched = [part for part in sets if part.intersection(gate.wires)]
        sets = [part for part in sets if part not in touched] + [set(gate.wires).union(*touched)]
    return sets


def _clusters(gates: Iterable[Gate], width: int) -> list[tuple[set[int], list[Gate]]]:
    """Gates in groups of up to `width` wires, in an order in which they may act one group after the other."""
    clusters: list[tuple[set[int], list[Gate]]] = []
    last: dict[int, int] = {}
    for gate in gates:
        least = max((last.get(wire, 0) for wire in gate.wires), default=0)
        fitting = (i for i in range(least, len(clusters)) if len(clusters[i][0].union(gate.wires)) <= width)
        place = next(fitting, len(clusters))
        if place == len(clusters):
            clusters.append((set(), []))
        clusters[place][0].update(gate.wires)
        clusters[place][1].append(gate)
        last |= dict.fromkeys(gate.wires, place)
    return clusters


def _is_exchange(gate: Gate) -> bool:
    """Whether a fixed gate only exchanges basis states, up to phases."""
    return isinstance(gate, Fixed) and bool(((np.abs(gate.matrix) > 1e-12).sum(axis=0) == 1).all())


def _is_about_z(gate: Gate) -> bool:
    return isinstance(gate, Rotation) and not set(gate.word) - {"Z", "I"}


# From gates to steps


class Part(NamedTuple):
    """Gates on a few wires, as a table."""

    angles: list[int]
    table: ndarray


def _n_angles(gates: Iterable[Gate]) -> int:
    return sum(isinstance(gate, Rotation) for gate in gates)


def _part(gates: Sequence[Gate], wires: Sequence[int], first: ndarray) -> Part:
    return Part([gate.angle for gate in gates if isinstance(gate, Rotation)], table(gates, wires, first))


def _narrow(gate: Gate, width: int) -> list[Gate]:
    """A rotation about an axis of more wires than a block has is one about Z, between fixed gates."""
    if not isinstance(gate, Rotation) or len(gate.wires) <= width or _is_about_z(gate):
        return [gate]
    before, about_z, after = _about_z([gate])
    return [*before, *about_z, *after]


def _parts(gates: Sequence[Gate], wires: Sequence[int]) -> list[Part]:
    """A block's gates in parts of few angles, about as many in each."""
    number, entries = _n_angles(gates), 4 ** len(wires)
    most = max(m for m in range(1, PART_ANGLES + 1) if m == 1 or 2**m * entries <= TABLE_ENTRIES)
    pieces = ceil(number / most) if number > TABLE_ANGLES else 1
    ends = [number * (piece + 1) // pieces for piece in range(pieces)]
    parts: list[list[Gate]] = [[] for _ in ends]
    seen = place = 0
    for gate in gates:
        seen += isinstance(gate, Rotation)
        place += seen > ends[place]
        parts[place].append(gate)
    return [_part(part, wires, np.eye(2 ** len(wires))) for part in parts]


def _flat(array: ndarray, complex_too: bool) -> Tensor:
    """A table in which real and imaginary parts stand side by side, if there are such."""
    tensor = torch.from_numpy(np.ascontiguousarray(array if complex_too else array.real))
    return torch.view_as_real(tensor).flatten(-2) if complex_too else tensor


def _prepared(of: Features | None, array: ndarray) -> Prepared:
    return Prepared(of, _flat(array, is_complex(array)), is_complex(array))


def _all_alike(tables: Sequence[ndarray] | ndarray) -> bool:
    return all(np.array_equal(one, tables[0]) for one in tables)


def _sines(angles: list[int], frequencies: ndarray, phases: ndarray, n_angles: int) -> Features:
    """Features of some of so many angles."""
    places = None if angles == list(range(n_angles)) else torch.tensor(angles)
    return Features(places, torch.from_numpy(frequencies), torch.from_numpy(phases))


def _features(angles: list[list[int]], n_angles: int) -> Features | None:
    """Features of like tables, if these have angles."""
    if not angles[0]:
        return None
    frequencies, phases, _ = features(len(angles[0]))
    return _sines([angle for some in angles for angle in some], frequencies, phases, n_angles)


def _phases(rotations: Sequence[Gate], layout: list[int], is_whole: bool, n_angles: tuple[int, int]) -> Iterator[Phases]:
    """Phases of few qubits at once; with many, cosines and sines of half of the qubits are far fewer than of all."""
    middle = 0 if is_whole else len(layout) // 2
    halves = [layout[:middle], layout[middle:]] if middle else []
    inside = [[gate for gate in rotations if set(gate.wires) <= set(half)] for half in halves]
    rest = [gate for gate in rotations if not any(gate in part for part in inside)]
    for some, wires, half in (*zip(inside, halves, (0, 1), strict=False), (rest, layout, None)):
        chosen = [gate for gate in some if isinstance(gate, Rotation)]
        if chosen:
            of_data = chosen[0].data
            turns = np.array([-signs(gate.word, gate.wires, wires) / 2 for gate in chosen]).repeat(2, axis=1)
            quarter = np.tile([pi / 2, 0.0], 2 ** len(wires))
            yield Phases(_sines([gate.angle for gate in chosen], turns, quarter, n_angles[of_data]), of_data, half)


def _exchanges(gates: Iterable[Gate], layout: list[int]) -> Iterator[Exchange]:
    fixed = [gate for gate in gates if isinstance(gate, Fixed)]
    if fixed:
        order, phases = exchange(fixed, layout)
        factors = torch.from_numpy(phases if is_complex(phases) else phases.real.copy())
        yield _reordering(order, None if np.abs(phases - 1).max() < 1e-14 else factors)


def _reordering(order: ndarray, factors: Tensor | None) -> Exchange:
    return Exchange(torch.from_numpy(order), torch.from_numpy(np.argsort(order)), factors)


def _grouped(blocks: list[list[Part]], steps: list[Any], n_angles: tuple[int, int]) -> tuple[list[list[Parts]], list[Any]]:
    """Groups of like blocks, and steps that name group and member of their block instead of the block."""
    kinds: dict[tuple[int, ...], list[int]] = {}
    for i, parts in enumerate(blocks):
        kinds.setdefault((parts[0].table.shape[-1], *(len(part.angles) for part in parts)), []).append(i)
    places = {i: (g, m) for g, members in enumerate(kinds.values()) for m, i in enumerate(members)}
    named = [
        step._replace(group=places[step.group][0], member=places[step.group][1]) if isinstance(step, Block) else step
        for step in steps
    ]
    return [_group([blocks[i] for i in members], n_angles) for members in kinds.values()], named


def _group(blocks: list[list[Part]], n_angles: tuple[int, int]) -> list[Parts]:
    """Blocks of one shape: neighbouring parts of as many angles are one product."""
    found = []
    for m, positions in groupby(range(len(blocks[0])), key=lambda part: len(blocks[0][part].angles)):
        some = list(positions)
        each = [block[part] for part in some for block in blocks]
        tables = np.array([part.table for part in each])
        by_part = tables.reshape(len(some), len(blocks), *tables.shape[1:])
        if m and _all_alike(tables):
            tables = tables[:1]
        elif m and _all_alike(np.moveaxis(by_part, 1, 0)):
            tables = by_part[:, 0]
        flat = _flat(tables.reshape(len(tables), 2**m, -1), is_complex(tables))
        flat = flat[0] if m and len(flat) == 1 else flat
        of = _features([part.angles for part in each], n_angles[False])
        several = [number for number in (len(some), len(blocks)) if number > 1]
        shape = (*several, *tables.shape[-1:] * 2, *[2] * is_complex(tables))
        found.append(Parts(len(some), len(blocks), shape, is_complex(tables), of, flat))
    return found


class Plan:
    """Gates as steps, from |0…0⟩ or from states whose qubits lie in the order `layout`.

    Attributes:
        layout: how the qubits of the result lie.
        kept: how many numbers are kept for the backward pass, for each amplitude of each row.
        own: how many bytes the plan itself takes, for each amplitude: two places for every exchange.
        is_complex: whether the result is.
    """

    def __init__(
        self,
        gates: Iterable[Gate],
        n_qubits: int,
        n_angles: tuple[int, int],
        layout: Sequence[int] | None = None,
        is_complex: bool = False,
    ):
        fusion = _Fusion(n_qubits, n_angles, list(range(n_qubits) if layout is None else layout))
        rest = [part for gate in gates for part in _narrow(gate, fusion.width)]
        is_complex |= any(gate.is_complex for gate in rest if isinstance(gate, Given))
        if layout is None:
            rest = fusion.begin(rest)
        while rest:
            rest = fusion.fuse(rest)
        self.n_qubits, self.layout, self.start = n_qubits, fusion.layout, fusion.start
        self.groups, self.steps = _grouped(fusion.blocks, fusion.steps, n_angles)
        is_complex |= any(part.is_complex for group in self.groups for part in group)
        is_complex |= any(first.is_complex for first in self.start if isinstance(first, Prepared))
        self.is_complex = is_complex or any(map(_makes_complex, self.steps))
        self.kept = 2 + self.is_complex + sum(step.kept(1 + self.is_complex) for step in self.steps)
        self.own = 16 * sum(isinstance(step, Exchange) for step in self.steps)

    def tensors(self, dtype: torch.dtype, device: torch.device) -> Steps:
        """Start, groups and steps in a precision, on a device."""
        return Steps(*converted((self.start, self.groups, self.steps), dtype, device))


def _makes_complex(step: Any) -> bool:
    """Whether a step of no block makes complex states of real ones."""
    return isinstance(step, Phases) or (isinstance(step, Exchange) and step.phases is not None and step.phases.is_complex())


class _Fusion:
    """The steps so far, and how the qubits lie after them."""

    def __init__(self, n_qubits: int, n_angles: tuple[int, int], layout: list[int]):
        self.n_qubits, self.n_angles, self.layout = n_qubits, n_angles, layout
        self.is_whole = n_qubits <= WHOLE_WIRES
        self.width = n_qubits if self.is_whole else ceil(n_qubits / ceil(n_qubits / BLOCK_WIRES))
        self.start: list[Prepared | Begun] = []
        self.steps: list[Any] = []
        self.blocks: list[list[Part]] = []
        self.encoding: ndarray | None = None
        """The table of the only state that is prepared, if it is square, as long as no step has taken it in."""

    def begin(self, gates: list[Gate]) -> list[Gate]:
        """The states in which the qubits begin, as far as the data's angles and fixed gates make them."""
        given, rest = _front(gates, lambda gate: isinstance(gate, Start))
        if given:
            first = [wire for gate in given for wire in gate.wires]
            self.layout = first + [wire for wire in self.layout if wire not in first]
            self.start = [Begun(gate.output, gate.data) for gate in given if isinstance(gate, Given)]
            self.start += [_prepared(None, zero(1))] * (self.n_qubits - len(first))
            return rest

        def of_data(gate: Gate) -> bool:
            alone = isinstance(gate, Fixed) or (isinstance(gate, Rotation) and gate.data)
            return alone and (self.is_whole or len(gate.wires) == 1)

        begun, rest = _front(gates, of_data)
        groups = [self.layout[i : i + self.width] for i in range(0, self.n_qubits, self.width)]
        inside = [[gate for gate in begun if set(gate.wires) <= set(group)] for group in groups]
        if max(map(_n_angles, inside)) > TABLE_ANGLES:
            self.start = [_prepared(None, zero(self.n_qubits))]
            return gates
        for group, some in zip(groups, inside, strict=True):
            part = _part(some, group, zero(len(group)))
            self.start.append(_prepared(_features([part.angles], self.n_angles[True]), part.table[:, 0]))
            if len(groups) == 1 and len(part.table) == 2**self.n_qubits:
                self.encoding = part.table[:, 0]
        return rest

    def fuse(self, gates: list[Gate]) -> list[Gate]:
        """Steps of what is the same for the whole batch, and then of the first of the data's gates; all others."""
        shared, rest = _front(gates, _is_shared)
        rotations, rest = _alike(rest)
        before, about_z, after = _about_z(rotations)
        self._fuse_shared([*shared, *before])
        if about_z:
            self.steps += _phases(about_z, self.layout, self.is_whole, self.n_angles)
            return [*after, *rest]
        given, rest = _front(rest, lambda gate: isinstance(gate, Given))
        self._apply(given)
        return rest

    def _fuse_shared(self, gates: list[Gate]) -> None:
        pending: list[Gate] = []
        while gates:
            some, gates = _front(gates, lambda gate: len(gate.wires) == 1 and not isinstance(gate, Given))
            several, gates = _front(gates, lambda gate: len(gate.wires) > 1 and not isinstance(gate, Given))
            given, gates = _front(gates, lambda gate: isinstance(gate, Given))
            pending = self._fuse_several([*pending, *some], several)
            if given:
                self._multiply(pending)
                self._apply(given)
                pending = []
        self._multiply(pending)

    def _fuse_several(self, pending: list[Gate], gates: list[Gate]) -> list[Gate]:
        """Gates of several wires, where blocks are too narrow for them, as exchanges and phases; what is left for blocks."""
        wide = set().union(*(part for part in _connected(gates) if len(part) > self.width))
        while gates:
            narrow, gates = _front(gates, lambda gate: not wide.intersection(gate.wires))
            exchanges, gates = _front(gates, _is_exchange)
            about_z, gates = _front(gates, _is_about_z)
            pending = [*pending, *narrow]
            if exchanges or about_z:
                self._multiply(pending)
                pending = []
                self.steps += _exchanges(exchanges, self.layout)
                self.steps += _phases(about_z, self.layout, self.is_whole, self.n_angles)
            elif gates:
                pending.append(gates.pop(0))
        return pending

    def _multiply(self, gates: list[Gate]) -> None:
        """Blocks of gates."""
        for wires, cluster in _clusters(gates, self.width):
            idle = [wire for wire in self.layout if wire not in wires]
            missing = (self.n_qubits if self.is_whole else LEAST_WIRES) - len(wires)
            wires.update(idle[: max(missing, 0)])
            parts = _parts(cluster, [wire for wire in self.layout if wire in wires])
            size = 2 ** len(wires)
            if _n_angles(cluster) or np.abs(parts[0].table[0] - np.eye(size)).max() > 1e-14:
                self._take_in_encoding(parts)
                self.steps.append(Block(self._move(wires), size, len(wires) == self.n_qubits, len(self.blocks), 0))
                self.blocks.append(parts)

    def _take_in_encoding(self, parts: list[Part]) -> None:
        """The first matrix takes in what the data's features mean, unless several have one table."""
        is_free = len(parts) == 1 or not _all_alike([part.table for part in parts])
        if self.encoding is not None and not self.steps and is_free:
            parts[0] = Part(parts[0].angles, np.einsum("ij,fjk->fik", self.encoding, parts[0].table))
            self.start = [first._replace(table=None) for first in self.start if isinstance(first, Prepared)]

    def _move(self, wires: Iterable[int]) -> Move:
        """How these qubits, in the order in which they lie, come to the end; the layout follows."""
        runs = [(inside, len(list(run))) for inside, run in groupby(wire in wires for wire in self.layout)]
        order = sorted(range(len(runs)), key=lambda i: runs[i][0])
        self.layout.sort(key=lambda wire: wire in wires)
        if order == list(range(len(runs))):
            return None
        return [2**length for _, length in runs], order, sum(not inside for inside, _ in runs)

    def _apply(self, gates: Iterable[Gate]) -> None:
        """Matrices that are given, of qubits in their order."""
        for gate in gates:
            assert isinstance(gate, Given)
            if [wire for wire in self.layout if wire in gate.wires] != list(gate.wires):
                order = [*(wire for wire in self.layout if wire not in gate.wires), *gate.wires]
                self.steps.append(_reordering(np.argsort(numbers_of(order, self.layout)), None))
                self.layout = order
            self.steps.append(Apply(self._move(gate.wires), 2 ** len(gate.wires), gate.output, gate.data))
