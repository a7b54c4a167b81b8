"""What is done to a batch of states, one step after the other, in plain torch: exact, and differentiable to any order.

`quantum.fusion` makes these steps of gates. Tensors are in double precision there, and `angles.converted` makes those of other
precisions. The qubits lie in memory as the last step left them; what is measured knows it.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, no_type_check

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor as is_mapped

from hqnn_utils.quantum.angles import CircuitAngles

# Compilers take these objects as constants, and cannot guard what a type checker at run time wraps around their methods.

Move = tuple[list[int], list[int], int] | None
"""How qubits come to the end: sizes of their runs as they lie, the new order of these, and how many runs stay before them."""


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


def _numbers(found: Tensor, is_complex: bool) -> Tensor:
    """What came out of a table, where real and imaginary parts stand side by side."""
    return torch.view_as_complex(found.unflatten(-1, (-1, 2))) if is_complex else found


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
    shape: tuple[int, ...]
    """Of the matrices of all parts and blocks, where there are several, with real and imaginary parts side by side."""
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
            if self.tables.dim() == 2:
                found = features @ self.tables
            else:
                features = features.unflatten(0, (self.tables.shape[0], -1))
                # Under torch.vmap a batched product would copy the tables for each model.
                if not torch.compiler.is_compiling() and is_mapped(features):
                    found = torch.stack([some @ table for some, table in zip(features, self.tables, strict=True)])
                else:
                    found = features @ self.tables
        found = found.view(self.shape)
        found = torch.view_as_complex(found) if self.is_complex else found
        return found.unbind() if self.parts > 1 else (found,)


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

    def kept(self, width: int) -> int:
        """How many numbers are kept for the backward pass, for each amplitude of each row, where one is so many numbers."""
        return width

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

    def kept(self, width: int) -> int:
        """As for a block."""
        return 7 if self.half is None else 3

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

    def kept(self, width: int) -> int:
        """As for a block."""
        return 0

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

    def kept(self, width: int) -> int:
        """As for a block."""
        return width

    def act(self, psi: Tensor, angles: CircuitAngles, groups: Sequence[Group]) -> Tensor:
        """States after this step."""
        given = angles.array(self.output, self.of_data)
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


def require_norms(norms: Any) -> None:
    """Refuse states, by their norms."""
    if not (abs(norms - 1) < 1e-3).all():
        raise ValueError(f"a state must have norm 1, got {norms.max():.6g}: give normalize=True to its embedding")


@no_type_check
class Begun(NamedTuple):
    """Some qubits in a state that is given."""

    output: int
    of_data: bool

    def begin(self, angles: CircuitAngles) -> Tensor:
        """The state of these qubits, `(rows, 2**k)` or `(1, 2**k)`."""
        given = angles.array(self.output, self.of_data)
        if not torch.compiler.is_compiling():
            require_norms(torch.linalg.vector_norm(given.detach(), dim=-1))
        return given.reshape(-1, given.shape[-1])


@no_type_check
class Steps(NamedTuple):
    """All that is done, in a precision, on a device."""

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


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of two qubits, or sets of them, the state of both."""
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
