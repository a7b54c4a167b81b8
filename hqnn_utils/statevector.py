"""The layered circuit on batches of real state vectors, in plain torch: exact, differentiable to any order, and fast.

Four facts make it so, all of them derived in book/foundations/simulation:

1. H, R_Y and CNOT are real, so a state of n qubits is 2**n real numbers.
2. A CNOT exchanges basis states, so an entangler is one permutation of them.
3. A column of rotations is a Kronecker product whose entries are products of n cosines, and a product of cosines is a sum of
   cosines. So both the encoded state and a column are *linear* in the 2**n features of `_features`: one matrix each.
4. The data comes first and the weights after, so the trainable part is one orthogonal matrix, shared by the whole batch.

With few qubits that matrix is built (cost 2**3n a layer, whatever the batch); with many the state is moved through the layers,
a few qubits at a time (cost 2**n a sample and layer).
"""

from functools import lru_cache
from math import pi
from typing import NamedTuple

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from hqnn_utils.circuits import cnot_pairs

MATRIX_QUBITS = 6
"""Up to so many qubits the trainable part is one matrix; measured in benchmarks/."""

BLOCK_QUBITS = 5
"""Beyond, so many qubits are turned by one matrix product."""

CHECKED_BYTES = 2**26
"""From here on the free memory is asked for first, which takes longer than a small circuit."""


class _Tables(NamedTuple):
    """Constants of n qubits: what maps angles to features, and features to states and columns.

    States are rows here and matrices act on them from the right, as batches lie in memory; it saves a transposition in
    every product, which at this size is worth having.
    """

    frequencies: Tensor  # (n, 2**n)
    phases: Tensor  # (2**n,)
    encode: Tensor  # (2**n, 2**n): features of x → state that H, R_Y(x) prepare from |0…0⟩
    column: Tensor  # (2**n, 4**n): features of theta → matrix of [entangler, R_Y(theta)], to be multiplied from the right


