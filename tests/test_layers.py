"""The quantum activation: a sine to torch in value, derivative and batching, and an honest sample with shots."""

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils.circuits import h_ry
from hqnn_utils.layers import QuantumActivation

both_methods = pytest.mark.parametrize("diff_method", ["backprop", "parameter-shift"])


def angles(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@both_methods
@given(shape=st.lists(st.integers(1, 4), max_size=4).map(tuple))
def test_the_activation_is_minus_sine_of_any_shape(diff_method, shape):
    theta = angles(*shape)
    torch.testing.assert_close(QuantumActivation(diff_method=diff_method)(theta), -torch.sin(theta))


@both_methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_activation_keeps_the_dtype(diff_method, dtype):
    assert QuantumActivation(diff_method=diff_method)(torch.ones(2, dtype=dtype)).dtype == dtype


@both_methods
def test_a_float32_input_gets_a_float32_gradient(diff_method):
    theta = torch.ones(2, requires_grad=True)
    QuantumActivation(diff_method=diff_method)(theta).sum().backward()
    torch.testing.assert_close(theta.grad, -torch.cos(torch.ones(2)))


@both_methods
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_the_activation_can_be_differentiated_twice(diff_method, check):
    assert check(QuantumActivation(diff_method=diff_method), angles(2, 3).requires_grad_())


@both_methods
@pytest.mark.parametrize("of", [lambda f: f, lambda f: torch.func.grad(lambda theta: f(theta).prod())])
def test_vmap_of_the_activation_equals_a_loop(diff_method, of):
    function = of(QuantumActivation(diff_method=diff_method))
    theta = angles(4, 3)
    torch.testing.assert_close(torch.vmap(function)(theta), torch.stack([function(row) for row in theta]))


def test_simulators_and_methods_agree_in_value_and_gradient():
    found = []
    for activation in (QuantumActivation(), QuantumActivation("lightning.qubit")):
        theta = angles(6).requires_grad_()
        value = activation(theta)
        found.append((value.detach(), torch.autograd.grad((value**2).sum(), theta)[0]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("device", "shots", "method"),
    [("default.qubit", 0, "backprop"), ("default.qubit", 5, "parameter-shift"), ("lightning.qubit", 0, "parameter-shift")],
)
def test_backpropagation_is_the_default_where_it_can_be_had(device, shots, method):
    assert QuantumActivation(device, shots).diff_method == method


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
@pytest.mark.parametrize("shots", [1, 7])
def test_with_shots_a_value_is_one_of_shots_plus_one_steps(device, shots):
    counts = (QuantumActivation(device, shots, seed=0)(angles(100)) + 1) / 2 * shots  # how often 0 was measured
    torch.testing.assert_close(counts, counts.round())
    assert 0 <= counts.min() < counts.max() <= shots


@pytest.mark.parametrize("theta", [-2.0, 0.0, 0.5, np.pi / 2])
def test_with_shots_the_mean_is_the_exact_value(theta):
    shots, repeats = 20, 500
    values = QuantumActivation(shots=shots, seed=0)(torch.full((repeats,), theta, dtype=torch.float64))
    standard_error = abs(np.cos(theta)) / np.sqrt(shots * repeats)  # Var Z = 1 - sin²
    assert abs(values.mean() + np.sin(theta)) <= 5 * standard_error + 1e-12


def test_with_shots_the_spread_is_that_of_the_binomial():
    shots, theta = 25, 0.5
    values = QuantumActivation(shots=shots, seed=0)(torch.full((4000,), theta, dtype=torch.float64))
    assert values.std() == pytest.approx(np.cos(theta) / np.sqrt(shots), rel=0.06)  # 5 standard errors of a spread


def test_with_shots_the_gradient_is_an_unbiased_estimate():
    shots, repeats = 20, 500
    theta = torch.full((repeats,), 0.5, dtype=torch.float64, requires_grad=True)
    QuantumActivation(shots=shots, seed=0)(theta).sum().backward()
    # (f₊ - f₋)/2, each with variance sin²(θ)/shots, since ⟨Z⟩ at θ ± π/2 is ∓cos θ
    standard_error = np.sin(0.5) / np.sqrt(2 * shots * repeats)
    assert theta.grad.std() > 0
    assert abs(theta.grad.mean() + np.cos(0.5)) < 5 * standard_error


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
def test_shots_are_drawn_anew_in_every_call_and_alike_for_a_seed(device):
    def calls(seed):
        activation = QuantumActivation(device, shots=50, seed=seed)
        return activation(angles(20)), activation(angles(20))

    (first, second), (again, _), (other, _) = calls(1), calls(1), calls(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_a_seed_shots_differ_from_module_to_module():
    first, second = (QuantumActivation(shots=50)(angles(20)) for _ in range(2))
    assert not torch.equal(first, second)


def test_a_batch_of_trainable_angles_trains_by_the_shift_rule_where_pennylanes_layer_refuses():
    def node(inputs, weight):
        h_ry(inputs[..., 0])
        qml.RY(weight, 0)
        return qml.expval(qml.Z(0))

    qnode = qml.QNode(node, qml.device("default.qubit", wires=1), interface="torch", diff_method="parameter-shift")
    theta = angles(5, 1).requires_grad_()
    # PennyLane issue 6078. Once this raises no more, PennyLane's layer may do what ours does.
    with pytest.raises(NotImplementedError, match="broadcasted"):
        qml.qnn.TorchLayer(qnode, {"weight": ()})(theta).sum().backward()
    QuantumActivation(diff_method="parameter-shift")(theta).sum().backward()
    torch.testing.assert_close(theta.grad, -torch.cos(theta.detach()))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shots": -1}, r"shots must be 0 \(exact\) or positive, got -1"),
        ({"diff_method": "adjoint"}, "diff_method must be 'backprop' or 'parameter-shift', got 'adjoint'"),
        ({"diff_method": "backprop", "shots": 10}, "backpropagation needs default.qubit without shots"),
        ({"diff_method": "backprop", "device": "lightning.qubit"}, "backpropagation needs default.qubit without shots"),
    ],
)
def test_an_activation_that_cannot_be_had_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        QuantumActivation(**arguments)
