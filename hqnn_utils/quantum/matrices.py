"""Gates as arrays of NumPy: their matrices, and the tables from which products of rotations follow at any angles.

Every entry of a product of m rotations is linear in 2**m features: the sines of sums of half of the m angles. So features
times a table are its matrix. Derived in book/foundations/simulation.
"""

from collections.abc import Sequence
from functools import cache, reduce
from math import pi

import numpy as np
from numpy import ndarray

from hqnn_utils.quantum.tracing import Fixed, Gate, Rotation

PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}

TO_Z = {"X": np.array([[1, 1], [1, -1]]) / 2**0.5, "Y": np.array([[1, -1j], [1, 1j]]) / 2**0.5}
"""The gate between which and whose inverse a rotation about Z is one about this axis."""


def bits(n: int, *places: int) -> ndarray:
    """Bit of a qubit, or of each of several, or of all, in each basis state of n qubits, the first leftmost: `(…, 2**n)`."""
    shifts = n - 1 - np.array(places if places else range(n), dtype=int)
    found = (np.arange(2**n) >> shifts[:, None]) & 1
    return found[0] if len(places) == 1 else found


def numbers_of(wires: Sequence[int], layout: Sequence[int]) -> ndarray:
    """The number that the bits of some qubits are, in each basis state of all, `(2**n,)`."""
    places = [layout.index(wire) for wire in wires]
    return 2 ** np.arange(len(places))[::-1] @ bits(len(layout), *places).reshape(len(places), -1)


def signs(word: str, wires: Sequence[int], layout: Sequence[int]) -> ndarray:
    """The outcome, ±1, of a word of Z and I in each basis state, `(2**n,)`."""
    found = np.ones(2 ** len(layout))
    for wire, letter in zip(wires, word, strict=True):
        if letter == "Z":
            found *= 1.0 - 2 * bits(len(layout), layout.index(wire))
    return found


def zero(n: int) -> ndarray:
    """|0…0⟩ of n qubits, as a row."""
    return np.eye(1, 2**n)


def is_complex(array: ndarray) -> bool:
    """Whether some of its numbers are."""
    return bool(np.abs(np.imag(array)).max(initial=0) > 1e-14)


def embedded(matrix: ndarray, wires: Sequence[int], all_wires: Sequence[int]) -> ndarray:
    """A matrix on some wires as one on all, in their order."""
    n, k = len(all_wires), len(wires)
    order = [*wires, *(wire for wire in all_wires if wire not in wires)]
    axes = [order.index(wire) for wire in all_wires]
    whole = np.kron(matrix, np.eye(2 ** (n - k))).reshape([2] * 2 * n)
    return whole.transpose([*axes, *(n + axis for axis in axes)]).reshape(2**n, 2**n)


def word_matrix(word: str) -> ndarray:
    """The product of Pauli matrices, one for each wire."""
    return reduce(np.kron, (PAULI[letter] for letter in word), np.eye(1))


@cache
def features(m: int) -> tuple[ndarray, ndarray, ndarray]:
    """Frequencies and phases of the features of m angles; and the features where every angle is 0 or π, inverted.

    The features are sines of all sums ±a₁/2 … ±aₘ/2 and of the same, a quarter turn on. There are as many such places as
    features, and there the features are independent: so a function that is linear in them is known from its values there.
    """
    half = 1.0 - 2 * bits(m)[:, : 2 ** max(m - 1, 0)]  # the signs of a sum; the first angle's is always +
    frequencies = np.concatenate([half, half], axis=1)[:, : 2**m] / 2
    phases = np.repeat([pi / 2, 0.0], half.shape[1])[: 2**m]
    return frequencies, phases, np.linalg.inv(np.sin(pi * bits(m).T @ frequencies + phases))


def table(gates: Sequence[Gate], wires: Sequence[int], first: ndarray) -> ndarray:
    """What gates make of rows of states `first`, as coefficients `(2**m, rows, 2**n)` of the features of their m angles.

    States are rows, as they lie in memory. Of all basis states these are the matrices that act on them from the right.
    """
    m = sum(isinstance(gate, Rotation) for gate in gates)
    values = np.broadcast_to(first.astype(complex), (2**m, *first.shape)).copy()
    turned = iter(bits(m).astype(bool))
    for gate in gates:
        if isinstance(gate, Rotation):
            there = next(turned)
            values[there] = values[there] @ (-1j * embedded(word_matrix(gate.word), gate.wires, wires)).T
        elif isinstance(gate, Fixed):
            values = values @ embedded(gate.matrix, gate.wires, wires).T
    return np.tensordot(features(m)[2], values, 1)


def exchange(gates: Sequence[Fixed], layout: Sequence[int]) -> tuple[ndarray, ndarray]:
    """Gates that only exchange basis states, up to phases: amplitude i becomes `phases[i]` times amplitude `order[i]`."""
    n = len(layout)
    order, phases = np.arange(2**n), np.ones(2**n, dtype=complex)
    for gate in gates:
        source = np.abs(gate.matrix).argmax(axis=1)  # the column of each row's one entry
        row, weights = numbers_of(gate.wires, layout), 2 ** np.arange(len(gate.wires))[::-1]
        flips = ((source[row] ^ row)[None] // weights[:, None]) & 1
        there = np.arange(2**n) ^ (2 ** (n - 1 - np.array([layout.index(wire) for wire in gate.wires])) @ flips)
        order, phases = order[there], gate.matrix[row, source[row]] * phases[there]
    return order, phases
