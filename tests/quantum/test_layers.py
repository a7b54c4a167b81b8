"""The quantum layers: one function on every simulator, in value, derivative and batching; an honest sample with shots.

Their controls, which run on the engine only, are held against PennyLane in the same way.
"""

import io
import multiprocessing
import pickle
import re
from copy import copy, deepcopy
from importlib.util import find_spec

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call

from hqnn_utils.checks import NotFinite
from hqnn_utils.learning.models import BinaryClassifier
from hqnn_utils.learning.training import Ensemble, fit
from hqnn_utils.quantum import fusion
from hqnn_utils.quantum.circuits import (
    ENCODINGS,
    ENTANGLERS,
    ROTATIONS,
    expval_z,
    h_ry,
    layered,
    qnode,
    reuploading,
    variational,
)
from hqnn_utils.quantum.layers import RANDOM, QuantumActivation, QuantumLayer, ReuploadingLayer, VariationalLayer

WAYS = {
    "statevector": {},
    "statevector, parameter-shift": {"diff_method": "parameter-shift"},
    "backprop": {"simulator": "default.qubit"},
    "parameter-shift": {"simulator": "default.qubit", "diff_method": "parameter-shift"},
    "adjoint": {"simulator": "default.qubit", "diff_method": "adjoint"},
    "lightning, parameter-shift": {"simulator": "lightning.qubit"},
    "lightning, adjoint": {"simulator": "lightning.qubit", "diff_method": "adjoint"},
}
every_way = pytest.mark.parametrize("way", WAYS)
# PennyLane's adjoint is no function that torch can differentiate again or map over.
mappable = pytest.mark.parametrize("way", [way for way in WAYS if "adjoint" not in way])
# lightning computes in complex128, but where it differentiates PennyLane hands its numbers to torch in float32.
TOLERANCE = {way: 1e-6 if way == "lightning, adjoint" else 1e-10 for way in WAYS}
DEVICES = ("default.qubit", "lightning.qubit")
every_device = pytest.mark.parametrize("simulator", DEVICES)
every_simulator = pytest.mark.parametrize("simulator", ("statevector", *DEVICES))
every_sampler = pytest.mark.parametrize("simulator", ("statevector", "default.qubit"))


