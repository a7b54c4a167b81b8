"""Traced circuits on batches of state vectors, in plain torch: fused, exact, and differentiable to any order.

A small torch operation takes as long whether it moves four numbers or four thousand. So a circuit is computed in as few of
them as there can be, and not gate by gate:

1. Every entry of a product of m rotations is linear in 2**m features: the sines of sums of half of the m angles. So gates on
   a few wires, with their few angles, are one table: features times table give their matrix.
2. What depends on weights alone is one matrix for the whole batch, and all such matrices of one shape are one product.
3. Angles of the data turn phases only: a rotation about any axis is one about Z between fixed gates, which the matrices
   around it take in.
4. CNOTs and their like exchange amplitudes: however many there are, they are one permutation.
5. Where all of these are real, so is the state.

Few qubits are turned by whole matrices, many by blocks of up to `BLOCK_WIRES`. The qubits lie in memory as the last step left
them; what is measured knows it. Derived in book/foundations/simulation.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial, reduce
from itertools import groupby
from math import ceil, pi
from typing import Any, NamedTuple, no_type_check

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from hqnn_utils.quantum.tracing import Fixed, Gate, Given, Rotation, Start

WHOLE_WIRES = 6
"""Up to so many qubits a circuit is turned by whole matrices; measured in benchmarks/."""

BLOCK_WIRES = 5
"""Beyond, so many qubits are turned by one matrix; measured in benchmarks/."""

LEAST_WIRES = 4
"""And at least so many: the gradient of a smaller matrix is a sum that float32 products get wrong in the fifth place."""

TABLE_ANGLES = 8
"""Up to so many angles are in one table …"""

TABLE_ENTRIES = 2**16
"""… as long as it has no more entries than this; measured in benchmarks/."""

PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}

TO_Z = {"X": np.array([[1, 1], [1, -1]]) / 2**0.5, "Y": np.array([[1, -1j], [1, 1j]]) / 2**0.5}
"""The gate between which and whose inverse a rotation about Z is one about this axis."""


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


def _outside(wires: set[int], gate: Gate) -> bool:
    return not wires.intersection(gate.wires)


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


# Matrices and tables


def bits(n: int, *places: int) -> ndarray:
    """Bit of a qubit, or of each of several, or of all, in each basis state of n qubits, the first leftmost: `(…, 2**n)`."""
    shifts = n - 1 - np.array(places if places else range(n), dtype=int)
    found = (np.arange(2**n) >> shifts[:, None]) & 1
    return found[0] if len(places) == 1 else found


def _embedded(matrix: ndarray, wires: Sequence[int], all_wires: Sequence[int]) -> ndarray:
    """A matrix on some wires as one on all, in their order."""
    n, k = len(all_wires), len(wires)
    order = [*wires, *(wire for wire in all_wires if wire not in wires)]
    axes = [order.index(wire) for wire in all_wires]
    whole = np.kron(matrix, np.eye(2 ** (n - k))).reshape([2] * 2 * n)
    return whole.transpose([*axes, *(n + axis for axis in axes)]).reshape(2**n, 2**n)


def _word_matrix(word: str) -> ndarray:
    return reduce(np.kron, (PAULI[letter] for letter in word))


@cache
def _features(m: int) -> tuple[ndarray, ndarray, ndarray]:
    """Frequencies and phases of the features of m angles; and the features where every angle is 0 or π, inverted.

    The features are sines of all sums ±a₁/2 … ±aₘ/2 and of the same, a quarter turn on. There are as many such places as
    features, and there the features are independent: so a function that is linear in them is known from its values there.
    """
    signs = 1.0 - 2 * bits(m)[:, : 2 ** max(m - 1, 0)]  # of a sum; the first angle's is always +
    frequencies = np.concatenate([signs, signs], axis=1)[:, : 2**m] / 2
    phases = np.repeat([pi / 2, 0.0], signs.shape[1])[: 2**m]
    return frequencies, phases, np.linalg.inv(np.sin(pi * bits(m).T @ frequencies + phases))


def _table(gates: Sequence[Gate], wires: Sequence[int], first: ndarray) -> ndarray:
    """What gates make of rows of states `first`, as coefficients `(2**m, rows, 2**n)` of the features of their m angles.

    States are rows, as they lie in memory. Of all basis states these are the matrices that act on them from the right.
    """
    m = sum(isinstance(gate, Rotation) for gate in gates)
    values = np.broadcast_to(first.astype(complex), (2**m, *first.shape)).copy()
    turned = iter(bits(m).astype(bool))
    for gate in gates:
        if isinstance(gate, Rotation):
            there = next(turned)
            values[there] = values[there] @ (-1j * _embedded(_word_matrix(gate.word), gate.wires, wires)).T
        elif isinstance(gate, Fixed):
            values = values @ _embedded(gate.matrix, gate.wires, wires).T
    return np.tensordot(_features(m)[2], values, 1)


def signs(word: str, wires: Sequence[int], layout: Sequence[int]) -> ndarray:
    """The outcome, ±1, of a word of Z and I in each basis state, `(2**n,)`."""
    found = np.ones(2 ** len(layout))
    for wire, letter in zip(wires, word, strict=True):
        if letter == "Z":
            found *= 1.0 - 2 * bits(len(layout), layout.index(wire))
    return found


# What is done to states, one step after the other. Tensors are in double precision here; `Plan.tensors` makes those of others.
# Compilers take these objects as constants, and cannot guard what a type checker at run time wraps around their methods.

Move = tuple[list[int], list[int], int] | None
"""How qubits come to the end: sizes of their runs as they lie, the new order of these, and how many runs stay before them."""


@no_type_check
class CircuitAngles(NamedTuple):
    """Angles of a circuit, and the matrices and states that are given to it: `(rows, …)` what depends on the data."""

    shared: Tensor  # (angles,)
    data: Tensor  # (rows, angles)
    shared_arrays: Sequence[Tensor] = ()
    data_arrays: Sequence[Tensor] = ()

    @staticmethod
    def none(psi: Tensor) -> "CircuitAngles":
        """For states that fixed gates turn."""
        real = psi.real if psi.is_complex() else psi
        return CircuitAngles(real.new_zeros(0), real.new_zeros(1, 0))


@no_type_check
class Features(NamedTuple):
    """Sines of sums of angles, quarter turns among them: of sines alone, torch takes the derivative in fewer operations."""

    places: Tensor | None  # (count * m,), of all angles; None takes them as they are
    frequencies: Tensor  # (m, features)
    phases: Tensor  # (features,)

    def of(self, angles: Tensor) -> Tensor:
        """`(…, angles)` → `(… * count, features)`."""
        chosen = angles if self.places is None else angles.index_select(-1, self.places)
        if chosen.dim() == 1 or chosen.shape[-1] != self.frequencies.shape[0]:
            chosen = chosen.reshape(-1, self.frequencies.shape[0])
        return torch.addmm(self.phases, chosen, self.frequencies).sin()


def _numbers(found: Tensor, is_complex: bool, shape: Sequence[int] = (-1,)) -> Tensor:
    """What came out of a table, where real and imaginary parts stand side by side, with its last axis in a shape."""
    if is_complex:
        return torch.view_as_complex(found.unflatten(-1, (*shape, 2)))
    return found if len(shape) == 1 else found.unflatten(-1, shape)


def _flat(table: ndarray, is_complex: bool) -> Tensor:
    """A table in which real and imaginary parts stand side by side, if there are such."""
    tensor = torch.from_numpy(np.ascontiguousarray(table if is_complex else table.real))
    return torch.view_as_real(tensor).flatten(-2) if is_complex else tensor


def _is_complex(array: ndarray) -> bool:
    return bool(np.abs(np.imag(array)).max(initial=0) > 1e-14)


def _times(psi: Tensor, matrix: Tensor) -> Tensor:
    """States after a matrix, where one of them may be real."""
    if psi.is_complex() == matrix.is_complex():
        return psi @ matrix
    if psi.is_complex():
        return psi @ matrix.to(psi.dtype)
    return _numbers(psi @ torch.view_as_real(matrix).flatten(-2), True)


@no_type_check
class Parts(NamedTuple):
    """Like-shaped factors of a group of like blocks."""

    parts: int
    blocks: int
    size: int
    is_complex: bool
    features: Features | None
    """Of `parts * blocks` times m angles; `None` where there are none."""
    tables: Tensor
    """`(2**m, entries)`, one for all; or `(tables, 2**m, entries)`, one for each part, or for each part of each block."""

    def matrices(self, shared: Tensor) -> Sequence[Tensor]:
        """Of each part, `(blocks, size, size)`, or `(size, size)` of a single block."""
        found = self.tables
        if self.features is not None:
            features = self.features.of(shared)
            if self.tables.dim() == 3:
                features = features.unflatten(0, (self.tables.shape[0], -1))
            found = features @ self.tables
        shape = [number for number in (self.parts, self.blocks) if number > 1]
        flat = found.view(*shape, self.size * self.size * (1 + self.is_complex))
        all_of_them = _numbers(flat, self.is_complex, (self.size, self.size))
        return all_of_them.unbind() if self.parts > 1 else (all_of_them,)


@no_type_check
class Group:
    """All blocks of one shape: their matrices, and the products of these, computed when they are asked for."""

    def __init__(self, parts: Sequence[Parts], shared: Tensor):
        self.parts, self.shared, self.is_single = parts, shared, parts[0].blocks == 1
        self.made: list[Tensor] | None = None
        self.products: Sequence[Tensor] | None = None

    def matrices(self) -> list[Tensor]:
        """Of each part, in the order in which they act, those of all blocks."""
        if self.made is None:
            self.made = [one for part in self.parts for one in part.matrices(self.shared)]
        return self.made

    def each(self, member: int) -> Sequence[Tensor]:
        """Of each part the matrix of one block."""
        return self.matrices() if self.is_single else [one[member] for one in self.matrices()]

    def product(self, member: int) -> Tensor:
        """The matrix of a block."""
        if self.products is None:
            product = reduce(_times, self.matrices())
            self.products = (product,) if self.is_single else product.unbind()
        return self.products[member]


def _moved(psi: Tensor, move: Move, size: int) -> Tensor:
    """States with some qubits at their end, `(rows, 2**n)` → `(rows, rest, size)`."""
    if move is None:
        return psi.unflatten(-1, (-1, size))
    sizes, order, before = move
    psi = psi.unflatten(-1, sizes).permute(0, *(1 + axis for axis in order))
    return psi.flatten(before + 1) if before == 1 else psi.flatten(1, before).flatten(2)


@no_type_check
class Block(NamedTuple):
    """The matrices of a block, one after the other or multiplied first, whichever is less."""

    move: Move
    size: int
    is_whole: bool
    """Whether it is one of all qubits."""
    group: int
    member: int

    def act(self, psi: Tensor, angles: CircuitAngles, groups: Sequence[Group]) -> Tensor:
        """States after this step."""
        if not self.is_whole:
            psi = _moved(psi, self.move, self.size)
        group = groups[self.group]
        # What a compiler or an export keeps must not depend on the batch.
        if not torch.compiler.is_compiling() and psi.numel() < self.size**2:
            for matrix in group.each(self.member):
                psi = _times(psi, matrix)
        else:
            psi = _times(psi, group.product(self.member))
        return psi if self.is_whole else psi.flatten(-2)


@no_type_check
class Phases(NamedTuple):
    """Commuting rotations about Z: of qubits of the left half, of the right one, or of both."""

    features: Features  # cosines and sines side by side
    of_data: bool
    half: int | None

    def act(self, psi: Tensor, angles: CircuitAngles, groups: Sequence[Group]) -> Tensor:
        """States after this step."""
        phases = _numbers(self.features.of(angles.data if self.of_data else angles.shared), True)
        if self.half is None:
            return psi * phases
        size = phases.shape[-1]
        parts = psi.unflatten(-1, (size, -1) if self.half == 0 else (-1, size))
        return (parts * phases.unsqueeze(-1 if self.half == 0 else -2)).flatten(-2)


@no_type_check
class Exchange(NamedTuple):
    """Amplitude i becomes `phases[i]` times amplitude `order[i]`."""

    order: Tensor
    inverse: Tensor
    phases: Tensor | None

    def act(self, psi: Tensor, angles: CircuitAngles, groups: Sequence[Group]) -> Tensor:
        """States after this step."""
        psi = reordered(psi, self.order, self.inverse)
        return psi if self.phases is None else psi * self.phases


def reordered(psi: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """`psi[..., order]`, for an order and its inverse."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # who keep no derivative of ours
        return psi.index_select(-1, order)
    return _Reorder.apply(psi, order, inverse)


