"""The circuits, against Kronecker products, matrix exponentials and closed forms."""

from functools import reduce

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import (
    ENTANGLERS,
    bell,
    chsh,
    cnot_pairs,
    controlled_rotation,
    h_ry,
    layered,
    qnode,
    reuploading,
    separable,
)

angles = st.floats(-10, 10)


def double(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def zz(circuit):
    """The circuit's exact ⟨Z⊗Z⟩ as a function of its arguments."""
    return qnode(circuit, lambda: qml.expval(qml.Z(0) @ qml.Z(1)), 2)


# Written out by hand, control before target.
PAIRS = {
    "none": {1: "", 2: "", 3: "", 4: ""},
    "linear": {1: "", 2: "01", 3: "01 12", 4: "01 12 23"},
    "ring": {1: "", 2: "01 10", 3: "01 12 20", 4: "01 12 23 30"},
    "all": {1: "", 2: "01", 3: "01 02 12", 4: "01 02 03 12 13 23"},
    "brick": {1: "", 2: "01", 3: "01 12", 4: "01 23 12"},
}


def pairs_by_hand(n_qubits: int, entangler: str) -> list[tuple[int, int]]:
    return [(int(control), int(target)) for control, target in PAIRS[entangler][n_qubits].split()]


ONE, FLIP = np.eye(2), np.array([[0, 1], [1, 0]])
HADAMARD, ZERO, EXCITED = np.array([[1, 1], [1, -1]]) / np.sqrt(2), np.diag([1, 0]), np.diag([0, 1])
Y, Z = np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])


def kron(n: int, gates: dict) -> np.ndarray:
    """Gates side by side, qubit → gate."""
    return reduce(np.kron, [gates.get(qubit, ONE) for qubit in range(n)])


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    return expm(-0.5j * angle * axis)


def entangled(state: np.ndarray, n: int, entangler: str) -> np.ndarray:
    for control, target in pairs_by_hand(n, entangler):
        state = (kron(n, {control: ZERO}) + kron(n, {control: EXCITED, target: FLIP})) @ state
    return state


def kron_state(x: np.ndarray, theta: np.ndarray, entangler: str) -> np.ndarray:
    """Amplitudes of the layered circuit by Kronecker products: none of our code, none of PennyLane's."""
    n = len(x)
    state = kron(n, {qubit: rotation(Y, angle) @ HADAMARD for qubit, angle in enumerate(x)})[:, 0]
    for layer in theta:
        turn = kron(n, {qubit: rotation(Y, angle) for qubit, angle in enumerate(layer)})
        state = turn @ entangled(state, n, entangler)
    return state


def kron_reuploading(x: np.ndarray, scale: np.ndarray, theta: np.ndarray, entangler: str) -> np.ndarray:
    """The same of the circuit that takes the data in before every layer."""
    n = len(x)
    state = kron(n, dict.fromkeys(range(n), HADAMARD))[:, 0]
    for factors, layer in zip(scale, theta, strict=True):
        turn = kron(n, {q: rotation(Y, layer[q]) @ rotation(Z, factors[q] * x[q]) for q in range(n)})
        state = entangled(turn @ state, n, entangler)
    return state


@st.composite
def layered_inputs(draw):
    """(x, theta, entangler) of a layered circuit of up to four qubits and three layers."""
    n, depth = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    values = draw(st.lists(angles, min_size=n * (depth + 1), max_size=n * (depth + 1)))
    table = double(values).reshape(depth + 1, n)
    return table[0], table[1:], draw(st.sampled_from(ENTANGLERS))


@pytest.mark.parametrize(("entangler", "n_qubits"), [(e, n) for e in PAIRS for n in PAIRS[e]])
def test_an_entangler_has_the_pairs_that_its_name_says(entangler, n_qubits):
    assert cnot_pairs(n_qubits, entangler) == pairs_by_hand(n_qubits, entangler)


def test_the_entanglers_on_offer_are_the_ones_with_pairs():
    assert set(ENTANGLERS) == set(PAIRS)


def test_an_unknown_entangler_is_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown entangler 'star': choose one of none, linear, ring, all"):
        cnot_pairs(3, "star")


@given(angles)
def test_the_expectation_value_of_h_ry_is_minus_sine(theta):
    exact = qnode(h_ry, lambda: qml.expval(qml.Z(0)), 1)
    assert float(exact(double(theta))) == pytest.approx(-np.sin(theta), abs=1e-12)


def test_h_ry_acts_on_the_wire_it_is_given():
    node = qnode(h_ry, lambda: [qml.expval(qml.Z(i)) for i in range(2)], 2)
    assert [float(z) for z in node(torch.tensor(0.3), wire=1)] == pytest.approx([1, -np.sin(0.3)], abs=1e-6)


@pytest.mark.parametrize(("circuit", "amplitudes"), [(bell, [1, 0, 0, 1]), (separable, [1, 1, 0, 0])])
def test_the_two_states_of_the_slides_are_prepared(circuit, amplitudes):
    np.testing.assert_allclose(circuits.prepared_state(circuit, 2), np.array(amplitudes) / np.sqrt(2), atol=1e-12)


@given(angles, angles)
def test_the_bell_state_correlates_two_directions_by_the_cosine_of_their_difference(a, b):
    assert float(zz(chsh)(double(a), double(b))) == pytest.approx(np.cos(a - b), abs=1e-10)


@given(angles, angles)
def test_turning_a_qubit_measures_cos_z_plus_sin_x_of_the_state_it_shares(a, b):
    x, z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
    plus = np.array([1, 1, 0, 0]) / np.sqrt(2)  # what `separable` prepares
    observable = np.kron(np.cos(a) * z + np.sin(a) * x, np.cos(b) * z + np.sin(b) * x)
    found = zz(chsh)(double(a), double(b), separable)
    assert float(found) == pytest.approx(plus @ observable @ plus, abs=1e-10)