def angles(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantum_layer(n_qubits: int, depth: int, entangler: str = "ring", **options) -> QuantumLayer:
    """A layer in float64 whose weights are not small, alike for all options."""
    layer = QuantumLayer(n_qubits, depth, entangler, **options).double()
    layer.load_state_dict({"theta": angles(depth, n_qubits, seed=1)})
    return layer


def value_and_gradients(function, *leaves) -> tuple[torch.Tensor, ...]:
    """The value, and the gradients of the sum of its squares."""
    value = function()
    gradients = torch.autograd.grad(value.square().sum(), leaves, allow_unused=True, materialize_grads=True)
    return value.detach(), *gradients


def of_layer(layer: QuantumLayer, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    return value_and_gradients(lambda: layer(x), x, layer.theta)


def of_circuit(layer: QuantumLayer, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The oracle: the definition of the circuit on default.qubit, differentiated by backpropagation."""
    x = x.clone().requires_grad_()
    node = qnode(layered, lambda: expval_z(layer.n_qubits), layer.n_qubits)
    return value_and_gradients(lambda: torch.stack(node(x, layer.theta, layer.entangler), dim=-1), x, layer.theta)


# The activation


@mappable
@given(shape=st.lists(st.integers(1, 4), max_size=4).map(tuple))
def test_the_activation_is_minus_sine_of_any_shape(way, shape):
    theta = angles(*shape)
    torch.testing.assert_close(QuantumActivation(**WAYS[way])(theta), -torch.sin(theta))


@every_way
def test_the_activation_is_its_circuit_in_value_and_gradient(way):
    theta = angles(6).requires_grad_()
    node = qnode(h_ry, lambda: qml.expval(qml.Z(0)), 1)
    found = value_and_gradients(lambda: QuantumActivation(**WAYS[way])(theta), theta)
    expected = value_and_gradients(lambda: node(theta), theta)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[way], rtol=0)


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_activation_keeps_the_dtype(way, dtype):
    assert QuantumActivation(**WAYS[way])(torch.ones(2, dtype=dtype)).dtype == dtype


@every_way
def test_a_float32_input_gets_a_float32_gradient(way):
    theta = torch.ones(2, requires_grad=True)
    QuantumActivation(**WAYS[way])(theta).sum().backward()
    torch.testing.assert_close(theta.grad, -torch.cos(torch.ones(2)))


@mappable
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_the_activation_can_be_differentiated_twice(way, check):
    assert check(QuantumActivation(**WAYS[way]), angles(2, 3).requires_grad_())


@mappable
@pytest.mark.parametrize("of", [lambda f: f, lambda f: torch.func.grad(lambda theta: f(theta).prod())])
def test_vmap_of_the_activation_equals_a_loop(way, of):
    function = of(QuantumActivation(**WAYS[way]))
    theta = angles(4, 3)
    torch.testing.assert_close(torch.vmap(function)(theta), torch.stack([function(row) for row in theta]))


@every_way
@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_the_activation_of_nothing_is_nothing(way, shape):
    theta = torch.zeros(shape, requires_grad=True)
    value = QuantumActivation(**WAYS[way])(theta)
    value.sum().backward()
    assert (value.shape, theta.grad.shape) == (shape, shape)


@every_simulator
@pytest.mark.parametrize("shots", [1, 7])
def test_with_shots_a_value_is_one_of_shots_plus_one_steps(simulator, shots):
    values = QuantumActivation(simulator, shots=shots, seed=0)(angles(100))
    counts = (values + 1) / 2 * shots  # how often 0 was measured
    torch.testing.assert_close(counts, counts.round())
    assert 0 <= counts.min() < counts.max() <= shots


@every_sampler
@pytest.mark.parametrize("theta", [-2.0, 0.0, 0.5, np.pi / 2])
def test_with_shots_the_mean_is_the_exact_value(simulator, theta):
    shots, repeats = 20, 500
    values = QuantumActivation(simulator, shots=shots, seed=0)(torch.full((repeats,), theta, dtype=torch.float64))
    standard_error = abs(np.cos(theta)) / np.sqrt(shots * repeats)  # Var Z = 1 - sin²
    assert abs(values.mean() + np.sin(theta)) <= 5 * standard_error + 1e-12


@every_sampler
def test_with_shots_the_spread_is_that_of_the_binomial(simulator):
    shots, theta = 25, 0.5
    values = QuantumActivation(simulator, shots=shots, seed=0)(torch.full((4000,), theta, dtype=torch.float64))
    assert values.std() == pytest.approx(np.cos(theta) / np.sqrt(shots), rel=0.06)  # 5 standard errors of a spread


@every_sampler
def test_with_shots_the_gradient_is_an_unbiased_estimate(simulator):
    shots, repeats = 20, 500
    theta = torch.full((repeats,), 0.5, dtype=torch.float64, requires_grad=True)
    QuantumActivation(simulator, shots=shots, seed=0)(theta).sum().backward()
    # (f₊ - f₋)/2, each with variance sin²(θ)/shots, since ⟨Z⟩ at θ ± π/2 is ∓cos θ
    standard_error = np.sin(0.5) / np.sqrt(2 * shots * repeats)
    assert theta.grad.std() > 0
    assert abs(theta.grad.mean() + np.cos(0.5)) < 5 * standard_error


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
    QuantumActivation("default.qubit", "parameter-shift")(theta).sum().backward()
    torch.testing.assert_close(theta.grad, -torch.cos(theta.detach()))


# The layer


@every_way
@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_on_every_simulator_a_layer_is_its_circuit_in_value_and_gradient(way, entangler):
    layer, x = quantum_layer(3, 2, entangler, **WAYS[way]), angles(4, 3)
    torch.testing.assert_close(of_layer(layer, x), of_circuit(layer, x), atol=TOLERANCE[way], rtol=0)


@every_way
@pytest.mark.parametrize(("n_qubits", "depth"), [(1, 0), (1, 2), (2, 0), (2, 1)])
def test_the_smallest_layers_are_their_circuits(way, n_qubits, depth):
    layer, x = quantum_layer(n_qubits, depth, **WAYS[way]), angles(4, n_qubits)
    torch.testing.assert_close(of_layer(layer, x), of_circuit(layer, x), atol=TOLERANCE[way], rtol=0)


@given(st.integers(1, 8), st.integers(0, 6), st.sampled_from(ENTANGLERS), st.integers(0, 2**32 - 1))
def test_a_layer_of_any_size_is_its_circuit(n_qubits, depth, entangler, seed):
    layer, x = quantum_layer(n_qubits, depth, entangler), angles(2, n_qubits, seed=seed)
    torch.testing.assert_close(of_layer(layer, x), of_circuit(layer, x), atol=1e-10, rtol=0)


@every_way
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (2, 1, 2)])
def test_any_leading_dimensions_are_a_batch_of_rows(way, batch):
    layer, x = quantum_layer(3, 2, **WAYS[way]), angles(*batch, 3)
    value, by_input, by_weights = of_layer(layer, x)
    rows = [of_circuit(layer, row) for row in x.reshape(-1, 3)]
    torch.testing.assert_close(value, torch.stack([row[0] for row in rows]).reshape(x.shape), atol=TOLERANCE[way], rtol=0)
    torch.testing.assert_close(by_input, torch.stack([row[1] for row in rows]).reshape(x.shape), atol=TOLERANCE[way], rtol=0)
    torch.testing.assert_close(by_weights, sum(row[2] for row in rows), atol=12 * TOLERANCE[way], rtol=0)


@every_way
@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_a_layer_of_an_empty_batch_is_empty_and_moves_no_weight(way, batch):
    layer = quantum_layer(3, 2, **WAYS[way])
    value, by_input, by_weights = of_layer(layer, angles(*batch, 3))
    assert value.shape == by_input.shape == (*batch, 3)
    assert torch.equal(by_weights, torch.zeros(2, 3, dtype=torch.float64))


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_and_its_gradients_keep_the_dtype(way, dtype):
    found = of_layer(quantum_layer(3, 2, **WAYS[way]).to(dtype), angles(4, 3).to(dtype))
    assert {tensor.dtype for tensor in found} == {dtype}


@every_way
def test_in_float32_a_layer_is_good_to_five_places(way):
    exact, x = quantum_layer(3, 2), angles(4, 3)
    found = of_layer(quantum_layer(3, 2, **WAYS[way]).float(), x.float())
    torch.testing.assert_close([tensor.double() for tensor in found], list(of_circuit(exact, x)), atol=1e-5, rtol=1e-5)


@mappable
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_a_layer_can_be_differentiated_twice_by_inputs_and_weights(way, check):
    layer = quantum_layer(2, 1, **WAYS[way])
    leaves = angles(2, 2).requires_grad_(), layer.theta.detach().clone().requires_grad_()
    assert check(lambda x, theta: functional_call(layer, {"theta": theta}, (x,)), leaves)


def test_without_an_entangler_an_output_depends_on_its_own_input_alone():
    x = angles(3)
    separable, entangled = (torch.func.jacrev(quantum_layer(3, 2, entangler))(x) for entangler in ("none", "ring"))
    off_diagonal = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(separable[off_diagonal], torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    assert entangled[off_diagonal].abs().max() > 0.1


@mappable
@pytest.mark.parametrize("as_matrix", [True, False], ids=["matrix", "blocks"])
def test_stacked_layers_under_vmap_are_a_loop_in_value_and_gradient(way, as_matrix, monkeypatch):
    monkeypatch.setattr(fusion, "WHOLE_WIRES", 6 if as_matrix else 0)
    ensemble = Ensemble(lambda: QuantumLayer(3, 2, **WAYS[way]).double(), seeds=range(4))
    theta, x = ensemble.parameters["theta"], angles(4, 5, 3).requires_grad_()
    with torch.no_grad():
        theta += angles(4, 2, 3, seed=2)
    node = qnode(layered, lambda: expval_z(3), 3)
    found = value_and_gradients(lambda: ensemble(x), x, theta)
    loop = value_and_gradients(
        lambda: torch.stack([torch.stack(node(rows, t, "ring"), dim=-1) for rows, t in zip(x, theta, strict=True)]), x, theta
    )
    torch.testing.assert_close(found, loop, atol=1e-10, rtol=0)


@every_way
def test_weights_can_be_exchanged_between_simulators(way):
    here, there = quantum_layer(3, 2, **WAYS[way]), QuantumLayer(3, 2).double()
    there.load_state_dict(here.state_dict())
    torch.testing.assert_close(there(angles(4, 3)), here(angles(4, 3)), atol=TOLERANCE[way], rtol=0)


@every_way
def test_a_copy_computes_the_same_and_learns_for_itself(way):
    layer, x = quantum_layer(3, 2, **WAYS[way]), angles(4, 3)
    before = layer(x).detach()
    other = deepcopy(layer)
    assert torch.equal(other(x), before)
    with torch.no_grad():
        other.theta += 1
    assert torch.equal(layer(x), before)
    assert not torch.allclose(other(x), before)


@every_simulator
def test_a_copy_measures_on_a_device_of_its_own(simulator):
    layer, x = quantum_layer(3, 2, simulator=simulator, shots=50, seed=0), angles(4, 3)
    other = deepcopy(layer)
    assert other.device is None or other.device is not layer.device
    assert torch.equal(other(x), layer(x))  # each the first of the seed's: neither has used up the other's


def test_a_layer_starts_near_zero_and_from_torchs_generator():
    def drawn(seed):
        torch.manual_seed(seed)
        return QuantumLayer(50, 40).theta.detach()

    theta = drawn(0)
    assert theta.shape == (40, 50)
    assert theta.std().item() == pytest.approx(0.01, rel=0.08)  # 5 standard errors of a spread from 2000
    assert abs(theta.mean()) < 5 * 0.01 / np.sqrt(theta.numel())
    assert torch.equal(theta, drawn(0))
    assert not torch.equal(theta, drawn(1))


def test_a_layer_can_start_anywhere_on_the_circle():
    torch.manual_seed(0)
    theta = QuantumLayer(50, 40, start="uniform").theta.detach()
    assert theta.shape == (40, 50) and -3.1415928 < theta.min() < -3.13 and 3.13 < theta.max() < np.pi
    assert abs(theta.mean()) < 5 * np.pi / np.sqrt(3 * theta.numel())
    assert theta.std().item() == pytest.approx(np.pi / np.sqrt(3), rel=0.05)  # 5 standard errors of a spread from 2000


def test_a_start_near_zero_draws_what_it_always_drew():
    torch.manual_seed(0)
    expected = 0.01 * torch.randn(2, 3)
    for options in ({}, {"start": "near zero"}):
        torch.manual_seed(0)
        assert torch.equal(QuantumLayer(3, 2, **options).theta, expected)


def test_an_unknown_start_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown start of the angles 'zero': choose one of near zero, uniform"):
        QuantumLayer(3, 2, start="zero")


def test_a_layer_shows_its_sizes_and_entangler():
    assert repr(QuantumLayer(3, 2, "all")) == "QuantumLayer(n_qubits=3, depth=2, entangler='all')"


# Shots and circuits of the layer


@every_simulator
def test_with_shots_every_output_of_a_layer_is_one_of_shots_plus_one_steps(simulator):
    shots = 7
    counts = (quantum_layer(3, 2, simulator=simulator, shots=shots, seed=0)(angles(40, 3)) + 1) / 2 * shots
    torch.testing.assert_close(counts, counts.round())
    assert 0 <= counts.min() < counts.max() <= shots


@every_sampler
def test_with_shots_value_and_gradients_of_a_layer_are_unbiased_estimates(simulator):
    repeats = 400  # equal models, each with its own measurements
    ensemble = Ensemble(lambda: quantum_layer(2, 1, simulator=simulator, shots=20, seed=0), seeds=[0] * repeats)
    x, row = angles(1, 2).expand(repeats, 1, 2).clone().requires_grad_(), angles(1, 2).requires_grad_()
    value = ensemble(x)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)  # of the outputs: a linear function, lest squares add a bias
    found = value.detach(), *torch.autograd.grad((weights * value).sum(), (x, ensemble.parameters["theta"]))
    exact = quantum_layer(2, 1, simulator="default.qubit")
    expected = exact(row).detach(), *torch.autograd.grad((weights * exact(row)).sum(), (row, exact.theta))
    for samples, truth in zip(found, expected, strict=True):
        standard_error = samples.std(dim=0) / np.sqrt(repeats)
        assert (standard_error > 0).all()
        assert ((samples.mean(dim=0) - truth).abs() < 5 * standard_error).all()


@pytest.mark.parametrize("layer", [QuantumActivation, lambda *args, **options: QuantumLayer(2, 1, "ring", *args, **options)])
@every_simulator
def test_shots_are_drawn_anew_in_every_call_and_alike_for_a_seed(layer, simulator):
    def calls(seed):
        torch.manual_seed(0)  # the weights are not what is asked about
        module = layer(simulator, shots=50, seed=seed)
        return module(angles(20, 2)), module(angles(20, 2))

    (first, second), (again, _), (other, _) = calls(1), calls(1), calls(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@every_sampler
def test_without_a_seed_shots_differ_from_module_to_module(simulator):
    first, second = (QuantumActivation(simulator, shots=50)(angles(20)) for _ in range(2))
    assert not torch.equal(first, second)


@every_device
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize(("batch", "n_qubits", "depth"), [((), 1, 0), ((4,), 3, 0), ((5,), 2, 3), ((2, 3), 2, 1)])
def test_a_step_by_the_shift_rule_runs_one_circuit_a_row_and_two_an_angle(simulator, shots, batch, n_qubits, depth):
    layer = quantum_layer(n_qubits, depth, simulator=simulator, diff_method="parameter-shift", shots=shots, seed=0)
    with qml.Tracker(layer.device) as tracker:
        layer(angles(*batch, n_qubits).requires_grad_()).sum().backward()
    circuits = int(np.prod(batch)) * (1 + 2 * n_qubits + 2 * n_qubits * depth)
    # An execution is what a quantum computer would run: PennyLane counts each row of a broadcast batch.
    assert tracker.totals["executions"] == circuits
    assert tracker.totals.get("shots", 0) == shots * circuits


# The choice of a simulator


@pytest.mark.parametrize("layer", [QuantumActivation, lambda *args, **options: QuantumLayer(2, 1, "ring", *args, **options)])
@pytest.mark.parametrize(
    ("simulator", "shots", "method"),
    [
        ("statevector", 0, "backprop"),
        ("statevector", 5, "parameter-shift"),
        ("default.qubit", 0, "backprop"),
        ("default.qubit", 5, "parameter-shift"),
        ("lightning.qubit", 0, "parameter-shift"),
    ],
)
def test_backpropagation_is_the_default_where_it_can_be_had(layer, simulator, shots, method):
    assert layer(simulator, shots=shots).diff_method == method


@pytest.mark.parametrize("layer", [QuantumActivation, lambda **options: QuantumLayer(2, 1, **options)])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shots": -1}, r"shots must be 0 \(exact\) or positive, got -1"),
        ({"shots": -1, "simulator": "default.qubit"}, r"shots must be 0 \(exact\) or positive, got -1"),
        ({"shots": True}, "got True: give a whole number"),
        ({"shots": True, "simulator": "lightning.qubit"}, "got True: give a whole number"),
        ({"shots": 5, "seed": True}, "a seed must be a whole number from 0 to .* got True"),
        ({"shots": 5, "seed": -1}, "a seed must be a whole number from 0 to .* got -1"),
        ({"seed": 2**63, "simulator": "lightning.qubit"}, "a seed must be a whole number from 0 to"),
        (
            {"diff_method": "adjoint"},
            "has the methods 'backprop' and 'parameter-shift', got 'adjoint': that needs a PennyLane",
        ),
        ({"diff_method": "backprop", "shots": 10}, "use diff_method='parameter-shift'"),
        ({"diff_method": "backprop", "shots": 10, "simulator": "default.qubit"}, "use diff_method='parameter-shift'"),
    ],
)
def test_a_simulation_that_cannot_be_had_is_refused(layer, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        layer(**options)


@pytest.mark.parametrize("layer", [QuantumActivation, lambda **options: QuantumLayer(2, 1, **options)])
@pytest.mark.parametrize(
    "options",
    [{"simulator": "lightning.qubit", "diff_method": "backprop"}, {"simulator": "default.qubit", "diff_method": "magic"}],
)
def test_a_method_that_the_device_does_not_have_is_refused(layer, options):
    with pytest.raises(qml.exceptions.QuantumFunctionError, match=options["diff_method"]):
        layer(**options)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((0, 1), "needs n_qubits >= 1 and depth >= 0, got n_qubits=0, depth=1"),
        ((-2, 1), "got n_qubits=-2, depth=1"),
        ((2, -1), "got n_qubits=2, depth=-1"),
        ((True, 1), "got n_qubits=True, depth=1: give whole numbers"),
        ((2, False), "got n_qubits=2, depth=False: give whole numbers"),
        ((2, 1, "star"), "unknown entangler 'star': choose one of none, linear, ring, all"),
    ],
)
def test_a_layer_that_cannot_be_built_is_refused(options, sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        QuantumLayer(*sizes, **options)


@every_way
@pytest.mark.parametrize("shape", [(2,), (5, 4), (2, 3, 1)])
def test_an_input_of_another_width_is_refused_with_its_shape(way, shape):
    with pytest.raises(ValueError, match=rf"this layer takes 3 angles a row, got an input of shape \({shape[0]},"):
        QuantumLayer(3, 2, **WAYS[way])(torch.zeros(shape))


def test_a_layer_of_more_qubits_than_memory_is_refused_by_a_sentence():
    with pytest.raises(MemoryError, match=r"40 qubits need about .* GB and .* GB are free"):
        QuantumLayer(40, 2)(torch.zeros(1, 40))


# One rule for dtypes

ENGINES = WAYS | {
    "statevector, shots": {"shots": 20, "seed": 1},
    "default.qubit, shots": {"simulator": "default.qubit", "shots": 20, "seed": 1},
    "lightning, shots": {"simulator": "lightning.qubit", "shots": 20, "seed": 1},
}
LAYERS = {
    **{f"layer on {name}": lambda options=options: QuantumLayer(3, 2, **options) for name, options in ENGINES.items()},
    **{f"activation on {name}": lambda options=options: QuantumActivation(**options) for name, options in ENGINES.items()},
    "scrambled": lambda: VariationalLayer(3, 2, RANDOM),
    "reuploading": lambda: ReuploadingLayer(3, 2),
}
every_layer = pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)


def rows_of(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return angles(*(shape or (4, 3))).to(dtype)


@every_layer
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("rows", [4, 0])
def test_every_layer_refuses_what_are_no_real_floating_point_numbers(build, dtype, rows):
    with pytest.raises(TypeError, match=r"real floating-point numbers, got torch|Float\[Tensor"):  # ours, or a type checker's
        build()(torch.ones(rows, 3, dtype=dtype))


@every_layer
@pytest.mark.parametrize("layers", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_layer_answers_in_the_wider_precision_of_input_and_weights(build, layers, rows):
    layer, x = build().to(layers), rows_of(rows).requires_grad_()
    weights = list(layer.parameters())
    value = layer(x)
    assert value.dtype == (torch.promote_types(layers, rows) if weights else rows)
    value.sum().backward()
    assert [leaf.grad.dtype for leaf in (x, *weights)] == [leaf.dtype for leaf in (x, *weights)]


@every_layer
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_layer_computes_rows_of_another_dtype_as_its_own_of_the_same_numbers(build, dtype):
    torch.manual_seed(0)
    layer, x = build(), rows_of(torch.bfloat16).to(dtype)  # the same numbers in all of them, but for the range of a half
    wide = torch.promote_types(dtype, torch.float32)
    expected = deepcopy(layer).to(wide)(x.to(wide))
    torch.testing.assert_close(layer(x).to(wide), expected, atol=1e-2 if layer(x).dtype == dtype != wide else 1e-6, rtol=0)


@every_layer
def test_autocast_changes_no_value_and_no_dtype(build):
    torch.manual_seed(0)
    layer, x = build(), rows_of(torch.float32)
    expected = deepcopy(layer)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert torch.equal(found, expected) and found.dtype == torch.float32


# Angles that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES)
def test_an_angle_that_is_not_finite_is_refused_with_its_place_or_gives_nan_in_its_row_alone(options, value):
    layer, x = QuantumLayer(3, 2, **options), rows_of(torch.float32, 2, 4, 3)
    x[1, 2, 0] = value
    if layer.diff_method == "backprop":  # what torch itself computes
        bad = layer(x).isnan().any(-1)
        assert bad[1, 2] and bad.sum() == 1
    else:
        with pytest.raises(NotFinite, match=rf"angles must be finite, got {value} at row 6, angle x\[0\]$"):
            layer(x)


@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES)
def test_a_weight_that_is_not_finite_is_refused_with_its_place_or_gives_nan(options):
    layer = QuantumLayer(3, 2, **options)
    with torch.no_grad():
        layer.theta[1, 2] = float("nan")
    if layer.diff_method == "backprop":
        assert layer(rows_of(torch.float32)).isnan().any(-1).all()
    else:
        with pytest.raises(ValueError, match=r"angles must be finite, got nan at row 0, angle theta\[1, 2\]$"):
            layer(rows_of(torch.float32))


@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES)
def test_an_activation_refuses_an_angle_that_is_not_finite_or_answers_nan_there(options):
    activation, theta = QuantumActivation(**options), rows_of(torch.float32, 2, 3)
    theta[1, 2] = float("inf")
    if activation.diff_method == "backprop":
        assert activation(theta).isnan().nonzero().tolist() == [[1, 2]]
    else:
        with pytest.raises(ValueError, match=r"angles must be finite, got inf at row 5, angle x\[0\]$"):
            activation(theta)


# Saved whole, copied, sent away


def saved(module):
    """What `torch.save` and `torch.load` make of a whole module."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_layer
@pytest.mark.parametrize("again", [saved, lambda layer: pickle.loads(pickle.dumps(layer)), deepcopy, copy])
@pytest.mark.parametrize("called", [False, True])
def test_every_layer_is_saved_and_copied_whole_with_its_values_and_gradients(build, again, called):
    torch.manual_seed(0)
    layer, x = build(), rows_of(torch.float32).requires_grad_()
    if called and again is not copy:  # which shares what has been drawn
        layer(x).sum().backward()
    torch.manual_seed(0)
    other, fresh = again(layer), build()
    found, expected = (value_and_gradients(lambda m=m: m(x), x, *m.parameters()) for m in (other, fresh))
    assert all(map(torch.equal, found, expected))
    assert other.state_dict().keys() == layer.state_dict().keys()


def test_a_device_that_cannot_be_pickled_is_refused_by_a_sentence_and_shared_by_copies():
    device = qml.device("lightning.qubit", wires=2)
    layer, x = QuantumLayer(2, 1, simulator=device), rows_of(torch.float32, 4, 2)
    layer(x)  # a device that has computed holds a state
    for save in (saved, pickle.dumps):
        with pytest.raises(pickle.PicklingError, match=r"lightning.qubit.* cannot be pickled .*: give the layer its name"):
            save(layer)
    assert deepcopy(layer).device is device
    assert torch.equal(deepcopy(layer)(x), layer(x))


def test_a_device_that_can_be_pickled_goes_with_its_layer():
    layer, x = QuantumLayer(2, 1, simulator=qml.device("default.qubit", wires=2)), rows_of(torch.float32, 4, 2)
    assert torch.equal(saved(layer)(x), layer(x))


def values(module, x):
    return module(x).detach()


def test_layers_and_networks_go_to_spawned_workers():
    torch.manual_seed(0)
    sent = [(QuantumLayer(2, 1, **options), rows_of(torch.float32, 4, 2)) for options in ENGINES.values()]
    sent += [(BinaryClassifier("quantum"), torch.rand(2, 1, 28, 28))]
    expected = [values(deepcopy(module), x) for module, x in sent]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.starmap(values, sent)
    assert all(map(torch.equal, found, expected))


# Compiled, exported and traced


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), QuantumLayer(4, 2, start="uniform"), nn.Linear(4, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n_qubits", [4, 5, 7])  # one table for all layers, a table for each, blocks
def test_a_compiler_sees_an_exact_layer_whole(n_qubits):
    torch._dynamo.reset()
    seen = torch._dynamo.explain(nn.Sequential(nn.Linear(5, n_qubits), QuantumLayer(n_qubits, 2)))(torch.ones(3, 5))
    assert (seen.graph_count, seen.graph_break_count) == (1, 0)


@pytest.mark.usefixtures("unchecked")
def test_a_compiled_network_has_the_values_and_gradients_of_the_eager_one_at_any_batch_from_two_compilations():
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    model = network()
    compiled = torch.compile(model, backend=graphs)
    for batch in (4, 4, 1024, 4, 32):  # the second size is compiled for all sizes
        x = torch.randn(batch, 5, requires_grad=True)
        found, expected = (value_and_gradients(lambda f=f, x=x: f(x), x, *model.parameters()) for f in (compiled, model))
        torch.testing.assert_close(found, expected, atol=1e-6 * batch, rtol=1e-5)
    assert graphs.frame_count == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_network_computes_batches_of_any_size_also_when_it_was_saved():
    model, file = network(), io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.ones(3, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},)), file)
    file.seek(0)
    exported = torch.export.load(file).module()
    for batch in (2, 9):
        x = torch.randn(batch, 5)
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_is_written_as_onnx_or_torch_says_what_it_lacks():
    file = io.BytesIO()
    if find_spec("onnxscript") is None:
        with pytest.raises(ModuleNotFoundError, match="onnxscript"):
            torch.onnx.export(network(), (torch.ones(3, 5),), file)
    else:
        torch.onnx.export(network(), (torch.ones(3, 5),), file)
        assert file.tell()


