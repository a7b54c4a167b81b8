"""Entanglement measures, against PennyLane's and against states whose entanglement is known; what entanglers do to outputs."""

from itertools import permutations
from itertools import product as combinations

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils.checks import NotFinite
from hqnn_utils.quantum import statevector
from hqnn_utils.quantum.circuits import ENTANGLERS, bell, cnot_pairs, expval_z, layered, prepared_state, qnode, separable
from hqnn_utils.quantum.entanglement import (
    concurrence,
    entangling_capability,
    entropy,
    every_subset,
    interaction_variances,
    meyer_wallach,
    orders_at_zero,
    schmidt_coefficients,
    schmidt_rank,
    shapley,
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
    found = [concurrence(prepared_state(circuit, 2).numpy()) for circuit in (bell, separable)]
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
    found = {name: meyer_wallach(prepared_state(layered, 3, x, theta, name).numpy()) for name in ("none", "ring")}
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


# Many states at once


def random_states(n_qubits: int, *batch: int) -> np.ndarray:
    return np.array([random_state(n_qubits, seed) for seed in range(int(np.prod(batch)))]).reshape(*batch, 2**n_qubits)


@pytest.mark.parametrize("batch", [(1,), (5,), (2, 3)])
@pytest.mark.parametrize("part", [[0], [2], [3, 1], [2, 0, 1]])
def test_schmidt_coefficients_of_many_states_are_those_of_each(batch, part):
    states = random_states(4, *batch)
    found = schmidt_coefficients(states, part)
    assert found.shape[:-1] == batch
    for number in np.ndindex(batch):
        np.testing.assert_allclose(found[number], schmidt_coefficients(states[number], part), atol=1e-12)


@pytest.mark.parametrize("batch", [(1,), (5,), (2, 3)])
def test_meyer_wallach_of_many_states_is_that_of_each(batch):
    states = random_states(3, *batch)
    found = meyer_wallach(states)
    assert found.shape == batch
    np.testing.assert_allclose(found.ravel(), [meyer_wallach(each) for each in states.reshape(-1, 8)])


def test_meyer_wallach_of_one_state_is_a_number():
    assert type(meyer_wallach(GHZ)) is float


def test_one_wrong_state_among_many_is_refused_with_its_norm():
    states = random_states(2, 3)
    states[1] *= 2
    with pytest.raises(ValueError, match=r"a state needs 2\*\*n amplitudes of norm 1, got 4 of norm 2.000000"):
        schmidt_coefficients(states)


@pytest.mark.parametrize("size", [3, 6])
def test_many_states_of_no_number_of_qubits_are_refused(size):
    with pytest.raises(ValueError, match=rf"a state needs 2\*\*n amplitudes of norm 1, got {size} of norm 1.000000"):
        schmidt_coefficients(np.ones((4, size)) / np.sqrt(size))


# Interactions


def circuit_outputs(n: int, entangler: str, depth: int = 2, seed: int = 0):
    """⟨Z_i⟩ of a random layered circuit on PennyLane, for rows of angles."""
    theta = 3 * torch.randn(depth, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    node = qnode(layered, lambda: expval_z(n), n)
    return lambda rows: torch.stack(node(torch.as_tensor(rows), theta, entangler), dim=-1).numpy()


def trigonometric(n: int, seed: int):
    """A random sum of products of 1, cos and sin, two outputs: all that a circuit can give, and more."""
    weights = np.random.default_rng(seed).normal(size=(2, *[3] * n))

    def f(rows):
        total = np.zeros((len(rows), 2))
        for term in combinations(range(3), repeat=n):
            factors = [(np.ones_like, np.cos, np.sin)[kind](rows[:, axis]) for axis, kind in enumerate(term)]
            total += np.prod(factors, axis=0)[:, None] * weights[(slice(None), *term)]
        return total

    return f


def analysis_of_variance(f, values: np.ndarray) -> np.ndarray:
    """The oracle: mean over all combinations of the `values` of each input, then the effect of each set of inputs in turn."""
    n = values.shape[1]
    grid = np.array(list(combinations(*values.T)))
    outputs = f(grid).reshape(*[len(values)] * n, -1)
    effects, variances = {}, np.zeros((outputs.shape[-1], n))
    for chosen in combinations([False, True], repeat=n):
        others = tuple(axis for axis in range(n) if not chosen[axis])
        effect = outputs.mean(axis=others, keepdims=True)
        for smaller, known in effects.items():
            if all(c or not s for c, s in zip(chosen, smaller, strict=True)):
                effect = effect - known
        effects[chosen] = effect
        if any(chosen):
            variances[:, sum(chosen) - 1] += (effect**2).mean(axis=tuple(range(n)))
    np.testing.assert_allclose(variances.sum(axis=1), outputs.reshape(-1, variances.shape[0]).var(axis=0))
    return variances


@given(st.integers(1, 3), st.integers(0, 1000))
def test_interactions_of_uniform_angles_are_the_analysis_of_variance_on_a_grid(n, seed):
    f, circle = trigonometric(n, seed), np.tile(2 * np.pi * np.arange(6)[:, None] / 6 + 0.3, n)
    np.testing.assert_allclose(interaction_variances(f, n), analysis_of_variance(f, circle), atol=1e-10)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 1000))