@given(angles)
def test_the_controlled_rotation_mixes_the_frequencies_one_half_and_one(theta):
    # By hand: the last R_Y turns Z into cos 0.6 Z - sin 0.6 X; the control's branches hold R_Y(0.8)|0⟩ and R_Y(0.8+θ)|0⟩.
    closed = np.cos(0.6) * (np.cos(0.8) - np.cos(0.8 + theta)) / 2 - np.sin(0.6) * np.cos(0.8 + theta / 2)
    assert float(zz(controlled_rotation)(double(theta))) == pytest.approx(closed, abs=1e-10)


@given(layered_inputs())
def test_the_layered_circuit_is_the_product_of_its_gates(inputs):
    x, theta, entangler = inputs
    state = circuits.prepared_state(layered, len(x), x, theta, entangler)
    np.testing.assert_allclose(state, kron_state(x.numpy(), theta.numpy(), entangler), atol=1e-10)


@given(layered_inputs())
def test_the_layered_circuit_measures_z_of_every_qubit_in_order(inputs):
    x, theta, entangler = inputs
    n = len(x)
    found = qnode(layered, lambda: circuits.expval_z(n), n)(x, theta, entangler)
    weights = (abs(kron_state(x.numpy(), theta.numpy(), entangler)) ** 2).reshape([2] * n)
    expected = [np.moveaxis(weights, qubit, 0).reshape(2, -1).sum(1) @ [1, -1] for qubit in range(n)]
    np.testing.assert_allclose([float(z) for z in found], expected, atol=1e-10)


def test_the_layered_circuit_has_a_ring_unless_told_otherwise():
    x, theta = torch.rand(3, generator=torch.Generator().manual_seed(0)).double(), torch.ones(2, 3).double()
    expected = kron_state(x.numpy(), theta.numpy(), "ring")
    np.testing.assert_allclose(circuits.prepared_state(layered, 3, x, theta), expected, atol=1e-10)


@given(layered_inputs(), st.integers(0, 2**32 - 1))
def test_the_reuploading_circuit_is_the_product_of_its_gates(inputs, seed):
    x, theta, entangler = inputs
    scale = 2 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = circuits.prepared_state(reuploading, len(x), x, scale, theta, entangler)
    expected = kron_reuploading(x.numpy(), scale.numpy(), theta.numpy(), entangler)
    np.testing.assert_allclose(state, expected, atol=1e-10)


def test_the_reuploading_circuit_has_a_ring_unless_told_otherwise():
    x, scale, theta = double([0.3, -1.2, 0.8]), torch.full((2, 3), 1.5).double(), torch.full((2, 3), 0.7).double()
    expected = kron_reuploading(x.numpy(), scale.numpy(), theta.numpy(), "ring")
    np.testing.assert_allclose(circuits.prepared_state(reuploading, 3, x, scale, theta), expected, atol=1e-10)


@pytest.mark.parametrize("weights", [(2, 1), (1, 2)])
def test_reuploading_with_another_number_of_factors_than_of_angles_is_refused(weights):
    with pytest.raises(ValueError, match="zip"):
        circuits.prepared_state(reuploading, 2, torch.zeros(2), *(torch.zeros(depth, 2) for depth in weights))


@pytest.mark.parametrize(("circuit", "sets"), [(layered, 1), (reuploading, 2)])
@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_a_batch_of_data_gives_what_each_row_gives_alone(circuit, sets, entangler):
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(5, 3, generator=generator).double(), torch.randn(sets, 2, 3, generator=generator).double()
    node = qnode(circuit, lambda: circuits.expval_z(3), 3)
    batch = torch.stack(node(x, *weights, entangler), dim=-1)  # (batch, qubit)
    alone = torch.stack([torch.stack(node(row, *weights, entangler)) for row in x])
    torch.testing.assert_close(batch, alone)


@pytest.mark.parametrize("shots", [1, 7, 100])
def test_a_node_with_shots_counts_that_many_outcomes(shots):
    samples = qnode(h_ry, lambda: qml.sample(wires=0), 1, shots=shots)(torch.tensor(0.4))
    assert samples.numel() == shots


def test_a_node_without_shots_is_exact():
    assert qnode(h_ry, lambda: qml.expval(qml.Z(0)), 1, shots=0)(double(0.4)) == pytest.approx(-np.sin(0.4), abs=1e-12)


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
def test_a_nodes_shots_are_the_same_for_the_same_seed(device):
    first, again, other = (qnode(h_ry, lambda: qml.sample(wires=0), 1, device, 100, seed)(double(0.4)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_node_hands_its_options_to_pennylane():
    assert qnode(h_ry, qml.state, 1, diff_method="parameter-shift").diff_method == "parameter-shift"


def test_a_node_runs_on_the_device_that_is_named():
    assert qnode(h_ry, qml.state, 1, "lightning.qubit").device.name == "lightning.qubit"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_qubits": True}, "n_qubits=True"),
        ({"n_qubits": 0}, "n_qubits=0"),
        ({"shots": True}, "shots must be 0 .exact. or positive, got True: give a whole number"),
        ({"shots": -1}, "shots must be 0 .exact. or positive, got -1: give a whole number"),
        ({"seed": True}, "a seed must be a whole number"),
        ({"seed": -1}, "a seed must be a whole number"),
    ],
)
def test_a_node_of_sizes_that_are_none_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        qnode(h_ry, qml.state, **{"n_qubits": 1} | options)