OPAQUE = {name: options for name, options in ENGINES.items() if options}


@pytest.mark.parametrize("layer", [QuantumActivation, lambda **options: QuantumLayer(3, 2, **options)])
@pytest.mark.parametrize("options", OPAQUE.values(), ids=OPAQUE)
@pytest.mark.parametrize("trace", [torch.export.export, torch.jit.trace])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_torch_does_not_compute_itself_is_not_exported_or_traced(layer, options, trace):
    with pytest.raises(RuntimeError, match=re.escape("cannot be exported or traced, only what torch computes itself: take")):
        trace(layer(**options), (rows_of(torch.float32),))


# The controls


def scrambled(x, theta, scramblers) -> None:
    """The circuit of a scrambled layer in PennyLane. The layer has states as rows, PennyLane as columns."""
    n_qubits = x.shape[-1]
    for i in range(n_qubits):
        qml.Hadamard(i)
        qml.RY(x[..., i], i)
    for scrambler, layer in zip(scramblers[0], theta[0], strict=True):
        qml.QubitUnitary(scrambler.T.to(torch.complex128), range(n_qubits))
        for i in range(n_qubits):
            qml.RY(layer[i, 0], i)


def scrambled_layer(n_qubits: int, depth: int) -> VariationalLayer:
    return VariationalLayer(n_qubits, depth, RANDOM)


