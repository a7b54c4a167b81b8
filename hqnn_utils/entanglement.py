"""How entangled a pure state is: Schmidt coefficients and what follows from them.

A state vector of n qubits has shape `(2**n,)`, qubit 0 leftmost in |q₀q₁…⟩. Derived in book/foundations/entanglement.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray


def schmidt_coefficients(state: Inexact[ndarray, " dim"], part: Sequence[int] = (0,)) -> Float[ndarray, " rank"]:
    """Schmidt coefficients between the qubits of `part` and all others, largest first.

    Args:
        state: normalised, `2**n` amplitudes, real or complex.
        part: the qubits on one side, neither none nor all.

    Returns:
        Singular values λ_k ≥ 0 of the amplitudes written as a matrix (part, rest), with Σ λ_k² = 1.

    Raises:
        ValueError: a state that is not normalised or not of 2**n amplitudes, or a part that is no proper subset.

    Source: Nielsen and Chuang, theorem 2.7.
    """
    state = np.asarray(state)
    n_qubits = int(state.size).bit_length() - 1
    if 2**n_qubits != state.size or abs(np.linalg.norm(state) - 1) > 1e-6:
        raise ValueError(f"a state needs 2**n amplitudes of norm 1, got {state.size} of norm {np.linalg.norm(state):.6f}")
    part = list(part)
    if not 0 < len(set(part)) == len(part) < n_qubits or not set(part) <= set(range(n_qubits)):
        raise ValueError(f"part must be some, not all, of the qubits 0 to {n_qubits - 1}, got {part}")
    axes = part + [q for q in range(n_qubits) if q not in part]
    matrix = state.reshape([2] * n_qubits).transpose(axes).reshape(2 ** len(part), -1)  # (part, rest)
    return np.linalg.svd(matrix, compute_uv=False)


def schmidt_rank(state: Inexact[ndarray, " dim"], part: Sequence[int] = (0,), tolerance: float = 1e-8) -> int:
    """Number of Schmidt coefficients above `tolerance`: 1 exactly when the state is a product of part and rest."""
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


def meyer_wallach(state: Inexact[ndarray, " dim"]) -> float:
    """Meyer–Wallach measure Q = 2 (1 - mean purity of the single qubits), in [0, 1]: 0 for a product of all qubits.

    Source: Meyer and Wallach 2002; in this form Brennen 2003. For two qubits it is the squared concurrence.
    """
    n_qubits = int(np.size(state)).bit_length() - 1
    purities = [(schmidt_coefficients(state, [qubit]) ** 4).sum() for qubit in range(n_qubits)]
    return float(2 * (1 - np.mean(purities)))


def entangling_capability(sample_state: Callable[[np.random.Generator], ndarray], samples: int, seed: int = 0) -> ndarray:
    """Meyer–Wallach measures of a circuit's states at random parameters; their mean is its entangling capability.

    Args:
        sample_state: draws parameters from the generator it is given and returns the state they prepare.
        samples: number of draws.
        seed: of the draws.

    Source: Sim, Johnson and Aspuru-Guzik 2019, eq. (18).
    """
    generator = np.random.default_rng(seed)
    return np.array([meyer_wallach(sample_state(generator)) for _ in range(samples)])