def test_interactions_of_given_angles_are_the_analysis_of_variance_of_all_their_combinations(n, samples, seed):
    f, angles = trigonometric(n, seed), np.random.default_rng(seed).normal(0.5, 1, size=(samples, n))
    np.testing.assert_allclose(interaction_variances(f, n, angles), analysis_of_variance(f, angles), atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_interactions_of_a_circuit_are_the_squares_of_pennylanes_fourier_coefficients(n, entangler):
    f = circuit_outputs(n, entangler)
    for output, found in enumerate(interaction_variances(f, n)):
        coefficients = np.abs(qml.fourier.coefficients(lambda *x, i=output: f(np.reshape(x, (1, n)))[0, i], n, 1)) ** 2
        orders = [sum(index != 0 for index in number) for number in np.ndindex(coefficients.shape)]
        expected = np.bincount(orders, coefficients.ravel(), minlength=n + 1)[1:]
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("given_angles", [False, True])
def test_the_orders_add_up_to_the_variance_of_random_angles(given_angles):
    n, draws, generator = 4, 20_000, np.random.default_rng(0)
    f, angles = circuit_outputs(n, "ring"), generator.normal(0.3, 0.6, size=(50, n)) if given_angles else None
    if given_angles:
        rows = np.stack([generator.choice(angles[:, axis], draws) for axis in range(n)], axis=1)
    else:
        rows = generator.uniform(0, 2 * np.pi, size=(draws, n))
    outputs = f(rows)
    squares = (outputs - outputs.mean(axis=0)) ** 2
    standard_error = squares.std(axis=0) / np.sqrt(draws)
    found = interaction_variances(f, n, angles)
    assert found.shape == (n, n)
    assert (abs(found.sum(axis=1) - squares.mean(axis=0)) < 5 * standard_error).all()


@pytest.mark.parametrize("inputs", [(1,), (0, 2), (0, 1, 2), (3, 1, 2, 0)])
def test_a_product_of_sines_has_its_own_order_only(inputs):
    variances = interaction_variances(lambda rows: np.sin(rows[:, inputs]).prod(axis=1, keepdims=True), 4)
    np.testing.assert_allclose(variances, [[0.5 ** len(inputs) * (k == len(inputs)) for k in range(1, 5)]], atol=1e-12)


@pytest.mark.parametrize("angles", [None, np.random.default_rng(0).normal(size=(20, 3))], ids=["uniform", "given"])
def test_a_separable_circuit_has_the_first_order_only_and_a_ring_more(angles):
    separable, ring = (interaction_variances(circuit_outputs(3, entangler), 3, angles) for entangler in ("none", "ring"))
    assert (separable[:, 0] > 0.01).all() and separable[:, 1:].max() < 1e-12
    assert (ring[:, 1:].sum(axis=1) > 0.01).any()


def test_a_constant_output_has_no_variance():
    np.testing.assert_allclose(interaction_variances(lambda rows: np.full((len(rows), 1), 3.0), 2), 0, atol=1e-25)


@pytest.mark.parametrize("constant", [0, 1, 2])
def test_an_input_that_is_always_the_same_takes_no_part(constant):
    f, angles = trigonometric(3, 0), np.random.default_rng(0).normal(size=(20, 3))
    angles[:, constant] = 0.7
    free = [axis for axis in range(3) if axis != constant]

    def of_the_others(rows):
        return f(np.insert(rows, constant, 0.7, axis=1))

    found, expected = interaction_variances(f, 3, angles), interaction_variances(of_the_others, 2, angles[:, free])
    np.testing.assert_allclose(found, np.pad(expected, [(0, 0), (0, 1)]), atol=1e-12)


@pytest.mark.parametrize("value", [0.0, np.pi / 2, 0.6, -2.7])
@pytest.mark.parametrize("samples", [1, 2, 100_000])  # so many round the moments
def test_of_constant_inputs_nothing_varies(samples, value):
    found = interaction_variances(trigonometric(2, 0), 2, np.full((samples, 2), value))
    np.testing.assert_allclose(found, 0, atol=1e-20)


# Every subset of the CNOTs


def with_cnots(x, theta, cnots) -> None:
    """The layered circuit in PennyLane with the CNOTs that are listed for each layer."""
    for i in range(len(x)):
        qml.Hadamard(i)
        qml.RY(x[i], i)
    for layer, pairs in zip(theta, cnots, strict=True):
        for pair in pairs:
            qml.CNOT(pair)
        for i in range(len(x)):
            qml.RY(layer[i], i)


def subset_inputs(n: int, depth: int, *batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(2 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((*batch, n), (depth, n)))


@pytest.mark.parametrize("entangler", ENTANGLERS)
@pytest.mark.parametrize(("n", "depth"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2)])
def test_each_subset_of_cnots_is_pennylanes_circuit_with_these(entangler, n, depth):
    x, theta = subset_inputs(n, depth, 1)
    pairs = cnot_pairs(n, entangler)
    found, node = every_subset(x, theta, entangler), qnode(with_cnots, lambda: expval_z(n), n)
    assert found.shape == (2 ** (depth * len(pairs)), 1, n)
    for subset in np.random.default_rng(0).permutation(len(found))[:16].tolist():
        bits = [subset >> number & 1 for number in range(depth * len(pairs))]
        cnots = [[pair for j, pair in enumerate(pairs) if bits[layer * len(pairs) + j]] for layer in range(depth)]
        torch.testing.assert_close(found[subset, 0], torch.stack(node(x[0], theta, cnots)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("depth", [1, 2])
def test_all_cnots_are_the_ring_and_none_the_separable_circuit(depth):
    x, theta = subset_inputs(3, depth, 5)
    found = every_subset(x, theta)
    torch.testing.assert_close(found[-1], statevector.expval_z(x, theta, "ring"))
    torch.testing.assert_close(found[0], statevector.expval_z(x, theta, "none"))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_every_subset_sees_every_row_alone(batch):
    x, theta = subset_inputs(3, 2, *batch)
    found = every_subset(x, theta)
    assert found.shape == (64, *batch, 3)
    for number in np.ndindex(batch):
        torch.testing.assert_close(found[(slice(None), *number)], every_subset(x[number], theta))


# Shares of the players


def games(players: int, *shape: int):
    """Random values of every subset of the players."""
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(2**players, *shape)))


@given(games(4))
def test_a_share_is_the_mean_of_what_a_player_adds_over_all_orders_of_arrival(values):
    added = []
    for order in permutations(range(4)):
        present, gains = 0, np.zeros(4)
        for player in order:
            gains[player] = values[present | 1 << player] - values[present]
            present |= 1 << player
        added.append(gains)
    np.testing.assert_allclose(shapley(values), np.mean(added, axis=0), atol=1e-12)


@given(st.integers(0, 6).flatmap(lambda players: games(players, 2)))
def test_shares_add_up_to_what_all_players_add(values):
    np.testing.assert_allclose(shapley(values).sum(axis=0), values[-1] - values[0], atol=1e-12)


@given(games(4))
def test_players_that_can_be_exchanged_have_the_same_share(values):
    subsets = np.arange(16)
    exchanged = subsets & 0b1010 | (subsets & 1) << 2 | subsets >> 2 & 1  # players 0 and 2
    shares = shapley(values + values[exchanged])
    assert shares[0] == pytest.approx(shares[2])


@given(games(4), st.integers(0, 3), st.floats(-5, 5))
def test_a_player_that_always_adds_the_same_has_that_as_its_share(values, player, gain):
    subsets = np.arange(16)
    assert shapley(values[subsets & ~(1 << player)] + gain * (subsets >> player & 1))[player] == pytest.approx(gain)


def test_shares_are_taken_of_each_of_many_games():
    values = np.random.default_rng(0).normal(size=(8, 2, 3))
    found = shapley(values)
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found[:, 1, 2], shapley(values[:, 1, 2]))


