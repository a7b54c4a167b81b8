"""The methods of Experiment 3: what a dressed head computes, and what the twins have in common and not."""

from functools import partial
from math import pi

import pytest
import torch
from torch import nn

from hqnn_utils.learning.methods import BODIES, METHODS, STARTS, middles, network, title
from hqnn_utils.learning.models import Affine, Dressed, LeNet, dressed
from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import layered, qnode
from hqnn_utils.quantum.layers import RANDOM, VariationalLayer

MIDDLES = middles()


def images(number: int = 4) -> torch.Tensor:
    return torch.rand(number, 1, 28, 28, generator=torch.Generator().manual_seed(0))


INPUTS = {"LeNet": (1, 28, 28), "ResNet18": (512,)}
every_body = pytest.mark.parametrize("body", INPUTS)
every_method = pytest.mark.parametrize("method", METHODS)
every_middle = pytest.mark.parametrize("name", MIDDLES)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def head(name: str, *sizes: int, seed: int = 0) -> Dressed:
    torch.manual_seed(seed)
    return dressed(9, 3, MIDDLES[name], *sizes)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@every_body
@every_method
@pytest.mark.parametrize(("n_classes", "n_qubits", "depth"), [(2, 4, 2), (10, 3, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_method_gives_a_score_of_each_class_for_each_row(body, method, n_classes, n_qubits, depth, batch):
    model = network(body, method, n_classes, n_qubits, depth)
    assert model(rows(batch, *INPUTS[body])).shape == (batch, n_classes)


def test_the_bodies_and_methods_are_those_of_the_table():
    assert set(BODIES) == {*INPUTS, "features"} and set(METHODS) == {*MIDDLES, "-linear"}


@pytest.mark.parametrize(("method", "name"), [("classical", "LeNet"), ("-Q-Ent", "LeNet-Q-Ent")])
def test_methods_have_the_names_that_the_slides_give_them(method, name):
    assert title("LeNet", method) == name


@every_body
def test_networks_of_a_body_start_from_the_same_linear_weights_whatever_their_middle(body):
    def weights(method, seed=0, **circuit):
        torch.manual_seed(seed)
        model = network(body, method, 3, **circuit)
        return [*model.body.parameters(), *model.head.first.parameters(), *model.head.last.parameters()]

    others = [weights(name) for name in MIDDLES] + [weights("-Q", start="uniform"), weights(lambda n, depth: nn.Linear(n, n))]
    for other in others:
        assert all(torch.equal(one, same) for one, same in zip(other, weights("-Q-Ent"), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(weights("-Q"), weights("-Q", 1), strict=True))


def test_a_network_without_a_head_starts_from_the_same_body():
    torch.manual_seed(0)
    linear = network("LeNet", "-linear", 3)
    torch.manual_seed(0)
    for one, other in zip(linear.body.parameters(), network("LeNet", "-Q", 3).body.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lenet_with_a_linear_head_is_lenet():
    torch.manual_seed(0)
    lenet, model = LeNet(10), network("LeNet", "-linear", 10)
    for weights, others in zip(model.parameters(), lenet.parameters(), strict=True):
        weights.data = others.data
    assert torch.equal(model(images()), lenet(images()))


def test_a_linear_head_on_features_is_one_linear_layer():
    model, features = network("ResNet18", "-linear", 3), rows(4, 512)
    weight, bias = model.parameters()
    torch.testing.assert_close(model(features), features @ weight.T + bias)


@every_body
def test_a_network_is_its_body_and_a_dressed_layer_of_the_asked_sizes(body):
    head = network(body, "-Q-Ent", 5, 3, 6).head
    sizes = head.first.weight.shape, head.middle.theta.shape, head.last.weight.shape
    assert sizes == ((3, BODIES[body]), (6, 3), (5, 3))
    assert network(body, "-Q", 5).head.middle.theta.shape == (2, 4)


@every_body
def test_a_network_applies_its_head_to_the_features_of_its_body(body):
    model, x = network(body, "-Q-Ent", 3), rows(2, *INPUTS[body])
    features = model.body(x)
    assert features.shape == (2, BODIES[body])
    torch.testing.assert_close(model(x), model.head(features))


@every_middle
def test_a_dressed_layer_computes_what_its_description_says(name):
    model, x = head(name, 4, 3), rows(6, 9)
    angles = pi / 2 * torch.tanh(x @ model.first.weight.T + model.first.bias)
    expected = model.middle(angles) @ model.last.weight.T + model.last.bias
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.angles(model.first(x)), angles)


def test_a_dressed_layer_takes_any_module_as_its_middle():
    own = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = Dressed(9, 3, own)
    assert model.middle is own and model(rows(6, 9)).shape == (6, 3)
    assert network("ResNet18", lambda n, depth: own, 3).head.middle is own


def middle(name: str, n_qubits: int, depth: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The middle in float64 with weights that are not small, where it has angles, these; and inputs."""
    module = head(name, n_qubits, depth).middle.double()
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
    nothing, sine, mlp = (head(name, 4, depth).middle for name in ("classical", "-sine", "-mlp"))
    assert torch.equal(nothing(angles), angles)
    torch.testing.assert_close(sine(angles), -torch.sin(angles))
    weight, bias = mlp.parameters()
    torch.testing.assert_close(mlp(angles), torch.tanh(angles @ weight.T + bias))


def test_the_random_middle_is_the_scrambled_layer():
    middle = head("-random", 4, 2).middle
    assert isinstance(middle, VariationalLayer) and middle.entangler == RANDOM


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
@every_body
def test_the_circuit_and_its_controls_have_as_many_parameters(body, n_qubits, depth):
    sizes = {name: size(network(body, name, 3, n_qubits, depth)) for name in MIDDLES}
    numbers = {name: number - sizes["classical"] for name, number in sizes.items()}
    assert {numbers[name] for name in ("-Q", "-Q-Ent", "-affine", "-random")} == {depth * n_qubits}
    assert (numbers["-sine"], numbers["-mlp"]) == (0, n_qubits * (n_qubits + 1))


@pytest.mark.parametrize("n_qubits", [1, 4])
def test_a_dressed_layer_has_the_known_number_of_parameters_around_its_middle(n_qubits):
    assert size(network("ResNet18", "classical", 3, n_qubits)) == 513 * n_qubits + 3 * (n_qubits + 1)


def test_a_network_has_a_ring_four_qubits_two_layers_and_a_start_near_zero_unless_told_otherwise():
    module = network("ResNet18", "-Q-Ent", 3).head.middle
    assert (module.entangler, module.theta.shape) == ("ring", (2, 4))
    assert module.theta.abs().max() < 0.1


@pytest.mark.parametrize("entangler", circuits.ENTANGLERS)
def test_the_entangler_is_that_of_the_entangled_method_alone(entangler):
    found = [network("ResNet18", method, 3, entangler=entangler).head.middle.entangler for method in ("-Q", "-Q-Ent")]
    assert found == ["none", entangler]


@pytest.mark.parametrize("method", ["-Q", "-Q-Ent", "-random"])
def test_the_angles_may_start_anywhere_on_the_circle(method):
    theta = network("ResNet18", method, 3, 4, 500, start="uniform").head.middle.theta
    assert theta.abs().max() <= pi
    assert theta.abs().mean().item() == pytest.approx(pi / 2, rel=0.06)  # 5 standard errors of 2000 uniform angles


def test_a_start_moves_no_weights_but_those_of_the_circuit():
    def weights(start):
        torch.manual_seed(0)
        model = network("ResNet18", "-Q-Ent", 3, start=start)
        return {name: parameter for name, parameter in model.named_parameters() if "theta" not in name}

    near, far = (weights(start) for start in STARTS)
    assert all(torch.equal(near[name], far[name]) for name in near)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"body": "AlexNet"}, "unknown body 'AlexNet': choose one of LeNet, ResNet18, features"),
        ({"method": ""}, "unknown method '': choose one of classical, -Q, -Q-Ent, .*, -linear"),
        ({"method": "-q"}, "unknown method '-q'"),
        ({"start": "far"}, "unknown start 'far': choose one of near zero, uniform"),
        ({"entangler": "star"}, "unknown entangler 'star'"),
    ],
)
def test_what_is_not_on_offer_is_refused_with_what_is(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        network(**{"body": "LeNet", "method": "-Q-Ent", "n_classes": 3} | given)


@pytest.mark.parametrize(
    ("build", "features"), [(partial(dressed, 9, 3, MIDDLES["-Q"]), 9), (partial(network, "LeNet", "-Q-Ent", 3), 84)]
)
@pytest.mark.parametrize("beyond", [0, -1, 1])
def test_more_qubits_than_features_or_none_are_refused(build, features, beyond):
    n_qubits = features + 1 if beyond == 1 else beyond
    with pytest.raises(ValueError, match=f"n_qubits must be between 1 and the {features} features, got {n_qubits}"):
        build(n_qubits=n_qubits)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("n_qubits", [4, 7])
@every_middle
def test_an_exported_network_is_the_network_for_any_number_of_rows(name, n_qubits, strict):
    head = dressed(8, 2, MIDDLES[name], n_qubits if name != "-random" else 3)
    exported = torch.export.export(head, (rows(3, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    for number in (3, 5):
        torch.testing.assert_close(exported.module()(rows(number, 8)), head(rows(number, 8)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "error::torch.jit.TracerWarning")
@pytest.mark.parametrize("n_qubits", [4, 7])
@pytest.mark.parametrize("name", ["-Q", "-Q-Ent", "-sine", "-mlp"])
def test_a_traced_network_is_the_network_for_any_number_of_rows_and_can_be_saved(name, n_qubits, tmp_path):
    head = dressed(8, 2, MIDDLES[name], n_qubits)
    torch.jit.trace(head, rows(3, 8)).save(tmp_path / "head.pt")
    traced = torch.jit.load(tmp_path / "head.pt")
    for number in (3, 5):
        torch.testing.assert_close(traced(rows(number, 8)), head(rows(number, 8)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n_qubits", [4, 7])
def test_a_compiled_network_has_the_values_and_gradients_of_the_network(n_qubits):
    head, x = dressed(8, 2, MIDDLES["-Q-Ent"], n_qubits), rows(3, 8)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    found, expected = (
        [value := model(x), *torch.autograd.grad(value.square().sum(), list(head.parameters()))] for model in (compiled, head)
    )
    torch.testing.assert_close(found, expected)


@every_middle
@pytest.mark.parametrize("size", [{"n_qubits": True}, {"depth": True}, {"depth": -1}])
def test_a_head_of_no_size_is_refused(name, size):
    ((what, value),) = size.items()
    with pytest.raises(ValueError, match=f"{what}={value}"):
        dressed(8, 2, MIDDLES[name], **size)
