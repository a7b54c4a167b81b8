"""The networks of the first two experiments: their shapes, and what the twins have in common and not."""

import pickle

import pennylane as qml
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d, relu

from hqnn_utils.learning.models import (
    ACTIVATIONS,
    HEADS,
    BinaryClassifier,
    HalfTanh,
    LeNet,
    Sine,
)


def images(number: int = 4) -> torch.Tensor:
    return torch.rand(number, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def classifier(head: str, **options) -> BinaryClassifier:
    """Equal weights for every head."""
    torch.manual_seed(0)
    return BinaryClassifier(head, **options)


@pytest.mark.parametrize("n_outputs", [1, 2, 10])
@pytest.mark.parametrize("batch", [1, 3])
def test_lenet_gives_a_row_of_outputs_for_each_image(n_outputs, batch):
    assert LeNet(n_outputs)(images(batch)).shape == (batch, n_outputs)


def test_lenet_computes_what_its_description_says():
    model = LeNet(10)
    first, first_bias, second, second_bias, *linear = model.parameters()
    x = max_pool2d(relu(conv2d(images(), first, first_bias)), 2)
    x = max_pool2d(relu(conv2d(x, second, second_bias)), 2).flatten(1)
    for weight, bias in zip(linear[:-2:2], linear[1:-2:2], strict=True):
        x = relu(x @ weight.T + bias)
    torch.testing.assert_close(model(images()), x @ linear[-2].T + linear[-1])


FUNCTIONS = {
    "quantum": lambda theta: -torch.sin(theta),
    "sine": lambda theta: -torch.sin(theta),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}


def test_every_activation_is_checked_here():
    assert set(ACTIVATIONS) == set(FUNCTIONS)


@pytest.mark.parametrize("dense", FUNCTIONS)
@pytest.mark.parametrize("convolutional", ["relu", "tanh", "sine"])
def test_lenet_applies_its_activations_where_it_says(dense, convolutional):
    torch.manual_seed(0)
    model, inner, outer = LeNet(10, dense, convolutional), FUNCTIONS[convolutional], FUNCTIONS[dense]
    first, first_bias, second, second_bias, *linear = model.parameters()
    x = max_pool2d(inner(conv2d(images(), first, first_bias)), 2)
    x = max_pool2d(inner(conv2d(x, second, second_bias)), 2).flatten(1)
    for weight, bias in zip(linear[:-2:2], linear[1:-2:2], strict=True):
        x = outer(x @ weight.T + bias)
    torch.testing.assert_close(model(images()), x @ linear[-2].T + linear[-1])


def test_networks_with_other_activations_start_from_the_same_weights():
    def weights(dense):
        torch.manual_seed(0)
        return list(LeNet(10, dense).parameters())

    for dense in FUNCTIONS:
        assert all(torch.equal(one, other) for one, other in zip(weights(dense), weights("relu"), strict=True))


@pytest.mark.parametrize("place", ["dense", "convolutional"])
def test_an_unknown_activation_is_refused_by_name(place):
    with pytest.raises(ValueError, match="unknown activation 'swish': choose one of quantum, sine, tanh, sigmoid, relu"):
        LeNet(10, **{place: "swish"})


def test_options_reach_the_activation_of_the_linear_layers_only():
    model = LeNet(10, "quantum", "quantum", simulator="statevector", shots=1, seed=0)
    passed = {}
    for number in (1, 8, 10):
        model[number].register_forward_hook(lambda module, given, made, number=number: passed.update({number: made}))
    model(images())
    assert set(passed[8].unique().tolist()) == set(passed[10].unique().tolist()) == {-1.0, 1.0}
    assert passed[1].unique().numel() > 100


def test_lenet_has_the_known_number_of_parameters():
    # 6·(25+1) + 16·(6·25+1) + 120·(256+1) + 84·(120+1) + 10·(84+1)
    assert sum(parameter.numel() for parameter in LeNet(10).parameters()) == 44_426


def test_lenets_outputs_are_unbounded_in_sign():
    outputs = LeNet(50)(images())
    assert outputs.min() < 0 < outputs.max()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_classifier_gives_one_probability_for_each_image(head, batch):
    p1 = classifier(head)(images(batch))
    assert p1.shape == (batch,)
    assert ((p1 >= 0) & (p1 <= 1)).all()


@pytest.mark.parametrize("head", HEADS)
def test_a_classifier_can_reach_both_decisions(head):
    model = classifier(head)
    model.angle = torch.nn.Flatten()  # the image is the angle
    angle = torch.tensor([-1.5, 1.5]).reshape(2, 1, 1, 1)
    p1 = (1 - model.expval(model.angle(angle).squeeze(-1))) / 2
    assert p1[0] < 0.2 < 0.8 < p1[1]


def test_the_sigmoid_head_is_the_logistic_function_of_the_angle():
    model = classifier("sigmoid")
    torch.testing.assert_close(model(images()), torch.sigmoid(model.angle(images()).squeeze(-1)))


def test_the_sine_head_is_the_probability_of_finding_one():
    model = classifier("sine")
    theta = model.angle(images()).squeeze(-1)
    torch.testing.assert_close(model(images()), (1 + torch.sin(theta)) / 2)


every_simulator = pytest.mark.parametrize("simulator", ["statevector", "default.qubit", "lightning.qubit"])


@every_simulator
def test_the_quantum_head_is_the_sine_head(simulator):
    difference = classifier("quantum", simulator=simulator)(images(16)) - classifier("sine")(images(16))
    assert difference.abs().max() < 1e-6


@every_simulator
def test_the_quantum_head_trains_as_the_sine_head_does(simulator):
    def gradients(model):
        model(images()).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    found, expected = gradients(classifier("quantum", simulator=simulator)), gradients(classifier("sine"))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_the_quantum_head_runs_its_circuit_on_pennylanes_simulator():
    model = classifier("quantum")
    with qml.Tracker(model.expval.device) as tracker:
        model(images(4))
    assert tracker.totals["executions"] == 4


def test_the_heads_have_no_parameters_of_their_own():
    assert {len(list(HEADS[head]().parameters())) for head in HEADS} == {0}


@pytest.mark.parametrize(("module", "function"), [(Sine(), torch.sin), (HalfTanh(), lambda theta: torch.tanh(theta / 2))])
def test_the_classical_heads_are_minus_their_function(module, function):
    theta = torch.linspace(-4, 4, 9).reshape(3, 3)
    torch.testing.assert_close(module(theta), -function(theta))


def test_a_heads_options_reach_it():
    p1 = classifier("quantum", shots=1)(images(8))
    assert set(p1.tolist()) <= {0.0, 1.0}


def test_an_unknown_head_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown head 'cosine': choose one of quantum, sine, sigmoid"):
        BinaryClassifier("cosine")


@pytest.mark.parametrize("head", HEADS)
def test_a_whole_classifier_is_saved_and_goes_on_training(head, tmp_path):
    model = classifier(head)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(images()), model(images()))
    loaded(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    assert pickle.loads(pickle.dumps(HEADS[head]))().state_dict() == {}
