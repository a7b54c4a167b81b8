"""The layered circuit on batches of real state vectors, in plain torch: exact, differentiable to any order, and fast.

Four facts make it so, all of them derived in book/foundations/simulation:

1. H, R_Y and CNOT are real, so a state of n qubits is 2**n real numbers.
2. A CNOT exchanges basis states, so an entangler is one permutation of them.
3. Every amplitude is a sum of products, one cosine or sine of half of every angle, and such a product is a sum of sines of
   sums of the angles. So states and matrices are *linear* in 2**m features of their m angles: one table each.
4. The data comes first and the weights after, so the trainable part is one orthogonal matrix, shared by the whole batch.

With few qubits that matrix is built (cost 2**3n a layer, whatever the batch); with many the state is moved through the layers,
a few qubits at a time (cost 2**n a sample and layer).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from math import pi
from typing import Any, NamedTuple

import psutil
import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor
from torch._C import _functorch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_map

from hqnn_utils.quantum.circuits import cnot_pairs
from hqnn_utils.quantum.inputs import one_dtype, require_shots

Pairs = Sequence[tuple[int, int]]
"""(control, target) of CNOTs."""

MATRIX_QUBITS = 6
"""Up to so many qubits the trainable part is one matrix; measured in benchmarks/."""

BLOCK_QUBITS = 5
"""Beyond, so many qubits are turned by one matrix product; measured in benchmarks/."""

TABLE_ANGLES = 8
"""Up to so many weights all layers come out of one table, of 2**8 features; measured in benchmarks/."""

SUMMED_QUBITS = 10
"""Beyond, probabilities are summed over half of the qubits before they meet the signs of the other half."""

CHECKED_BYTES = 2**26
"""From here on the free memory is asked for first, which takes longer than a small circuit."""


def _constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """What `make` returns for hashable arguments, made once, of real tensors whoever asks first.

    A tracer, a transform and inference mode hold for one thread, so another one makes what outlives them. Compilers take the
    result as it is; in a mode that has tensors of its own (fake ones) it enters as `torch.tensor` does.
    """

    @lru_cache
    def made(*arguments: Any) -> Any:
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(make, *arguments).result()

    @wraps(make)
    def constant(*arguments: Any) -> Any:
        tensors = made(*arguments)
        return tree_map(torch.ops.aten.lift_fresh, tensors) if is_in_torch_dispatch_mode() else tensors

    # The mark is torch.compiler.assume_constant_result, without its import of two seconds.
    vars(constant).update(cache_clear=made.cache_clear, _dynamo_marked_constant=True)
    return constant


class _Table(NamedTuple):
    """A map from m angles to numbers that are linear in the features of these angles.

    The features are sines of all sums ±a₁/2 … ±aₘ/2 and of the same, a quarter turn on.
    """

    frequencies: Tensor  # (m, 2**m)
    phases: Tensor  # (2**m,)
    coefficients: Tensor  # (2**m, outputs)


def _features(table: _Table, angles: Tensor) -> Tensor:
    """`(…, m)` → `(…, 2**m)`. All as sines, of which torch takes the derivative in fewer operations than of cosines."""
    frequencies, phases, _ = table
    if angles.dim() == 2:
        return torch.addmm(phases, angles, frequencies).sin()  # one operation, for the most common shape
    return (angles @ frequencies + phases).sin()


def _values(table: _Table, angles: Tensor) -> Tensor:
    """`(…, m)` → `(…, outputs)`."""
    return _features(table, angles) @ table[2]


@one_dtype
def expval_z(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch n"]:
    """⟨Z_i⟩ of every qubit of `circuits.layered(x, theta, entangler)`, exactly.

    Args:
        x: encoded data, radians, any leading dimensions.
        theta: trainable angles, radians, on the same device.
        entangler: one of `circuits.ENTANGLERS`.

    Returns:
        Expectation values in [-1, 1], the shape of `x`; their dtype, as of all functions here, by `inputs.one_dtype`.

    Raises:
        TypeError: angles that are no real floating-point numbers.
        ValueError: an unknown entangler, or `theta` of another width than `x`.
        MemoryError: before anything is allocated, if the states that the backward pass keeps cannot fit.

    Memory: `(batch * kept + 2 * n) * 2**n` numbers, where the backward pass keeps `3` states a row up to 6 qubits and
    `2 + depth * (1 + ceil(n / 5))` beyond. Works under `torch.vmap`, also over stacked `theta`; the rows of all
    models are counted.
    """
    return _expected(_state(x, theta, entangler), int(theta.shape[-1]))


@one_dtype
def measured_z(
    psi: Inexact[Tensor, "*batch dim"], shots: int = 0, generator: torch.Generator | None = None
) -> Float[Tensor, "*batch n"]:
    """⟨Z_i⟩ of every qubit of given states: exactly, or the mean of so many measurements of all qubits, as a device gives it.

    Args:
        psi: real or complex amplitudes, normalised.
        shots: measurements of each state, every one 0 or 1 for each qubit; 0 is exact.
        generator: of the outcomes; torch's own by default.

    Returns:
        Expectation values, or means of `shots` outcomes ±1 without a gradient: that is the shift rule's business.

    Raises:
        ValueError: states that are not of qubits, shots that are no whole number, or states that cannot be measured.

    Memory beyond that of the states, in numbers of 8 bytes with shots: `batch * (2 * 2**n + 3 * shots)`.
    """
    require_shots(shots)
    n = _qubits(psi)
    return _sampled(psi.detach(), n, shots, generator) if shots else _expected(psi, n)


def _qubits(psi: Tensor) -> int:
    """Of how many qubits these are states."""
    size = int(psi.shape[-1]) if psi.ndim else 0
    if size < 2 or size & (size - 1):
        raise ValueError(f"states of n qubits have 2**n amplitudes in their last dimension, got the shape {tuple(psi.shape)}")
    return size.bit_length() - 1


def _probabilities(psi: Tensor) -> Tensor:
    return torch.view_as_real(psi).square().sum(-1) if psi.is_complex() else psi * psi


def _expected(psi: Tensor, n: int) -> Tensor:
    """⟨Z_i⟩ of every qubit. In float32 a product of 2**n terms would drift with n, so long sums are float64's or pairwise."""
    p = _probabilities(psi)
    if n <= MATRIX_QUBITS:
        return p @ _signs(n, p.dtype, p.device)
    if n <= SUMMED_QUBITS:
        return (p.double() @ _signs(n, torch.float64, p.device)).to(p.dtype)
    left = n // 2
    p = p.unflatten(-1, (2**left, 2 ** (n - left)))
    halves = (p.sum(-1), left), (p.sum(-2), n - left)  # torch sums pairwise
    return torch.cat([half.double() @ _signs(m, torch.float64, p.device) for half, m in halves], dim=-1).to(p.dtype)


