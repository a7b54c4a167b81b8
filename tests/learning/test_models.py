"""The networks: their shapes, and what the twins have in common and not, in their heads and in their middles."""

import pickle
from functools import partial
from math import pi

import pennylane as qml
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, relu

from hqnn_utils.learning.models import (
    ACTIVATIONS,
    FEATURES,
    HEADS,
    MIDDLES,
    Affine,
    BinaryClassifier,
    Dressed,
    HalfTanh,
    LeNet,
    Sine,
    network,
)
from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import layered, qnode
from hqnn_utils.quantum.layers import ScrambledLayer


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
    with qml.Tracker(model.expval.node.device) as tracker:
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


# Experiment 3

INPUTS = {"LeNet": (1, 28, 28), "ResNet18": (512,)}
every_method = pytest.mark.parametrize("method", [body + ending for body in INPUTS for ending in [*MIDDLES, "-linear"]])
every_ending = pytest.mark.parametrize("ending", MIDDLES)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dressed(ending: str, *sizes: int, seed: int = 0) -> Dressed:
    torch.manual_seed(seed)
    return Dressed(9, 3, ending, *sizes)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@every_method
@pytest.mark.parametrize(("n_classes", "n_qubits", "depth"), [(2, 4, 2), (10, 3, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_method_gives_a_score_of_each_class_for_each_row(method, n_classes, n_qubits, depth, batch):
    model = network(method, n_classes, n_qubits, depth)
    assert model(rows(batch, *INPUTS[method.partition("-")[0]])).shape == (batch, n_classes)


def test_the_features_on_offer_are_those_of_the_bodies():
    assert set(FEATURES) == set(INPUTS)


@pytest.mark.parametrize("body", INPUTS)
def test_networks_of_a_body_start_from_the_same_linear_weights_whatever_their_ending(body):
    def weights(ending, seed=0):
        torch.manual_seed(seed)
        model = network(body + ending, 3)
        before, head = list(model[:-1].parameters()), model[-1]
        return [*before, *head[0].parameters(), *head[3].parameters()]

    for ending in MIDDLES:
        assert all(torch.equal(one, other) for one, other in zip(weights(ending), weights("-Q-Ent"), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(weights("-Q"), weights("-Q", 1), strict=True))


def test_a_network_without_a_head_starts_from_the_same_body():
    torch.manual_seed(0)
    linear = network("LeNet-linear", 3)
    torch.manual_seed(0)
    for one, other in zip(linear[:-1].parameters(), network("LeNet-Q", 3)[:-1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_lenet_with_a_linear_head_is_lenet():
    torch.manual_seed(0)
    lenet, model = LeNet(10), network("LeNet-linear", 10)
    model.load_state_dict(lenet.state_dict())
    assert torch.equal(model(images()), lenet(images()))


def test_a_linear_head_on_features_is_one_linear_layer():
    model, features = network("ResNet18-linear", 3), rows(4, 512)
    weight, bias = model.parameters()
    torch.testing.assert_close(model(features), features @ weight.T + bias)


@pytest.mark.parametrize("body", INPUTS)
def test_a_network_is_its_body_and_a_dressed_layer_of_the_asked_sizes(body):
    *_, head = network(f"{body}-Q-Ent", 5, 3, 6)
    first, _, middle, last = head
    assert (first.weight.shape, middle.theta.shape, last.weight.shape) == ((3, FEATURES[body]), (6, 3), (5, 3))
    *_, head = network(f"{body}-Q", 5)
    assert head[2].theta.shape == (2, 4)


@every_ending
def test_a_dressed_layer_computes_what_its_description_says(ending):
    model, x = dressed(ending, 4, 3), rows(6, 9)
    angles = pi / 2 * torch.tanh(x @ model[0].weight.T + model[0].bias)
    expected = model[2](angles) @ model[3].weight.T + model[3].bias
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model[:2](x), angles)
    torch.testing.assert_close(model[:3](x), model[2](angles))


def test_a_part_of_a_dressed_layer_shares_its_weights():
    model = dressed("-Q", 4)
    shared = zip(model[2:].parameters(), [model[2].theta, *model[3].parameters()], strict=True)
    assert all(one is other for one, other in shared)


def middle(ending: str, n_qubits: int, depth: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The middle in float64 with weights that are not small, where it has angles, these; and inputs."""
    module = dressed(ending, n_qubits, depth)[2].double()
    theta = 2 * rows(depth, n_qubits, seed=1).double()
    if hasattr(module, "theta"):
        module.theta.data = theta
    return module, theta, rows(5, n_qubits, seed=2).double()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_layers_without_entangler_merge_into_one_rotation(depth):
    module, theta, angles = middle("-Q", 4, depth)
    torch.testing.assert_close(module(angles), -torch.sin(angles + theta.sum(dim=0)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_entangled_middle_is_the_circuit_with_a_ring(depth):
    module, theta, angles = middle("-Q-Ent", 4, depth)
    node = qnode(layered, lambda: circuits.expval_z(4), 4)
    expected = torch.stack([torch.stack(node(row, theta, "ring")) for row in angles])
    torch.testing.assert_close(module(angles), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("depth", [1, 4])
def test_the_middles_without_a_circuit_have_no_depth(depth):
    angles = rows(5, 4)
    nothing, sine, mlp = (dressed(ending, 4, depth)[2] for ending in ("", "-sine", "-mlp"))
    assert torch.equal(nothing(angles), angles)
    torch.testing.assert_close(sine(angles), -torch.sin(angles))
    weight, bias = mlp.parameters()
    torch.testing.assert_close(mlp(angles), torch.tanh(angles @ weight.T + bias))


def test_the_random_middle_is_the_scrambled_layer():
    assert isinstance(dressed("-random", 4, 2)[2], ScrambledLayer)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_affine_middle_is_tanh_of_factors_and_offsets_again_and_again(depth):
    module, _, h = middle("-affine", 4, depth)
    for number, parameter in enumerate(module.parameters()):
        parameter.data = 1 + rows(*parameter.shape, seed=number).double()
    found = module(h)
    factors, offsets = module.parameters()
    assert (len(factors), len(offsets)) == ((depth + 1) // 2, depth // 2)
    for layer in range(depth // 2):
        h = torch.tanh(factors[layer] * h + offsets[layer])
    torch.testing.assert_close(found, torch.tanh(factors[-1] * h) if depth % 2 else h)


def test_the_affine_middle_starts_near_tanh():
    factors, offsets = Affine(50, 80).parameters()
    assert (factors == 1).all()
    assert offsets.std().item() == pytest.approx(0.01, rel=0.08)  # 5 standard errors of a spread from 2000


@pytest.mark.parametrize("n_qubits", [1, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("body", INPUTS)
def test_the_circuit_and_its_controls_have_as_many_parameters(body, n_qubits, depth):
    def middles(ending):
        return size(network(body + ending, 3, n_qubits, depth)) - size(network(body, 3, n_qubits, depth))

    numbers = {ending: middles(ending) for ending in MIDDLES}
    assert {numbers[ending] for ending in ("-Q", "-Q-Ent", "-affine", "-random")} == {depth * n_qubits}
    assert (numbers[""], numbers["-sine"], numbers["-mlp"]) == (0, 0, n_qubits * (n_qubits + 1))


@pytest.mark.parametrize("n_qubits", [1, 4])
def test_a_dressed_layer_has_the_known_number_of_parameters_around_its_middle(n_qubits):
    assert size(network("ResNet18", 3, n_qubits)) == 513 * n_qubits + 3 * (n_qubits + 1)


def test_a_dressed_layer_has_a_ring_four_qubits_and_two_layers_unless_told_otherwise():
    module = Dressed(9, 3)[2]
    assert (module.entangler, module.theta.shape) == ("ring", (2, 4))


@pytest.mark.parametrize("ending", ["Q", "-q", "-linear", "-Q-Ent "])
def test_an_unknown_ending_is_refused_with_those_there_are(ending):
    with pytest.raises(ValueError, match=f"unknown middle '{ending}': choose one of '', '-Q', '-Q-Ent', '-sine', '-affine'"):
        Dressed(9, 3, ending)


@pytest.mark.parametrize(
    "method", ["AlexNet-Q", "", "-Q", "LeNet-", "LeNet-q", "ResNet18Q", "ResNet18-Q-Ent-Q", "LeNet-linear-Q"]
)
def test_an_unknown_method_is_refused_with_those_there_are(method):
    sentence = (
        f"unknown method '{method}': it is one of LeNet, ResNet18, and at the end one of -Q, -Q-Ent, .*-linear, or nothing"
    )
    with pytest.raises(ValueError, match=sentence):
        network(method, 3)


@pytest.mark.parametrize(("build", "features"), [(partial(Dressed, 9, 3, "-Q"), 9), (partial(network, "LeNet-Q-Ent", 3), 84)])
@pytest.mark.parametrize("beyond", [0, -1, 1])
def test_more_qubits_than_features_or_none_are_refused(build, features, beyond):
    n_qubits = features + 1 if beyond == 1 else beyond
    with pytest.raises(ValueError, match=f"n_qubits must be between 1 and the {features} features, got {n_qubits}"):
        build(n_qubits=n_qubits)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("n_qubits", [4, 7])
@pytest.mark.parametrize("ending", MIDDLES)
def test_an_exported_network_is_the_network_for_any_number_of_rows(ending, n_qubits, strict):
    head = Dressed(8, 2, ending, n_qubits) if ending != "-random" else Dressed(8, 2, ending, 3)
    exported = torch.export.export(
        head, (rows(3, 8),), dynamic_shapes={"input": {0: torch.export.Dim("batch")}}, strict=strict
    )
    for number in (3, 5):
        torch.testing.assert_close(exported.module()(rows(number, 8)), head(rows(number, 8)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "error::torch.jit.TracerWarning")
@pytest.mark.parametrize("n_qubits", [4, 7])
@pytest.mark.parametrize("ending", ["-Q", "-Q-Ent", "-sine", "-mlp"])
def test_a_traced_network_is_the_network_for_any_number_of_rows_and_can_be_saved(ending, n_qubits, tmp_path):
    head = Dressed(8, 2, ending, n_qubits)
    torch.jit.trace(head, rows(3, 8)).save(tmp_path / "head.pt")
    traced = torch.jit.load(tmp_path / "head.pt")
    for number in (3, 5):
        torch.testing.assert_close(traced(rows(number, 8)), head(rows(number, 8)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n_qubits", [4, 7])
def test_a_compiled_network_has_the_values_and_gradients_of_the_network(n_qubits):
    head, x = Dressed(8, 2, "-Q-Ent", n_qubits), rows(3, 8)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    found, expected = (
        [value := model(x), *torch.autograd.grad(value.square().sum(), list(head.parameters()))] for model in (compiled, head)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_whole_classifier_is_saved_and_goes_on_training(head, tmp_path):
    model = classifier(head)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(images()), model(images()))
    loaded(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    assert pickle.loads(pickle.dumps(HEADS[head]))().state_dict() == {}


@pytest.mark.parametrize("ending", MIDDLES)
@pytest.mark.parametrize("size", [{"n_qubits": True}, {"depth": True}, {"depth": -1}])
def test_a_head_of_no_size_is_refused(ending, size):
    ((name, value),) = size.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Dressed(8, 2, ending, **size)