def expval_z(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch n"]:
    """⟨Z_i⟩ of every qubit of `circuits.layered(x, theta, entangler)`, exactly.

    Args:
        x: encoded data, radians, any leading dimensions.
        theta: trainable angles, radians, of the same dtype and device.
        entangler: one of `circuits.ENTANGLERS`.

    Returns:
        Expectation values in [-1, 1], the shape of `x`.

    Raises:
        ValueError: an unknown entangler, or `theta` of another width than `x`.
        MemoryError: before anything is allocated, if the states that the backward pass keeps cannot fit.

    Memory: `(batch * kept + 2 * n) * 2**n` numbers, where the backward pass keeps `3` states a row up to 6 qubits and
    `2 + depth * (1 + ceil(n / 5))` beyond. Works under `torch.vmap`, also over stacked `theta`; what is counted
    is then one model.
    """
    psi = state(x, theta, entangler)
    return (psi * psi) @ _signs(x.shape[-1], x.dtype, x.device)


def state(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch dim"]:
    """The state vector of `circuits.layered(x, theta, entangler)`: real, `2**n` amplitudes, qubit 0 leftmost.

    Args and errors as for `expval_z`.
    """
    n = x.shape[-1]
    if theta.shape[-1] != n:
        raise ValueError(f"x has {n} angles a row and theta {theta.shape[-1]}: both need one for each qubit")
    _require_memory(x, len(theta))
    if n <= MATRIX_QUBITS:
        tables = _tables(n, entangler, x.dtype, x.device)
        matrix = tables.encode
        for layer in _columns(theta, tables):
            matrix = matrix @ layer
        return _features(x, tables) @ matrix
    sizes = [len(part) for part in torch.arange(n).tensor_split(-(-n // BLOCK_QUBITS))]
    blocks = [_tables(size, "none", x.dtype, x.device) for size in sizes]
    psi = _kron([_features(part, t) @ t.encode for part, t in zip(x.split(sizes, -1), blocks, strict=True)])
    columns = [_columns(part, t) for part, t in zip(theta.split(sizes, -1), blocks, strict=True)]
    order, inverse = _permutation(n, entangler, x.device)
    for layer in zip(*columns, strict=True):
        psi = _Reorder.apply(psi, order, inverse)
        for block in layer:
            # The leading qubits are turned and go to the back; after all blocks every qubit is in its place again.
            psi = (psi.unflatten(-1, (len(block), -1)).mT @ block).flatten(-2)
    return psi


def _require_memory(x: Tensor, depth: int) -> None:
    """Refuse, before the allocation, states that cannot fit: those that the backward pass keeps, and the tables."""
    n = x.shape[-1]
    batch = x.numel() // n
    kept = 3 if n <= MATRIX_QUBITS else 2 + depth * (1 + -(-n // BLOCK_QUBITS))
    needed = (batch * kept + 2 * n) * 2**n * x.element_size()
    if needed < CHECKED_BYTES:
        return
    free = torch.cuda.mem_get_info(x.device)[0] if x.is_cuda else psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"{n} qubits with depth {depth} and a batch of {batch} need about {min(needed, 10**30) / 1e9:.3g} GB and "
            f"{free / 1e9:.3g} GB are free: take fewer qubits, fewer layers or a smaller batch"
        )


def _features(angles: Tensor, tables: _Tables) -> Tensor:
    """cos and sin of all sums ±a₁/2 … ±aₙ/2, shape `(…, 2**n)`: what a product of n cosines of half angles is linear in.

    Both as sines, of which torch takes the derivative in fewer operations than of cosines.
    """
    if angles.dim() == 2:
        return torch.addmm(tables.phases, angles, tables.frequencies).sin()  # one operation, for the most common shape
    return (angles @ tables.frequencies + tables.phases).sin()


def _columns(theta: Tensor, tables: _Tables) -> tuple[Tensor, ...]:
    """The orthogonal matrix of each layer: the entangler of the tables, then R_Y(theta) on every qubit."""
    dim = len(tables.phases)
    return (_features(theta, tables) @ tables.column).view(-1, dim, dim).unbind()


class _Reorder(torch.autograd.Function):
    """`psi[..., order]`, whose backward pass is the inverse permutation: torch would add up a gradient by index."""

    generate_vmap_rule = True

    @staticmethod
    def forward(psi, order, inverse):
        return psi.index_select(-1, order)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        order, inverse = ctx.saved_tensors
        return _Reorder.apply(grad, inverse, order), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Reorder.apply(tangent, *ctx.saved_tensors)


def _kron(factors: list[Tensor]) -> Tensor:
    """Kronecker product of vectors along the last dimension, the first factor leftmost."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result.unsqueeze(-1) * factor.unsqueeze(-2)).flatten(-2)
    return result


def _bits(n: int) -> Tensor:
    """Bit of each qubit in each basis state, shape `(n, 2**n)`, qubit 0 leftmost."""
    return (torch.arange(2**n) >> torch.arange(n - 1, -1, -1).unsqueeze(1)) & 1


@lru_cache
@torch.inference_mode(False)  # the constants outlive the call that made them, and may be trained with later
def _permutation(n: int, entangler: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The entangler as `order`: amplitude i of the new state is amplitude `order[i]` of the old one; and its inverse."""
    order = index = torch.arange(2**n)
    for control, target in cnot_pairs(n, entangler):
        flipped = index ^ (1 << (n - 1 - target))
        order = order[torch.where((index >> (n - 1 - control)) & 1 == 1, flipped, index)]
    return order.to(device), order.argsort().to(device)


@lru_cache
@torch.inference_mode(False)
def _signs(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Outcome of Z of each qubit in each basis state, ±1, shape `(2**n, n)`."""
    return (1 - 2 * _bits(n)).T.to(device, dtype).contiguous()


@lru_cache
@torch.inference_mode(False)
def _tables(n: int, entangler: str, dtype: torch.dtype, device: torch.device) -> _Tables:
    """Constants for n qubits, computed in float64.

    A product of cosines is the mean, over all relative signs s of its arguments, of the cosines of their sums:
    Π cos(a_i/2 + d_i) = 2**(1-n) Σ_s cos(s·a/2 + s·d), which splits into cos(s·a/2) cos(s·d) - sin(s·a/2) sin(s·d).
    """
    bits = _bits(n).double()
    signs = torch.cat([torch.ones(1, 2 ** (n - 1)), 1 - 2 * _bits(n - 1)]).double()  # (n, 2**(n-1)), the first is fixed

    def linear_map(shifts: Tensor) -> Tensor:  # (n, outputs) → (2**n features, outputs)
        sums = signs.T @ shifts
        return torch.cat([sums.cos(), -sums.sin()]) / 2 ** (n - 1)

    # H then R_Y(x) turns |0⟩ to cos(x/2 + π/4)|0⟩ + sin(x/2 + π/4)|1⟩, and a sine is a cosine, π/2 late.
    encode = linear_map(pi / 4 - bits * pi / 2)
    # R_Y(θ) = [[cos θ/2, -sin θ/2], [sin θ/2, cos θ/2]]: entry (row, column) is cos(θ/2 + (column - row) π/2). Transposed,
    # since it acts from the right; the permutation acts first and so reorders what are now the rows.
    differences = (bits.unsqueeze(1) - bits.unsqueeze(2)) * pi / 2  # (n, row, column)
    _, inverse = _permutation(n, entangler, torch.device("cpu"))
    column = linear_map(differences.mT.flatten(1)).unflatten(1, (2**n, 2**n))[:, inverse].flatten(1)
    frequencies = torch.cat([signs, signs], dim=1) / 2
    phases = torch.tensor([pi / 2, 0.0], dtype=torch.float64).repeat_interleave(2 ** (n - 1))
    parts = (frequencies, phases, encode, column)
    return _Tables(*(part.to(device, dtype).contiguous() for part in parts))
