"""Entanglement measures, against PennyLane's and against states whose entanglement is known."""

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils.circuits import bell, layered, separable, state
from hqnn_utils.entanglement import (
    concurrence,
    entangling_capability,
    entropy,
    meyer_wallach,
    schmidt_coefficients,
    schmidt_rank,
)

BELL = np.array([1, 0, 0, 1]) / np.sqrt(2)
GHZ = np.eye(8)[[0, 7]].sum(axis=0) / np.sqrt(2)
W = np.eye(8)[[1, 2, 4]].sum(axis=0) / np.sqrt(3)


def random_state(n_qubits: int, seed: int) -> np.ndarray:
    """Complex amplitudes, uniform on the sphere."""
    generator = np.random.default_rng(seed)
    amplitudes = generator.normal(size=2**n_qubits) + 1j * generator.normal(size=2**n_qubits)
    return amplitudes / np.linalg.norm(amplitudes)


def product(*factors: np.ndarray) -> np.ndarray:
    """Factors side by side, the first on the leftmost qubits."""
    whole = np.ones(1)
    for factor in factors:
        whole = np.kron(whole, factor)
    return whole


@st.composite
def states_and_parts(draw):
    """(state, part, rest) of two to five qubits, the part in any order."""
    n = draw(st.integers(2, 5))
    order = draw(st.permutations(range(n)))
    cut = draw(st.integers(1, n - 1))
    return random_state(n, draw(st.integers(0, 2**32 - 1))), order[:cut], order[cut:]


@given(states_and_parts())
def test_entropy_is_pennylanes(drawn):
    amplitudes, part, rest = drawn
    oracle = qml.math.vn_entanglement_entropy(qml.math.dm_from_state_vector(amplitudes), sorted(part), sorted(rest), base=2)
    assert entropy(amplitudes, part) == pytest.approx(float(oracle), abs=1e-8)


@given(states_and_parts())
def test_squared_schmidt_coefficients_are_the_eigenvalues_of_the_reduced_state(drawn):
    amplitudes, part, _ = drawn
    eigenvalues = np.linalg.eigvalsh(qml.math.reduce_statevector(amplitudes, sorted(part)))[::-1]
    found = schmidt_coefficients(amplitudes, part) ** 2
    np.testing.assert_allclose(found, eigenvalues[: len(found)], atol=1e-10)


@given(states_and_parts())
def test_schmidt_coefficients_fall_and_their_squares_add_up_to_one(drawn):
    amplitudes, part, _ = drawn
    found = schmidt_coefficients(amplitudes, part)
    assert (np.diff(found) <= 0).all()
    assert (found**2).sum() == pytest.approx(1)


@given(states_and_parts())
def test_both_sides_of_a_cut_see_the_same_entanglement(drawn):
    amplitudes, part, rest = drawn
    np.testing.assert_allclose(schmidt_coefficients(amplitudes, part), schmidt_coefficients(amplitudes, rest), atol=1e-10)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000))
def test_a_product_has_rank_one_and_no_entropy(left, right, seed):
    whole = product(random_state(left, seed), random_state(right, seed + 1))
    part = range(left)
    assert (schmidt_rank(whole, part), entropy(whole, part)) == (1, pytest.approx(0, abs=1e-10))


@pytest.mark.parametrize(
    ("amplitudes", "part", "rank", "bits"),
    [
        (BELL, (0,), 2, 1),
        (GHZ, (1,), 2, 1),
        (GHZ, (0, 2), 2, 1),
        (W, (2,), 2, np.log2(3) - 2 / 3),
        (product(BELL, BELL), (0, 1), 1, 0),
        (product(BELL, BELL), (0, 2), 4, 2),  # both pairs are cut
        (product(BELL, BELL), (1,), 2, 1),
    ],
)
def test_rank_and_entropy_of_known_states(amplitudes, part, rank, bits):
    assert schmidt_rank(amplitudes, part) == rank
    assert entropy(amplitudes, part) == pytest.approx(bits, abs=1e-12)


def test_the_rank_counts_the_coefficients_above_the_tolerance():
    nearly = np.array([np.cos(1e-3), 0, 0, np.sin(1e-3)])
    assert (schmidt_rank(nearly), schmidt_rank(nearly, tolerance=1e-2)) == (2, 1)


