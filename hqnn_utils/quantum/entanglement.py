"""How entangled a pure state is, and what the entanglers of a circuit do to its outputs.

A state vector of n qubits has shape `(2**n,)`, qubit 0 leftmost in |q₀q₁…⟩. Derived in book/foundations/entanglement
and entangled_circuits, the second part in book/experiments/quantum_entanglement.
"""

from collections.abc import Callable, Sequence
from math import factorial, pi

import numpy as np
import pennylane as qml
import torch
from jaxtyping import Float, Inexact, Int
from numpy import ndarray
from torch import Tensor

from hqnn_utils.checks import finite
from hqnn_utils.quantum.angles import CircuitAngles
from hqnn_utils.quantum.circuits import cnot_pairs, expval_z, given, layered
from hqnn_utils.quantum.compilation import key_of, ready
from hqnn_utils.quantum.fusion import Plan
from hqnn_utils.quantum.tracing import Definition, Fixed, Rotation


def schmidt_coefficients(state: Inexact[ndarray, "*batch dim"], part: Sequence[int] = (0,)) -> Float[ndarray, "*batch rank"]:
    """Schmidt coefficients between the qubits of `part` and all others, largest first.

    Args:
        state: one or many, normalised, `2**n` amplitudes, real or complex.
        part: the qubits on one side, neither none nor all.

    Returns:
        Singular values λ_k ≥ 0 of the amplitudes written as a matrix (part, rest), with Σ λ_k² = 1.

    Raises:
        ValueError: a state that is not normalised (of NaN, say) or not of 2**n amplitudes, or a part that is no proper subset.

    Source: Nielsen and Chuang, theorem 2.7.
    """
    state = np.asarray(state)
    size = state.shape[-1]
    n_qubits = size.bit_length() - 1
    norms = np.linalg.norm(state, axis=-1).ravel()
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-6))  # NaN is wrong too
    if 2**n_qubits != size or len(wrong):
        first = (*wrong, 0)[0]
        which = f" in state {first} of {len(norms)}" if len(norms) > 1 else ""
        raise ValueError(f"a state needs 2**n amplitudes of norm 1, got {size} of norm {norms[first]:.6f}{which}")
    part = list(part)
    if not 0 < len(set(part)) == len(part) < n_qubits or not set(part) <= set(range(n_qubits)):
        raise ValueError(f"part must be some, not all, of the qubits 0 to {n_qubits - 1}, got {part}")
    batch = state.shape[:-1]
    axes = part + [q for q in range(n_qubits) if q not in part]
    axes = [*range(len(batch)), *(len(batch) + q for q in axes)]
    matrix = state.reshape(*batch, *[2] * n_qubits).transpose(axes).reshape(*batch, 2 ** len(part), -1)  # (part, rest)
    return np.linalg.svd(matrix, compute_uv=False)