@pytest.mark.parametrize("number", [0, 3, 6, 15])
def test_values_that_are_not_of_every_subset_are_refused_with_their_number(number):
    with pytest.raises(ValueError, match=rf"Shapley values need a value for every subset, 2\*\*players of them, got {number}"):
        shapley(np.zeros(number))


# Numbers that are no numbers


MEASURES = [schmidt_coefficients, schmidt_rank, entropy, concurrence, meyer_wallach]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_state_with_an_amplitude_that_is_not_finite_is_no_state(measure, bad):
    with pytest.raises(ValueError, match=f"norm 1, got 4 of norm {bad}"):
        measure(np.array([bad, 0.0, 0.0, 1.0]))


def test_of_many_states_the_wrong_one_is_named():
    with pytest.raises(ValueError, match=r"norm nan in state 2 of 3"):
        meyer_wallach(np.stack([BELL, BELL, np.nan * BELL]))


@pytest.mark.parametrize("tolerance", [-1e-9, 1.0, np.nan])
def test_the_tolerance_of_a_rank_is_a_part_of_one(tolerance):
    with pytest.raises(ValueError, match=rf"tolerance must be in \[0, 1\), got {tolerance}"):
        schmidt_rank(BELL, tolerance=tolerance)


def test_an_entangling_capability_needs_a_sample():
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        entangling_capability(lambda generator: BELL, samples=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_interactions_of_an_output_or_an_angle_that_is_not_finite_are_refused(bad):
    with pytest.raises(NotFinite, match=rf"outputs of f must be finite, got {bad} at point \[0\.0, 2\.094\], output 0"):
        interaction_variances(lambda points: np.where(points[:, 1:] == points[1, 1], bad, points[:, 1:]), 2)
    with pytest.raises(NotFinite, match=f"angles must be finite, got {bad} at sample 1"):
        interaction_variances(np.sin, 2, np.array([[0.0, 1.0], [bad, 1.0]]))


def test_contributions_to_a_value_that_is_not_finite_are_refused():
    with pytest.raises(NotFinite, match="values must be finite, got nan at subset 2"):
        shapley(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, np.nan], [1.0, 1.0]]))


@pytest.mark.parametrize("entangler", ENTANGLERS)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_at_zero_angles_an_output_is_a_product_of_as_many_inputs_as_is_said(n, entangler):
    for depth in range(5):
        theta = torch.zeros(depth, n, dtype=torch.float64)

        def outputs(x: np.ndarray, theta: torch.Tensor = theta) -> np.ndarray:
            return statevector.expval_z(torch.from_numpy(x), theta, entangler).numpy()

        variances = interaction_variances(outputs, n)
        assert ((variances > 1e-12).sum(axis=1) == 1).all(), "each output has one order alone"
        np.testing.assert_array_equal(variances.argmax(axis=1) + 1, orders_at_zero(n, depth, entangler))