def control(build, n_qubits: int, depth: int, *options, seed: int = 0):
    """A control in float64 whose weights are not small."""
    torch.manual_seed(seed)
    layer = build(n_qubits, depth, *options).double()
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = angles(depth, n_qubits, seed=seed + number + 1).reshape(parameter.shape)
    return layer


def of_control(layer, x) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    return value_and_gradients(lambda: layer(x), x, *layer.parameters())


def of_controls_circuit(layer, x) -> tuple[torch.Tensor, ...]:
    """The oracle: the circuit on default.qubit, row by row, differentiated by backpropagation."""
    n_qubits, x = x.shape[-1], x.clone().requires_grad_()
    if isinstance(layer, VariationalLayer):
        circuit, weights = scrambled, (layer.theta, layer.scramblers)
    else:
        circuit, weights = reuploading, (layer.scale, layer.theta, layer.entangler)
    node = qnode(circuit, lambda: expval_z(n_qubits), n_qubits)

    def rows():
        return torch.stack([torch.stack(node(row, *weights)) for row in x.reshape(-1, n_qubits)]).reshape(x.shape)

    return value_and_gradients(rows, x, *layer.parameters())


@given(st.integers(1, 7), st.integers(1, 3), st.sampled_from(ENTANGLERS), st.integers(0, 1000))
def test_a_reuploading_layer_of_any_size_is_its_circuit_in_value_and_gradient(n_qubits, depth, entangler, seed):
    layer, x = control(ReuploadingLayer, n_qubits, depth, entangler, seed=seed), angles(2, n_qubits, seed=seed)
    torch.testing.assert_close(of_control(layer, x), of_controls_circuit(layer, x), atol=1e-10, rtol=0)