def _sampled(psi: Tensor, n: int, shots: int, generator: torch.Generator | None) -> Tensor:
    """Means of `shots` outcomes ±1 of every qubit, in float64: `torch.multinomial` is float32's, and ends at 2**24."""
    below = _probabilities(psi.to(torch.complex128 if psi.is_complex() else torch.float64)).cumsum(-1)
    total = below[..., -1:]
    if not (measurable := total.isfinite() & (total > 0)).all():
        place = (~measurable).nonzero()[0, :-1].tolist()
        raise ValueError(f"the state psi{place or ''} is zero, NaN or infinite and cannot be measured: normalise it")
    if n == 1:  # a coin
        ones = shots - torch.binomial(torch.full_like(total, shots), below[..., :1] / total, generator)
    else:
        drawn = torch.rand(*psi.shape[:-1], shots, dtype=torch.float64, device=psi.device, generator=generator)
        outcomes = torch.searchsorted(below[..., :-1].contiguous(), drawn.mul_(total), right=True)
        ones = torch.stack([torch.count_nonzero(outcomes & 1 << i, dim=-1) for i in reversed(range(n))], dim=-1)
    return ((shots - 2 * ones).double() / shots).to(psi.dtype.to_real())


@one_dtype
def state(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch dim"]:
    """The state vector of `circuits.layered(x, theta, entangler)`: real, `2**n` amplitudes, qubit 0 leftmost.

    Args and errors as for `expval_z`.
    """
    return _state(x, theta, entangler)


def _state(x: Tensor, theta: Tensor, entangler: str) -> Tensor:
    depth, n = map(int, theta.shape)
    if x.shape[-1] != n or n < 1:
        raise ValueError(f"x has {x.shape[-1]} angles a row and theta {n}: both need one for each qubit")
    _require_memory(x, theta, n, depth)
    if n <= MATRIX_QUBITS:
        return _features(_encoding(n, x.dtype, x.device), x) @ _matrix(theta, n, depth, entangler)
    psi = encoded(x)
    columns = [_column(part).unbind() for part in theta.split(_blocks(n), -1)]
    for layer in zip(*columns, strict=True):
        psi = _turned(entangled(psi, entangler), layer)
    return psi


# Gate by gate, for circuits that are not the layered one.


@one_dtype
def encoded(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch dim"]:
    """The state that H and R_Y(x_i) on every qubit prepare from |0…0⟩: real, `2**n` amplitudes, qubit 0 leftmost."""
    blocks = _blocks(int(x.shape[-1]))
    parts = zip(blocks, x.split(blocks, -1), strict=True)
    return _kron([_values(_encoding(n, x.dtype, x.device), part) for n, part in parts])


@one_dtype
def entangled(psi: Inexact[Tensor, "*batch dim"], entangler: str | Pairs = "ring") -> Inexact[Tensor, "*batch dim"]:
    """States after the CNOTs of an entangler, given by name or as (control, target) pairs in the order in which they act."""
    pairs = entangler if isinstance(entangler, str) else tuple(entangler)
    order, inverse = _permutation(_qubits(psi), pairs, psi.device)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # who keep no derivative of ours
        return psi.index_select(-1, order)
    return _Reorder.apply(psi, order, inverse)


@one_dtype
def phased(psi: Complex[Tensor, "*batch dim"], phi: Float[Tensor, "*batch n"]) -> Complex[Tensor, "*batch dim"]:
    """States after R_Z(phi_i) on every qubit, radians: complex, each amplitude turned by half of ±phi_i."""
    turns = phi @ _signs(int(phi.shape[-1]), phi.dtype, phi.device).mT
    return psi * torch.polar(torch.ones_like(turns), -turns / 2)


@one_dtype
def rotated(psi: Inexact[Tensor, "*batch dim"], theta: Float[Tensor, "*angles n"]) -> Inexact[Tensor, "*batch dim"]:
    """States after R_Y(theta_i) on every qubit.

    Args:
        psi: real or complex amplitudes.
        theta: radians; `(n,)` for all states, or `(*batch, n)`, its own for each.
    """
    columns = [_column(part).to(psi.dtype) for part in theta.split(_blocks(int(theta.shape[-1])), -1)]
    return _turned(psi, columns)


def _blocks(n: int) -> list[int]:
    """How many qubits are turned by one matrix each."""
    blocks = -(-n // BLOCK_QUBITS)
    return [n // blocks + (number < n % blocks) for number in range(blocks)]


def _turned(psi: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """States, of which each matrix turns its block of qubits."""
    for block in blocks:
        # The leading qubits are turned and go to the back; after all blocks every qubit is in its place again.
        psi = (psi.unflatten(-1, (int(block.shape[-1]), -1)).mT @ block).flatten(-2)
    return psi


def _mapped(tensor: Tensor) -> int:
    """Over how many models `torch.vmap` maps a tensor: its own size does not tell."""
    inner = tensor
    while _functorch.is_functorch_wrapped_tensor(inner):
        inner = _functorch.get_unwrapped(inner)
    return 1 if inner is tensor else inner.numel() // max(tensor.numel(), 1)


def _require_memory(x: Tensor, theta: Tensor, n: int, depth: int) -> None:
    """Refuse, before the allocation, states that cannot fit: those that the backward pass keeps, and the tables."""
    if torch.compiler.is_compiling():  # nothing is allocated yet
        return
    batch = x.numel() // n * max(_mapped(x), _mapped(theta))
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


def _matrix(theta: Tensor, n: int, depth: int, entangler: str) -> Tensor:
    """What takes the features of x to the final state, `(2**n, 2**n)`: the encoding, then all layers."""
    if depth * n <= TABLE_ANGLES:
        table = _encoded_layers(n, entangler, depth, theta.dtype, theta.device)
        return _values(table, theta.reshape(1, depth * n)).view(2**n, 2**n)
    matrix = _encoding(n, theta.dtype, theta.device).coefficients
    for layer in _column(theta, entangler).unbind():
        matrix = matrix @ layer
    return matrix


def _column(theta: Tensor, entangler: str = "none") -> Tensor:
    """The matrix of an entangler and then a column of R_Y, `(…, n)` → `(…, 2**n, 2**n)`.

    States are rows, as they lie in memory: multiply from the right.
    """
    n = int(theta.shape[-1])
    return _values(_layer(n, entangler, theta.dtype, theta.device), theta).unflatten(-1, (2**n, 2**n))


class _Reorder(torch.autograd.Function):
    """`psi[..., order]`, whose backward pass is the inverse permutation: torch would add up a gradient by index."""

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


def _kron(factors: list[Tensor]) -> Tensor:
    """Kronecker product of vectors along the last dimension, the first factor leftmost."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result.unsqueeze(-1) * factor.unsqueeze(-2)).flatten(-2)
    return result


def _bits(n: int) -> Tensor:
    """Bit of each qubit in each basis state, shape `(n, 2**n)`, qubit 0 leftmost."""
    return (torch.arange(2**n) >> torch.arange(n - 1, -1, -1).unsqueeze(1)) & 1


@_constant
def _permutation(n: int, entangler: str | Pairs, device: torch.device) -> tuple[Tensor, Tensor]:
    """The entangler as `order`: amplitude i of the new state is amplitude `order[i]` of the old one; and its inverse."""
    order = index = torch.arange(2**n)
    for control, target in cnot_pairs(n, entangler) if isinstance(entangler, str) else entangler:
        if control == target or not 0 <= min(control, target) <= max(control, target) < n:
            raise ValueError(f"a CNOT needs two different qubits of 0 to {n - 1}, got {control} and {target}")
        flipped = index ^ (1 << (n - 1 - target))
        order = order[torch.where((index >> (n - 1 - control)) & 1 == 1, flipped, index)]
    return order.to(device), order.argsort().to(device)


@_constant
def _signs(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Outcome of Z of each qubit in each basis state, ±1, shape `(2**n, n)`."""
    return (1 - 2 * _bits(n)).T.to(device, dtype).contiguous()


def _table(n_angles: int, values: Callable[[Tensor], Tensor], dtype: torch.dtype, device: torch.device) -> _Table:
    """The table of a function that is linear in the features, from its `values` where every angle is 0 or π.

    These are as many places, 2**m, as there are features, and there the features are independent. Computed in float64.
    """
    signs = 1 - 2 * _bits(n_angles)[:, : 2 ** max(n_angles - 1, 0)].double()  # of a sum; the first angle's is always +
    frequencies = torch.cat([signs, signs], dim=1)[:, : 2**n_angles] / 2
    phases = torch.tensor([pi / 2, 0.0], dtype=torch.float64).repeat_interleave(signs.shape[1])[: 2**n_angles]
    angles = pi * _bits(n_angles).T.double()
    features = (angles @ frequencies + phases).sin()
    coefficients = torch.linalg.solve(features, values(angles).flatten(1))
    return _Table(*(part.to(device, dtype).contiguous() for part in (frequencies, phases, coefficients)))


def _circuit(angles: Tensor, n: int, entangler: str) -> Tensor:
    """Matrices, to be multiplied from the right, of the layers with `angles`, `(rows, layers * n)` → `(rows, 2**n, 2**n)`."""
    bits = _bits(n).double()
    # R_Y(θ) = [[cos θ/2, -sin θ/2], [sin θ/2, cos θ/2]]: entry (row, column) is cos(θ/2 + (column - row) π/2). Transposed,
    # since it acts from the right; the permutation acts first and so reorders what are now the rows.
    shifts = (bits.unsqueeze(2) - bits.unsqueeze(1)) * pi / 2
    _, inverse = _permutation(n, entangler, torch.device("cpu"))
    matrix = torch.eye(2**n, dtype=torch.float64).expand(len(angles), -1, -1)
    for layer in angles.split(n, dim=1) if angles.shape[1] else ():
        matrix = matrix @ (layer.view(-1, n, 1, 1) / 2 + shifts).cos().prod(dim=1)[:, inverse]
    return matrix


def _plus(n: int) -> Tensor:
    """H on every qubit of |0…0⟩."""
    return torch.full((1, 2**n), 2 ** (-n / 2), dtype=torch.float64)


@_constant
def _encoding(n: int, dtype: torch.dtype, device: torch.device) -> _Table:
    """x → the state `(2**n,)` that H and R_Y(x) prepare from |0…0⟩."""
    return _table(n, lambda x: _plus(n) @ _circuit(x, n, "none"), dtype, device)


@_constant
def _layer(n: int, entangler: str, dtype: torch.dtype, device: torch.device) -> _Table:
    """theta of one layer → its matrix `(4**n,)`."""
    return _table(n, lambda theta: _circuit(theta, n, entangler), dtype, device)


@_constant
def _encoded_layers(n: int, entangler: str, depth: int, dtype: torch.dtype, device: torch.device) -> _Table:
    """theta → the matrix `(4**n,)` that takes the features of x to the state after all layers."""
    encode = _encoding(n, torch.float64, torch.device("cpu")).coefficients
    return _table(n * depth, lambda theta: encode @ _circuit(theta, n, entangler), dtype, device)