class _Reorder(torch.autograd.Function):
    """A permutation, whose backward pass is the inverse one: torch would add up a gradient by index."""

    generate_vmap_rule = True

    @staticmethod
    def forward(psi: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return psi.index_select(-1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Reorder.apply(grad, inverse, order), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Reorder.apply(tangent, *ctx.saved_tensors)


@no_type_check
class Apply(NamedTuple):
    """A matrix that is given."""

    move: Move
    size: int
    output: int
    of_data: bool

    def act(self, psi: Tensor, angles: CircuitAngles, groups: Sequence[Group]) -> Tensor:
        """States after this step."""
        given = (angles.data_arrays if self.of_data else angles.shared_arrays)[self.output]
        real = angles.shared.dtype
        given = given.to(real.to_complex() if given.is_complex() else real)
        return _times(_moved(psi, self.move, self.size), given.mT).flatten(-2)


@no_type_check
class Prepared(NamedTuple):
    """Some qubits as they begin: in a state of the data's angles, or in a fixed one, `(1, 2**k)`."""

    features: Features | None
    table: Tensor | None
    """`None` where the features themselves are the state, and the first block takes their table in."""
    is_complex: bool

    def begin(self, angles: CircuitAngles) -> Tensor:
        """The state of these qubits, `(rows, 2**k)` or `(1, 2**k)`."""
        if self.features is None:
            assert self.table is not None
            return _numbers(self.table, self.is_complex)
        found = self.features.of(angles.data)
        return found if self.table is None else _numbers(found @ self.table, self.is_complex)


@no_type_check
class Begun(NamedTuple):
    """Some qubits in a state that is given."""

    output: int
    of_data: bool

    def begin(self, angles: CircuitAngles) -> Tensor:
        """The state of these qubits, `(rows, 2**k)` or `(1, 2**k)`."""
        given = (angles.data_arrays if self.of_data else angles.shared_arrays)[self.output]
        norms = torch.linalg.vector_norm(given.detach(), dim=-1)
        if not torch.compiler.is_compiling() and not ((norms - 1).abs() < 1e-3).all():
            raise ValueError(f"a state must have norm 1, got {norms.max():.6g}: give normalize=True to its embedding")
        return given.reshape(-1, given.shape[-1])


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
        is_complex: bool | None = None,
    ):
        self.n_qubits, self.n_angles = n_qubits, n_angles
        self.width = n_qubits if n_qubits <= WHOLE_WIRES else ceil(n_qubits / ceil(n_qubits / BLOCK_WIRES))
        self.layout = list(range(n_qubits) if layout is None else layout)
        self.steps: list[Any] = []
        self.blocks: list[tuple[int, list[tuple[list[int], ndarray]]]] = []
        """Size of each, and angles and table of its parts."""
        self.given = list(gates)
        rest = [part for gate in self.given for part in self._narrow(gate)]
        self.start: list[Any] | None = None
        self.encoding: ndarray | None = None
        if layout is None:
            rest = self._begin(rest)
        while rest:
            shared, rest = _front(rest, _is_shared)
            rotations, rest = _alike(rest)
            before, about_z, after = _about_z(rotations)
            self._fuse([*shared, *before])
            if about_z:
                self._phases(about_z)
            else:
                given, rest = _front(rest, lambda gate: isinstance(gate, Given))
                for gate in given:
                    self._apply(gate)
            rest = [*after, *rest]
        self._finish(is_complex)

    # Compiling

    def _narrow(self, gate: Gate) -> list[Gate]:
        """A rotation about an axis of more wires than a block has is one about Z, between fixed gates."""
        if not isinstance(gate, Rotation) or len(gate.wires) <= self.width or _is_about_z(gate):
            return [gate]
        before, about_z, after = _about_z([gate])
        return [*before, *about_z, *after]

    def _begin(self, gates: list[Gate]) -> list[Gate]:
        """The states in which the qubits begin, as far as the data's angles and fixed gates make them."""
        given, gates = _front(gates, lambda gate: isinstance(gate, Start))
        if given:
            first = [wire for gate in given for wire in gate.wires]
            free = [wire for wire in range(self.n_qubits) if wire not in first]
            self.layout = first + free
            self.start = [Begun(gate.output, gate.data) for gate in given if isinstance(gate, Given)]
            self.start += [_prepared(None, _zero(1)) for _ in free]
            return gates
        narrow = self.n_qubits > WHOLE_WIRES

        def of_data(gate: Gate) -> bool:
            return (isinstance(gate, Fixed) or (isinstance(gate, Rotation) and gate.data)) and not (
                narrow and len(gate.wires) > 1
            )

        begun, rest = _front(gates, of_data)
        groups = [self.layout[i : i + self.width] for i in range(0, self.n_qubits, self.width)]
        parts = [[gate for gate in begun if set(gate.wires) <= set(group)] for group in groups]
        if max(sum(isinstance(gate, Rotation) for gate in part) for part in parts) > TABLE_ANGLES:
            self.start = [_prepared(None, _zero(self.n_qubits))]
            return gates
        self.start = []
        for group, part in zip(groups, parts, strict=True):
            table = _table(part, group, _zero(len(group)))[:, 0]
            features = self._features([[gate.angle for gate in part if isinstance(gate, Rotation)]], data=True)
            self.start.append(_prepared(features, table))
            self.encoding = table if len(groups) == 1 and len(table) == 2**self.n_qubits else None
        return rest

    def _features(self, angles: list[list[int]], *, data: bool) -> Features | None:
        if not angles[0]:
            return None
        frequencies, phases, _ = _features(len(angles[0]))
        places = self._places([angle for some in angles for angle in some], data=data)
        return Features(places, torch.from_numpy(frequencies), torch.from_numpy(phases))

    def _places(self, angles: list[int], *, data: bool) -> Tensor | None:
        return None if angles == list(range(self.n_angles[data])) else torch.tensor(angles)

    def _fuse(self, gates: list[Gate]) -> None:
        """Steps of gates that are the same for the whole batch."""
        pending: list[Gate] = []
        while gates:
            some, gates = _front(gates, lambda gate: len(gate.wires) == 1 and not isinstance(gate, Given))
            pending += some
            several, gates = _front(gates, lambda gate: len(gate.wires) > 1 and not isinstance(gate, Given))
            wide = set().union(*(part for part in _connected(several) if len(part) > self.width))
            while several:
                narrow, several = _front(several, partial(_outside, wide))
                pending += narrow
                exchanges, several = _front(several, _is_exchange)
                about_z, several = _front(several, _is_about_z)
                if exchanges or about_z:
                    self._flush(pending)
                    pending = []
                if exchanges:
                    self._exchange(exchanges)
                if about_z:
                    self._phases(about_z)
                if several and not exchanges and not about_z:
                    pending.append(several.pop(0))
            given, gates = _front(gates, lambda gate: isinstance(gate, Given))
            if given:
                self._flush(pending)
                pending = []
            for gate in given:
                self._apply(gate)
        self._flush(pending)

    def _flush(self, gates: list[Gate]) -> None:
        for wires, cluster in _clusters(gates, self.width):
            idle = [wire for wire in self.layout if wire not in wires]
            missing = self.n_qubits if self.n_qubits <= WHOLE_WIRES else LEAST_WIRES
            wires.update(idle[: max(missing - len(wires), 0)])
            self._block([wire for wire in self.layout if wire in wires], cluster)

    def _block(self, wires: list[int], gates: list[Gate]) -> None:
        size = 2 ** len(wires)
        number = sum(isinstance(gate, Rotation) for gate in gates)
        if not number:
            matrix = _table(gates, wires, np.eye(size))[0]
            if np.abs(matrix - np.eye(size)).max() < 1e-14:
                return
        most = max(m for m in range(1, TABLE_ANGLES + 1) if m == 1 or 2**m * size**2 <= TABLE_ENTRIES)
        pieces = ceil(number / most) if number > TABLE_ANGLES else 1
        parts: list[tuple[list[int], ndarray]] = []
        rest = list(gates)
        for piece in range(max(pieces, 1)):
            wanted = number * (piece + 1) // pieces - number * piece // pieces
            part = []
            while rest and (piece == pieces - 1 or wanted or isinstance(rest[0], Fixed)):
                wanted -= isinstance(rest[0], Rotation)
                part.append(rest.pop(0))
            parts.append(([gate.angle for gate in part if isinstance(gate, Rotation)], _table(part, wires, np.eye(size))))
        if self.encoding is not None and not self.steps and (len(parts) == 1 or not _all_alike([table for _, table in parts])):
            # The first matrix takes in what the data's features mean.
            parts[0] = parts[0][0], np.einsum("ij,fjk->fik", self.encoding, parts[0][1])
            self.start = [first._replace(table=None) for first in self.start or ()]
        self.steps.append(Block(self._move(wires), size, len(wires) == self.n_qubits, len(self.blocks), 0))
        self.blocks.append((size, parts))

    def _move(self, wires: Sequence[int]) -> Move:
        """How these qubits, in the order in which they lie, come to the end; the layout follows."""
        runs = [(inside, len(list(run))) for inside, run in groupby(wire in wires for wire in self.layout)]
        order = sorted(range(len(runs)), key=lambda i: runs[i][0])
        self.layout = [w for w in self.layout if w not in wires] + [w for w in self.layout if w in wires]
        if len(runs) == 1 or (len(runs) == 2 and runs[1][0]):
            return None
        return [2**length for _, length in runs], order, sum(not inside for inside, _ in runs)

    def _apply(self, gate: Gate) -> None:
        assert isinstance(gate, Given)
        order = [*(wire for wire in self.layout if wire not in gate.wires), *gate.wires]
        if [wire for wire in self.layout if wire in gate.wires] != list(gate.wires):
            axes = [self.layout.index(wire) for wire in order]
            index = np.arange(2**self.n_qubits).reshape([2] * self.n_qubits).transpose(axes).ravel()
            self.steps.append(Exchange(torch.from_numpy(index), torch.from_numpy(np.argsort(index)), None))
            self.layout = order
        self.steps.append(Apply(self._move(gate.wires), 2 ** len(gate.wires), gate.output, gate.data))

    def _phases(self, rotations: Sequence[Gate]) -> None:
        """Phases of few qubits at once; with many, cosines and sines of half of the qubits are far fewer than of all."""
        middle = self.n_qubits // 2 if self.n_qubits > WHOLE_WIRES else 0
        halves = [self.layout[:middle], self.layout[middle:]] if middle else []
        inside = [[gate for gate in rotations if set(gate.wires) <= set(half)] for half in halves]
        rest = [gate for gate in rotations if not any(gate in part for part in inside)]
        for some, wires, half in (*zip(inside, halves, (0, 1), strict=False), (rest, self.layout, None)):
            chosen = [gate for gate in some if isinstance(gate, Rotation)]
            if chosen:
                turns = np.array([-signs(gate.word, gate.wires, wires) / 2 for gate in chosen]).repeat(2, axis=1)
                quarter = np.tile([pi / 2, 0.0], 2 ** len(wires))
                places = self._places([gate.angle for gate in chosen], data=chosen[0].data)
                features = Features(places, torch.from_numpy(turns), torch.from_numpy(quarter))
                self.steps.append(Phases(features, chosen[0].data, half))

    def _exchange(self, gates: Sequence[Gate]) -> None:
        order, phases = np.arange(2**self.n_qubits), np.ones(2**self.n_qubits, dtype=complex)
        for gate in gates:
            assert isinstance(gate, Fixed)
            places = [self.layout.index(wire) for wire in gate.wires]
            weights = 2 ** np.arange(len(places))[::-1]
            source = np.abs(gate.matrix).argmax(axis=1)  # the column of each row's one entry
            row = weights @ bits(self.n_qubits, *places).reshape(len(places), -1)
            flips = ((source[row] ^ row)[None] // weights[:, None]) & 1
            there = np.arange(2**self.n_qubits) ^ (2 ** (self.n_qubits - 1 - np.array(places)) @ flips)
            order, phases = order[there], gate.matrix[row, source[row]] * phases[there]
        trivial = np.abs(phases - 1).max() < 1e-14
        self.steps.append(
            Exchange(
                torch.from_numpy(order), torch.from_numpy(np.argsort(order)), None if trivial else torch.from_numpy(phases)
            )
        )

    def _finish(self, is_complex: bool | None) -> None:
        """Groups of like blocks, and tensors that are real where all are."""
        arrays = [table for _, parts in self.blocks for _, table in parts]
        arrays += [step.phases.numpy() for step in self.steps if isinstance(step, Exchange) and step.phases is not None]
        self.is_complex = bool(is_complex) or any(isinstance(step, Phases) for step in self.steps)
        self.is_complex |= any(first.is_complex for first in self.start or () if isinstance(first, Prepared))
        self.is_complex |= any(gate.is_complex for gate in self.given if isinstance(gate, Given))
        self.is_complex |= any(map(_is_complex, arrays))
        kinds: dict[tuple[int, ...], list[int]] = {}
        for i, (size, parts) in enumerate(self.blocks):
            kinds.setdefault((size, *(len(angles) for angles, _ in parts)), []).append(i)
        places = {i: (g, m) for g, members in enumerate(kinds.values()) for m, i in enumerate(members)}
        self.groups = [self._group([self.blocks[i] for i in members]) for members in kinds.values()]
        self.steps = [
            step._replace(group=places[step.group][0], member=places[step.group][1]) if isinstance(step, Block) else step
            for step in self.steps
        ]
        del self.blocks
        width = 1 + self.is_complex
        self.kept = 1 + width + sum(_kept(step, width) for step in self.steps)
        self.own = 16 * sum(isinstance(step, Exchange) for step in self.steps)

    def _group(self, blocks: list[tuple[int, list[tuple[list[int], ndarray]]]]) -> list[Parts]:
        size, first = blocks[0]
        found = []
        for m, positions in groupby(range(len(first)), key=lambda part: len(first[part][0])):
            some = list(positions)
            each = [blocks[b][1][part] for part in some for b in range(len(blocks))]
            tables = np.array([table for _, table in each])
            if m and _all_alike(tables):
                tables = tables[:1]
            elif m and _all_alike(by_part := np.moveaxis(tables.reshape(len(some), len(blocks), *tables.shape[1:]), 1, 0)):
                tables = by_part[0]
            is_complex = _is_complex(tables)
            flat = _flat(tables.reshape(len(tables), 2**m, -1), is_complex)
            flat = flat[0] if m and len(flat) == 1 else flat
            features = self._features([angles for angles, _ in each], data=False)
            found.append(Parts(len(some), len(blocks), size, is_complex, features, flat))
        return found

    # Running

    def tensors(self, dtype: torch.dtype, device: torch.device) -> "Tensors":
        """Start, groups and steps in a precision, on a device."""
        wide = torch.complex128 if dtype == torch.float64 else torch.complex64

        def converted(tensor: Tensor) -> Tensor:
            if tensor.is_complex():
                return tensor.to(device, wide)
            return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

        return Tensors(*tree_map_only(Tensor, converted, (self.start, self.groups, self.steps)))


@no_type_check
class Tensors(NamedTuple):
    """A plan in a precision, on a device."""

    start: list[Any]
    groups: list[list[Parts]]
    steps: list[Any]

    def states(self, angles: CircuitAngles) -> Tensor:
        """Final states `(rows, 2**n)`, or `(1, 2**n)` where nothing depends on the data."""
        psi = self.start[0].begin(angles)
        for other in self.start[1:]:
            psi = _product(psi, other.begin(angles))
        return self.onward(psi, angles)

    def onward(self, psi: Tensor, angles: CircuitAngles) -> Tensor:
        """The same, from given states."""
        groups = [Group(parts, angles.shared) for parts in self.groups]
        for step in self.steps:
            psi = step.act(psi, angles, groups)
        return psi


def _kept(step: Any, width: int) -> int:
    """How many numbers a step keeps for the backward pass, for each amplitude of each row."""
    if isinstance(step, Phases):
        return 7 if step.half is None else 3
    return 0 if isinstance(step, Exchange) else width


def _zero(n: int) -> ndarray:
    """|0…0⟩ of n qubits, as a row."""
    return np.eye(1, 2**n)


def _prepared(features: Features | None, table: ndarray) -> Prepared:
    is_complex = _is_complex(table)
    return Prepared(features, _flat(table, is_complex), is_complex)


def _all_alike(tables: Sequence[ndarray] | ndarray) -> bool:
    return all(np.array_equal(table, tables[0]) for table in tables)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of two qubits, or sets of them, the state of both."""
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