@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 1000))
def test_a_scrambled_layer_of_any_size_is_its_circuit_in_value_and_gradient(n_qubits, depth, seed):
    layer, x = control(scrambled_layer, n_qubits, depth, seed=seed), angles(2, n_qubits, seed=seed)
    torch.testing.assert_close(of_control(layer, x), of_controls_circuit(layer, x), atol=1e-10, rtol=0)


every_control = pytest.mark.parametrize("build", [ReuploadingLayer, scrambled_layer])


@every_control
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_any_leading_dimensions_are_a_batch_of_rows_of_a_control(build, batch):
    layer, x = control(build, 3, 2), angles(*batch, 3)
    torch.testing.assert_close(of_control(layer, x), of_controls_circuit(layer, x), atol=1e-10, rtol=0)


@every_control
def test_stacked_controls_under_vmap_are_a_loop_in_value_and_gradient(build):
    ensemble, x = Ensemble(lambda: build(3, 2).double(), seeds=range(4)), angles(4, 5, 3).requires_grad_()
    models = [ensemble.model(k) for k in range(4)]
    found = value_and_gradients(lambda: ensemble(x), x, *ensemble.parameters.values())
    loops = [of_controls_circuit(model, rows.detach()) for model, rows in zip(models, x, strict=True)]
    torch.testing.assert_close(found, tuple(map(torch.stack, zip(*loops, strict=True))), atol=1e-10, rtol=0)