def schmidt_rank(state: Inexact[ndarray, " dim"], part: Sequence[int] = (0,), tolerance: float = 1e-8) -> int:
    """Number of Schmidt coefficients above `tolerance`: 1 exactly when the state is a product of part and rest.

    A tolerance outside [0, 1) is a ValueError.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
    return int((schmidt_coefficients(state, part) > tolerance).sum())


def entropy(state: Inexact[ndarray, " dim"], part: Sequence[int] = (0,)) -> float:
    """Entanglement entropy -Σ λ_k² log₂ λ_k² in bits: 0 for a product, at most the number of qubits of the smaller side.

    Source: Nielsen and Chuang, sec. 11.3.
    """
    weights = schmidt_coefficients(state, part) ** 2
    weights = weights[weights > 1e-15]  # x log x → 0
    return float(abs(-(weights * np.log2(weights)).sum()))


def concurrence(state: Inexact[ndarray, " dim"]) -> float:
    """Concurrence 2|ad - bc| of a two-qubit state (a, b, c, d): 0 for a product, 1 for a Bell state.

    Raises:
        ValueError: not a normalised state of two qubits.

    Source: Wootters 1998, eq. (7); equal to 2 λ₁ λ₂.
    """
    if np.size(state) != 4:
        raise ValueError(f"concurrence is defined for two qubits (4 amplitudes), got {np.size(state)}")
    return float(2 * np.prod(schmidt_coefficients(state)))


def meyer_wallach(state: Inexact[ndarray, "*batch dim"]) -> float | Float[ndarray, "*batch"]:
    """Meyer–Wallach measure Q = 2 (1 - mean purity of the single qubits), in [0, 1]: 0 for a product of all qubits.

    Of one state a number, of many an array of them.

    Source: Meyer and Wallach 2002; in this form Brennen 2003. For two qubits it is the squared concurrence.
    """
    n_qubits = np.shape(state)[-1].bit_length() - 1
    purities = [(schmidt_coefficients(state, [qubit]) ** 4).sum(axis=-1) for qubit in range(n_qubits)]
    measure = 2 * (1 - np.mean(purities, axis=0))
    return measure if measure.ndim else float(measure)


def entangling_capability(sample_state: Callable[[np.random.Generator], ndarray], samples: int, seed: int = 0) -> ndarray:
    """Meyer–Wallach measures of a circuit's states at random parameters; their mean is its entangling capability.

    Args:
        sample_state: draws parameters from the generator it is given and returns the state they prepare.
        samples: number of draws, at least one, else a ValueError.
        seed: of the draws.

    Source: Sim, Johnson and Aspuru-Guzik 2019, eq. (18).
    """
    if not samples >= 1:
        raise ValueError(f"an entangling capability needs at least one sample, got {samples}")
    generator = np.random.default_rng(seed)
    return np.array([meyer_wallach(sample_state(generator)) for _ in range(samples)])


def interaction_variances(
    f: Callable[[Float[ndarray, "points n"]], Float[ndarray, "points outputs"]],
    n: int,
    angles: Float[ndarray, "samples n"] | None = None,
) -> Float[ndarray, "outputs n"]:
    """How much of the variance of a circuit's outputs is due to 1, 2, … n of its inputs acting together, exactly.

    Args:
        f: outputs for rows of angles in radians, each of which enters through one R_Y (or any gate of frequency 1).
        n: number of angles, few: `f` is asked at 3**n points.
        angles: the distribution of each input, as samples; by default uniform over the circle. Inputs are independent.

    Returns:
        The variance of each order, which add up to that of the output: the functional analysis of variance (Sobol 1993).

    Raises:
        NotFinite: an angle, or an output; names the sample, or the point and the output.

    An output is a sum of products of 1, cos xᵢ or sin xᵢ, one factor for each input, so 3**n coefficients tell all of it; the
    order of a term is the number of inputs whose factor is not constant. Derived in book/experiments/quantum_entanglement.
    """

    def basis(x: ndarray) -> ndarray:
        return np.stack([np.ones_like(x), np.cos(x), np.sin(x)], axis=-1)

    places = 2 * pi / 3 * np.arange(3)
    points = np.stack(np.meshgrid(*[places] * n, indexing="ij"), axis=-1).reshape(-1, n)
    outputs = np.asarray(f(points), dtype=float).reshape(len(points), -1)
    finite("outputs of f", outputs, point=points.round(3).tolist(), output=range(outputs.shape[1]))
    coefficients = outputs.reshape(*[3] * n, -1)
    if angles is not None:
        angles = finite("angles", np.asarray(angles, dtype=float), sample=range(len(angles)))
    solve = np.linalg.inv(basis(places))
    for axis in range(n):
        # Functions that are orthonormal under the distribution, the first of them constant: Gram-Schmidt, by QR.
        if angles is None:
            change = np.sqrt(np.diag([1.0, 0.5, 0.5]))
        else:
            functions = basis(angles[:, axis]) / np.sqrt(len(angles))
            padded = np.concatenate([functions, np.zeros((3, 3))])  # one sample may be all
            change = np.asarray(np.linalg.qr(padded, mode="r"))  # older stubs know one result of all modes
        coefficients = np.moveaxis(np.tensordot(change @ solve, coefficients, axes=(1, axis)), 0, axis)
    order = (np.indices([3] * n) > 0).sum(axis=0)
    return np.stack([(coefficients[order == k] ** 2).sum(axis=0) for k in range(1, n + 1)], axis=-1)


def orders_at_zero(n_qubits: int, depth: int, entangler: str = "ring") -> Int[ndarray, " n_qubits"]:
    """Of how many inputs each output of the layered circuit is a product while its trainable angles are zero.

    Then only CNOTs act on the encoded inputs. Seen from the measurement, a CNOT turns Z of its target into Z of both and
    leaves Z of its control, so Z_i becomes a product of Z_j over a set of wires, and ⟨Z_i⟩ one of the -sin x_j of this set. An
    output of order 1 is a function of one input alone.

    Args:
        n_qubits, depth, entangler: of `circuits.layered`.

    Derived in book/evidence/first_order.
    """
    wires = np.eye(n_qubits, dtype=bool)  # (outputs, wires)
    for control, target in reversed(cnot_pairs(n_qubits, entangler) * depth):
        wires[:, control] ^= wires[:, target]
    return wires.sum(axis=1)


def every_subset(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth n"], entangler: str = "ring"
) -> Float[Tensor, "subsets *batch n"]:
    """⟨Z_i⟩ of the layered circuit with every subset of its CNOTs, the others left out.

    Args:
        x, theta, entangler: as for `statevector.expval_z`.

    Returns:
        For each subset s, counted from 0 (no CNOT) to all: CNOT j of layer l is there if bit `l * k + j` of s is 1, where an
        entangler has k CNOTs. Memory: `2**(depth * k)` times that of one circuit.
    """
    n = int(x.shape[-1])
    pairs = cnot_pairs(n, entangler)
    cnot = qml.CNOT.compute_matrix().astype(complex)
    definition = Definition(given(layered, entangler="none"), (("theta", (0, n)),), given(expval_z, n), tuple(range(n)))
    encoding = ready(key_of(definition), n, x.dtype, x.device)
    layout = encoding.program.plan.layout
    cnots = [[Fixed(pair, cnot) for j, pair in enumerate(pairs) if s >> j & 1] for s in range(2 ** len(pairs))]
    subsets = [Plan(gates, n, (0, 0), layout).tensors(x.dtype, x.device) for gates in cnots]
    column = Plan([Rotation((i,), "Y", i, data=False) for i in range(n)], n, (n, 0), layout).tensors(x.dtype, x.device)
    psi = encoding.states(x.reshape(-1, n), [theta[:0]])
    for layer in theta:
        angles = CircuitAngles(layer, psi[:1, :0])
        psi = torch.cat([column.onward(subset.onward(psi, angles), angles) for subset in subsets])
    return encoding.readout.exactly(psi).unflatten(0, (-1, *x.shape[:-1]))


def shapley(values: Float[ndarray, "subsets *shape"]) -> Float[ndarray, "players *shape"]:
    """What each player contributes to the value of all: the mean, over all orders of arrival, of what it adds.

    Args:
        values: of every subset s of the players, player j in it if bit j of s is 1; `2**players` of them.

    Returns:
        Shapley values; they add up to `values[-1] - values[0]`.

    Raises:
        ValueError: not `2**players` values.
        NotFinite: a value; names the subset.

    Source: Shapley 1953. Used for CNOTs in book/experiments/quantum_entanglement.
    """
    players = len(values).bit_length() - 1
    if len(values) != 2**players:
        raise ValueError(f"Shapley values need a value for every subset, 2**players of them, got {len(values)}")
    finite("values", values, subset=range(len(values)))
    subsets = np.arange(len(values))
    others = np.array([int(s).bit_count() for s in subsets])  # how many came before, where the player is not in s
    shares = [factorial(k) * factorial(players - k - 1) / factorial(players) for k in range(players)]
    contributions = []
    for player in range(players):
        without = subsets[subsets >> player & 1 == 0]
        weights = np.array(shares)[others[without]]
        contributions.append(np.tensordot(weights, values[without | 1 << player] - values[without], axes=1))
    return np.stack(contributions) if contributions else np.zeros((0, *values.shape[1:]))