@pytest.mark.parametrize("measure", [entropy, schmidt_rank, schmidt_coefficients])
def test_the_first_qubit_is_the_part_unless_told_otherwise(measure):
    amplitudes = product(random_state(1, 0), BELL)  # only the other qubits are entangled
    np.testing.assert_allclose(measure(amplitudes), measure(amplitudes, [0]))


def test_the_slides_two_states_differ_in_entanglement():
    found = [concurrence(state(circuit, 2).numpy()) for circuit in (bell, separable)]
    assert found == pytest.approx([1, 0], abs=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_concurrence_is_twice_the_determinant(seed):
    a, b, c, d = amplitudes = random_state(2, seed)
    assert concurrence(amplitudes) == pytest.approx(2 * abs(a * d - b * c), abs=1e-10)


@given(st.integers(0, 2**32 - 1))
def test_for_two_qubits_meyer_wallach_is_the_squared_concurrence(seed):
    amplitudes = random_state(2, seed)
    assert meyer_wallach(amplitudes) == pytest.approx(concurrence(amplitudes) ** 2, abs=1e-10)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_meyer_wallach_is_made_of_pennylanes_purities(n_qubits, seed):
    amplitudes = random_state(n_qubits, seed)
    density = qml.math.dm_from_state_vector(amplitudes)
    purities = [float(qml.math.purity(density, [qubit])) for qubit in range(n_qubits)]
    assert meyer_wallach(amplitudes) == pytest.approx(2 * (1 - np.mean(purities)), abs=1e-8)


@pytest.mark.parametrize(
    ("amplitudes", "q"), [(BELL, 1), (GHZ, 1), (W, 8 / 9), (product(BELL, [1, 0]), 2 / 3), (np.eye(8)[3], 0)]
)
def test_meyer_wallach_of_known_states(amplitudes, q):
    assert meyer_wallach(amplitudes) == pytest.approx(q, abs=1e-12)


def test_the_layered_circuit_is_entangled_by_its_entangler_alone():
    x, theta = torch.tensor([0.3, -0.8, 1.1]), torch.tensor([[0.5, 1.2, -0.4]])
    found = {name: meyer_wallach(state(layered, 3, x, theta, name).numpy()) for name in ("none", "ring")}
    assert found["none"] == pytest.approx(0, abs=1e-6)
    assert found["ring"] > 0.1


def test_the_entangling_capability_of_random_states_is_the_known_mean():
    found = entangling_capability(lambda generator: random_state(2, int(generator.integers(2**31))), samples=400)
    # A Haar-random pair has mean purity 4/5 of each qubit, hence Q = 2/5.
    assert found.mean() == pytest.approx(0.4, abs=5 * found.std() / np.sqrt(400))


def test_the_entangling_capability_draws_as_often_as_asked_and_the_same_for_a_seed():
    def sample(generator):
        return random_state(3, int(generator.integers(2**31)))

    first, again, other = (entangling_capability(sample, 6, seed) for seed in (1, 1, 2))
    assert len(first) == 6
    assert (first == again).all()
    assert (first != other).all()


@pytest.mark.parametrize("amplitudes", [np.ones(4), np.ones(3) / np.sqrt(3), np.zeros(4), np.array([])])
def test_what_is_no_state_is_refused(amplitudes):
    with pytest.raises(ValueError, match=r"a state needs 2\*\*n amplitudes of norm 1"):
        schmidt_coefficients(amplitudes)


@pytest.mark.parametrize("part", [[], [0, 1, 2], [3], [-1], [0, 0]])
def test_a_part_that_is_not_some_of_the_qubits_is_refused(part):
    with pytest.raises(ValueError, match="part must be some, not all, of the qubits 0 to 2"):
        schmidt_coefficients(GHZ, part)


def test_concurrence_of_three_qubits_is_refused():
    with pytest.raises(ValueError, match=r"concurrence is defined for two qubits \(4 amplitudes\), got 8"):
        concurrence(GHZ)


@pytest.mark.parametrize("amplitudes", [np.array([1.0, 0.0])])
def test_a_single_qubit_has_no_entanglement_to_measure(amplitudes):
    with pytest.raises(ValueError, match="part must be some"):
        entropy(amplitudes)