@every_control
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_control_and_its_gradients_keep_the_dtype(build, dtype):
    assert {tensor.dtype for tensor in of_control(build(3, 2).to(dtype), angles(4, 3).to(dtype))} == {dtype}


@every_control
def test_a_control_starts_from_the_seed_of_torch(build):
    def drawn(seed):
        torch.manual_seed(seed)
        return build(2, 2).state_dict()

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("build", "name", "mean", "spread"),
    [(scrambled_layer, "theta", 0, 0.01), (ReuploadingLayer, "theta", 0, 0.1), (ReuploadingLayer, "scale", 1, 0.1)],
)
def test_the_weights_of_a_control_start_near_their_mean(build, name, mean, spread):
    torch.manual_seed(0)
    weights = getattr(build(4, 500), name).detach().squeeze()
    assert weights.shape == (500, 4)
    assert weights.std().item() == pytest.approx(spread, rel=0.08)  # 5 standard errors of a spread from 2000
    assert abs(weights.mean() - mean) < 5 * spread / np.sqrt(weights.numel())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_reuploading_qubit_has_a_harmonic_for_each_layer_and_does_not_collapse_into_one_rotation(depth):
    layer = control(ReuploadingLayer, 1, depth, "none")
    layer.scale.data.fill_(1)
    x = 2 * np.pi * torch.arange(16, dtype=torch.float64).unsqueeze(-1) / 16
    harmonics = np.abs(np.fft.rfft(layer(x).detach().squeeze(-1))) / 8
    assert harmonics[depth] > 0.05
    assert harmonics[depth + 1 :].max() < 1e-12


def test_without_an_entangler_a_reuploading_output_depends_on_its_own_input_alone():
    layers = [control(ReuploadingLayer, 3, 2, entangler) for entangler in ("none", "ring")]
    separable, entangled = (torch.func.jacrev(layer)(angles(3)) for layer in layers)
    off_diagonal = ~torch.eye(3, dtype=torch.bool)
    assert separable[off_diagonal].abs().max() < 1e-12
    assert separable.diagonal().abs().min() > 0.01
    assert entangled[off_diagonal].abs().max() > 0.1


def test_a_reuploading_layer_has_a_ring_unless_told_otherwise():
    assert ReuploadingLayer(3, 2).entangler == "ring"


def test_a_reuploading_layer_with_an_unknown_entangler_is_refused_at_once():
    with pytest.raises(ValueError, match="unknown entangler 'star': choose one of none, linear, ring, all"):
        ReuploadingLayer(3, 2, "star")


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_scramblers_are_orthogonal_one_for_each_layer(n_qubits, depth, seed):
    torch.manual_seed(seed)
    scramblers = scrambled_layer(n_qubits, depth).scramblers
    assert scramblers.shape == (1, depth, 2**n_qubits, 2**n_qubits)
    torch.testing.assert_close(scramblers.mT @ scramblers, torch.eye(2**n_qubits).expand_as(scramblers), atol=1e-5, rtol=0)


def test_scramblers_differ_between_layers_and_seeds():
    ensemble = Ensemble(lambda: scrambled_layer(2, 2), seeds=range(3))
    matrices = ensemble.buffers["scramblers"].flatten(0, 2)
    assert all(not torch.allclose(matrices[i], matrices[j], atol=0.1) for i in range(6) for j in range(i))


def test_scramblers_are_drawn_from_the_haar_measure():
    torch.manual_seed(0)
    draws, matrices = 4000, scrambled_layer(2, 4000).scramblers[0]
    # Of such matrices every entry has mean 0 and mean square 1/4, the trace mean square 1 (Diaconis and Shahshahani 1994).
    assert matrices.mean(dim=0).abs().max() < 5 * 0.5 / np.sqrt(draws)
    assert (matrices.square().mean(dim=0) - 1 / 4).abs().max() < 5 * 0.25 / np.sqrt(draws)
    traces = matrices.diagonal(dim1=-2, dim2=-1).sum(dim=-1).square()
    assert abs(traces.mean() - 1) < 5 * traces.std() / np.sqrt(draws)


def test_scramblers_are_never_trained():
    ensemble = Ensemble(lambda: scrambled_layer(2, 2), seeds=[0, 1])
    before, start = ensemble.buffers["scramblers"].clone(), ensemble.parameters["theta"].detach().clone()
    assert set(ensemble.parameters) == {"theta"}
    fit(
        ensemble, angles(6, 2).float(), torch.ones(6).long(), lambda z, _: z[..., 0], epochs=2, batch_size=3, learning_rate=0.1
    )
    assert torch.equal(ensemble.buffers["scramblers"], before) and ensemble.buffers["scramblers"].grad is None
    assert not torch.allclose(ensemble.parameters["theta"], start)


def test_a_scrambled_layer_keeps_its_scramblers_where_its_weights_are_kept():
    layer, other = scrambled_layer(2, 2), scrambled_layer(2, 2)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(angles(4, 2).float()), layer(angles(4, 2).float()))


def test_scramblers_entangle():
    across = torch.func.jacrev(control(scrambled_layer, 3, 1))(angles(3))[~torch.eye(3, dtype=torch.bool)]
    assert across.abs().max() > 0.1


@pytest.mark.parametrize("entangler", [*ENTANGLERS, RANDOM])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_variational_layer_is_its_circuit_on_pennylanes_simulator(rotation, encoding, entangler):
    torch.manual_seed(0)
    layer = VariationalLayer(3, 2, entangler, encoding, rotation, uploads=2, start="uniform").double()
    x = torch.randn(5, 3, dtype=torch.float64)
    how = {"encoding": encoding} if entangler == RANDOM else {"encoding": encoding, "entangler": entangler}
    matrices = None if layer.scramblers is None else layer.scramblers.to(torch.complex128)
    node = qnode(lambda x, theta: variational(x, theta, matrices, **how), lambda: expval_z(3), 3)
    expected = torch.stack([torch.stack(node(row, layer.theta)) for row in x])
    (ours,), (theirs,) = (torch.autograd.grad(out.square().sum(), layer.theta) for out in (layer(x), expected))
    assert torch.allclose(layer(x), expected, atol=1e-12) and torch.allclose(ours, theirs, atol=1e-12)


def test_one_upload_of_h_and_ry_is_the_layered_circuit():
    variational_layer, layer = VariationalLayer(4, 3).double(), QuantumLayer(4, 3).double()
    layer.theta = nn.Parameter(variational_layer.theta.detach()[0, :, :, 0])
    x = torch.randn(7, 4, dtype=torch.float64)
    assert torch.allclose(variational_layer(x), layer(x), atol=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoding": "amplitude"}, "unknown encoding 'amplitude': choose one of h_ry, ry, h_rz, rx_rz"),
        ({"rotation": "rz"}, "unknown rotation 'rz': choose one of ry, rot"),
        ({"start": "zero"}, "unknown start 'zero': choose one of near zero, uniform"),
        ({"entangler": "star"}, "unknown entangler 'star'"),
        ({"uploads": 0}, "the data enters at least once, got 0 uploads"),
    ],
)
def test_a_variational_layer_refuses_what_it_does_not_know(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        VariationalLayer(2, 1, **given)
