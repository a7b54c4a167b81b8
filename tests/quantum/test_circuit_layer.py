"""Any quantum function as a layer: a torch module, on every engine, and the way from PennyLane's TorchLayer.

That its numbers are PennyLane's for every gate is tested in test_tracing.py, and for circuits of the field in test_demos.py.
"""

import pickle
import re
import subprocess
import sys
from copy import copy, deepcopy
from functools import partial

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import expval_z
from hqnn_utils.quantum.layers import CircuitLayer


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circuit(x, w, v):
    """Controlled rotations, words, a weight that is shared, and a product of data and weight."""
    qml.AngleEmbedding(x, wires=range(2), rotation="Y")
    qml.CRX(w[0], [0, 1])
    qml.PauliRot(w[1] * x[..., 0], "XYZ", [0, 1, 2])
    qml.CRot(w[0], v, w[2], [1, 2])
    qml.ControlledPhaseShift(x[..., 1] + v, [2, 0])
    qml.RY(torch.arctan(v), 2)
    qml.IsingXY(w[1], [0, 2])


SHAPES = {"w": 3, "v": ()}


def measure():
    return [qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2)), qml.expval(0.3 * qml.Z(0) @ qml.Z(2) - 2 * qml.Y(1))]


def layer_of(measure=measure, **options) -> CircuitLayer:
    """A layer in float64, with the same weights for all options."""
    layer = CircuitLayer(circuit, 3, SHAPES, measure, **options).double()
    layer.load_state_dict({"w": numbers(3, seed=1), "v": numbers(seed=2)})
    return layer


def of_layer(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The value, and the gradients of the sum of its squares."""
    x = x.clone().requires_grad_()
    value = layer(x)
    return value.detach(), *torch.autograd.grad(value.square().sum(), (x, *layer.parameters()))


# A torch module


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 2), (0,), (3, 0)])
@pytest.mark.parametrize("options", [{}, {"diff_method": "parameter-shift"}, {"simulator": "default.qubit"}])
def test_any_leading_dimensions_are_a_batch_of_rows(options, shape):
    layer, x = layer_of(**options), numbers(*shape, 2)
    expected = [layer_of()(row) for row in x.reshape(-1, 2)]
    expected = torch.stack(expected) if expected else torch.zeros(0, 3, dtype=torch.float64)
    value, gradient, *_ = of_layer(layer, x)
    torch.testing.assert_close(value, expected.reshape(*shape, 3))
    assert gradient.shape == x.shape


@pytest.mark.parametrize(
    ("measure", "outputs"),
    [
        (None, (3,)),
        (lambda: qml.expval(qml.Z(0)), ()),
        (lambda: [qml.expval(qml.Z(0))], (1,)),
        (lambda: (qml.expval(qml.Z(0)), qml.probs(wires=[2, 0])), (5,)),
        (qml.probs, (8,)),
        (qml.state, (8,)),
    ],
)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_the_outputs_are_the_last_dimension_and_a_single_value_has_none(measure, outputs, batch):
    assert layer_of(measure)(numbers(*batch, 2)).shape == (*batch, *outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept_and_a_state_is_its_complex_one(dtype):
    x = numbers(3, 2).to(dtype)
    assert {tensor.dtype for tensor in of_layer(layer_of().to(dtype), x)} == {dtype}
    assert layer_of(qml.state).to(dtype)(x).dtype == {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]


def test_without_data_gates_every_row_has_the_same_result():
    layer = CircuitLayer(lambda x, w: qml.RX(w, 0), 1, {"w": ()})
    expected = torch.cos(layer.w).expand(4, 1)
    torch.testing.assert_close(layer(torch.rand(4, 2)), expected)


def test_without_weights_a_layer_is_a_function_of_its_input():
    layer = CircuitLayer(lambda x: qml.RX(x[0], 0), 1, {})
    x = torch.rand(4, 1)
    torch.testing.assert_close(layer(x), torch.cos(x))


@pytest.mark.parametrize("again", [copy, deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("called", [False, True])
def test_a_copy_has_the_same_values_and_gradients(again, called):
    layer, x = CircuitLayer(circuits.reuploading, 2, {"scale": (2, 2), "theta": (2, 2)}).double(), numbers(3, 2)
    if called:
        layer(x)
    torch.testing.assert_close(of_layer(again(layer), x), of_layer(layer, x))


def test_a_saved_layer_is_the_same_in_a_new_process(tmp_path):
    filler = partial(circuits.layered, entangler="all")  # another key than in the new process
    CircuitLayer(filler, 2, {"theta": (1, 2)})(torch.rand(1, 2))
    layer, x = CircuitLayer(circuits.reuploading, 2, {"scale": (2, 2), "theta": (2, 2)}), torch.rand(3, 2)
    torch.save((layer, x, layer(x)), tmp_path / "layer.pt")
    script = (
        "import sys, torch; layer, x, y = torch.load(sys.argv[1], weights_only=False); torch.testing.assert_close(layer(x), y)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "layer.pt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unchecked")
def test_layers_of_several_widths_are_compiled_whole_in_one_process():
    torch.compiler.reset()
    for n in (2, 3, 4):
        layer = CircuitLayer(circuits.layered, n, {"theta": (1, n)})
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        x = torch.rand(5, n)
        expected = layer(x)  # by which the layer knows its width
        torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    ("init_method", "check"),
    [
        (None, lambda w: w.min() >= 0 and 4 < w.max() < 2 * np.pi),
        (nn.init.ones_, lambda w: (w == 1).all()),
        (torch.ones_like, lambda w: (w == 1).all()),  # a tensor of its own, which the one that it is given does not see
        (lambda w: None if w.fill_(2).any() else w, lambda w: (w == 2).all()),
        ({"w": lambda w: torch.full(w.shape, 0.5)}, lambda w: (w == 0.5).all()),
        (partial(nn.init.normal_, std=1e-3), lambda w: 0 < w.abs().max() < 0.1),
        ({"w": nn.init.zeros_}, lambda w: (w == 0).all()),
        ({"w": torch.arange(60.0).reshape(20, 3)}, lambda w: w[1, 2] == 5),
    ],
)
def test_weights_start_as_init_method_says(init_method, check):
    layer = CircuitLayer(lambda x, w: qml.RX(w.sum(), 0), 1, {"w": (20, 3)}, init_method=init_method)
    assert layer.w.shape == (20, 3) and check(layer.w)


@pytest.mark.parametrize(
    ("start", "got"),
    [
        (torch.zeros(2), "one of the shape (2,)"),
        (lambda w: torch.zeros(1), "one of the shape (1,)"),
        (lambda w: [0.0] * len(w), "[0.0, 0.0, 0.0]"),
    ],
)
def test_a_start_of_another_shape_is_refused(start, got):
    with pytest.raises(ValueError, match=re.escape(f"the weight 'w' must start as a tensor of the shape (3,), got {got}")):
        CircuitLayer(circuit, 3, SHAPES, init_method={"w": start, "v": nn.init.zeros_})


def test_a_start_that_is_missing_is_told_by_its_name():
    with pytest.raises(KeyError, match="v"):
        CircuitLayer(circuit, 3, SHAPES, init_method={"w": torch.zeros(3)})


# Engines


WAYS = {
    "shift rule": {"diff_method": "parameter-shift"},
    "default.qubit": {"simulator": "default.qubit"},
    "default.qubit, shift rule": {"simulator": "default.qubit", "diff_method": "parameter-shift"},
    "lightning.qubit, shift rule": {"simulator": "lightning.qubit"},
    "lightning.qubit, adjoint": {"simulator": "lightning.qubit", "diff_method": "adjoint"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_engine_has_the_exact_values_and_gradients(way):
    x, tolerance = numbers(3, 2), 1e-6 if "adjoint" in way else 1e-10
    torch.testing.assert_close(of_layer(layer_of(**WAYS[way]), x), of_layer(layer_of(), x), atol=tolerance, rtol=0)


@pytest.mark.parametrize("way", [way for way in WAYS if "adjoint" not in way])
def test_every_engine_has_the_exact_probabilities_and_their_gradients(way):
    def several():
        return [qml.probs(wires=[2, 0]), qml.expval(qml.Hermitian(np.array([[1, 2j], [-2j, 0]]), 1))]

    x = numbers(2, 2)
    torch.testing.assert_close(of_layer(layer_of(several, **WAYS[way]), x), of_layer(layer_of(several), x))


@pytest.mark.parametrize("simulator", ["statevector", "default.qubit"])
def test_with_shots_values_and_gradients_are_unbiased(simulator):
    repeats = 200
    layer, x = layer_of(simulator=simulator, shots=50, seed=0), numbers(1, 2).expand(repeats, -1)
    rows = x.clone().requires_grad_()
    value = layer(rows)
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    exact_rows = x.clone().requires_grad_()
    exact = layer_of()(exact_rows)
    (expected,) = torch.autograd.grad(exact.sum(), exact_rows)
    for found, wanted in ((value, exact[0]), (gradient, expected[0])):
        assert ((found.mean(0) - wanted).abs() <= 5 * found.std(0) / np.sqrt(repeats) + 1e-12).all()


@pytest.mark.parametrize("simulator", ["statevector", "default.qubit"])
def test_shots_are_alike_for_a_seed_and_differ_from_call_to_call(simulator):
    first, second = (layer_of(simulator=simulator, shots=20, seed=3) for _ in range(2))
    x = numbers(4, 2)
    once, again = first(x), first(x)
    assert torch.equal(second(x), once) and not torch.equal(again, once)


def variances():
    return [qml.var(qml.Z(0) @ qml.Y(2)), qml.expval(qml.Z(1)), qml.var(0.3 * qml.Z(0) @ qml.Z(2) - 2 * qml.Y(1))]


@pytest.mark.parametrize("way", ["shift rule", "default.qubit, shift rule", "lightning.qubit, shift rule"])
def test_a_variance_has_a_value_by_every_engine_and_no_gradient_by_the_shift_rule(way):
    layer, x = layer_of(variances, **WAYS[way]), numbers(3, 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer_of(variances)(x))
    with pytest.raises(ValueError, match="the shift rule does not hold for a variance"):
        layer(x)


def test_a_variance_of_shots_is_one_of_what_was_found():
    layer, x = layer_of(variances, shots=10_000, seed=0), numbers(2, 2)
    with torch.no_grad():
        assert (layer(x) - layer_of(variances)(x)).abs().max() < 0.2


# From PennyLane's TorchLayer


def qnode_by_dots(device, **options):
    @qml.qnode(device, **options)
    def node(inputs, weights, phase):
        for i in range(2):
            qml.RY(inputs[..., i], i)
        qml.StronglyEntanglingLayers(weights, range(2))
        qml.RX(phase * inputs[..., 1], 0)
        return [qml.expval(qml.Z(i)) for i in range(2)]

    return node


def qnode_by_columns(device, **options):
    @qml.qnode(device, **options)
    def node(inputs, weights, phase):
        for i in range(2):
            qml.RY(inputs[:, i], i)
        qml.StronglyEntanglingLayers(weights, range(2))
        qml.RX(phase, 0)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    return node


def qnode_by_templates(device, **options):
    @qml.qnode(device, **options)
    def node(inputs, weights, phase):
        qml.AngleEmbedding(inputs, range(2))
        qml.StronglyEntanglingLayers(weights, range(2))
        qml.RX(phase, 0)
        return qml.probs(wires=[0, 1])

    return node


def qnode_of_one_value(device, **options):
    @qml.qnode(device, **options)
    def node(weights, inputs, phase):
        qml.AmplitudeEmbedding(inputs, range(2), normalize=True, pad_with=0.1)
        qml.StronglyEntanglingLayers(weights, range(2))
        qml.RX(phase, 0)
        return qml.expval(qml.Z(0))

    return node


NODES = [qnode_by_dots, qnode_by_columns, qnode_by_templates, qnode_of_one_value]
NODE_SHAPES = {"weights": (2, 2, 3), "phase": 1}


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
@pytest.mark.parametrize("make", NODES)
def test_a_state_dict_moves_from_torch_layer_and_back(make, device):
    node = make(qml.device(device, wires=2))
    theirs, ours = qml.qnn.TorchLayer(node, NODE_SHAPES).double(), CircuitLayer.from_qnode(node, NODE_SHAPES).double()
    x = numbers(3, 2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [weight.shape for weight in ours.parameters()] == [weight.shape for weight in theirs.parameters()]
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), check_dtype=False, atol=1e-6, rtol=0)
    theirs.load_state_dict(CircuitLayer.from_qnode(node, NODE_SHAPES).double().state_dict())


@pytest.mark.parametrize("make", NODES)
def test_a_layer_from_a_qnode_has_the_gradients_of_torch_layer(make):
    node = make(qml.device("default.qubit", wires=2))
    theirs, ours = qml.qnn.TorchLayer(node, NODE_SHAPES).double(), CircuitLayer.from_qnode(node, NODE_SHAPES).double()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(of_layer(ours, numbers(3, 2)), of_layer(theirs, numbers(3, 2)), check_dtype=False)


@pytest.mark.parametrize("wires", [("a", "b"), ("b", "a"), None])
def test_wires_have_labels_or_are_those_that_the_circuit_uses(wires):
    @qml.qnode(qml.device("default.qubit", wires=wires))
    def node(inputs, w):
        qml.AngleEmbedding(inputs, ["a", "b"])
        qml.CRX(w, ["b", "a"])
        return qml.probs()

    ours, x = CircuitLayer.from_qnode(node, {"w": ()}).double(), numbers(3, 2)
    torch.testing.assert_close(ours(x), torch.stack([node(row, ours.w) for row in x]))


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
def test_a_qnode_with_shots_is_sampled(device):
    node = qml.set_shots(qnode_by_dots(qml.device(device, wires=2)), 10)
    layer = CircuitLayer.from_qnode(node, NODE_SHAPES)
    x = torch.rand(20, 2)
    counts = (layer(x) + 1) / 2 * 10
    torch.testing.assert_close(counts, counts.round(), atol=1e-5, rtol=0)
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("shots", [[10, 20], (10, 10), [(10, 3)]])
def test_several_numbers_of_shots_are_refused_in_a_sentence(shots):
    with pytest.raises(ValueError, match=r"several numbers of shots, .* gives several results: give it one"):
        CircuitLayer.from_qnode(qml.set_shots(qnode_by_dots(qml.device("default.qubit", wires=2)), shots), NODE_SHAPES)


@pytest.mark.parametrize("method", ["best", "backprop", "parameter-shift"])
def test_a_qnode_on_another_device_keeps_it(method):
    device = qml.device("default.mixed", wires=2)

    @qml.qnode(device, diff_method=method)
    def node(inputs, w):
        qml.AngleEmbedding(inputs, range(2))
        qml.CRX(w, [0, 1])
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    ours, x = CircuitLayer.from_qnode(node, {"w": ()}).double(), numbers(3, 2)
    assert ours.device is device
    exact = CircuitLayer.from_qnode(qml.QNode(node.func, qml.device("default.qubit", wires=2)), {"w": ()}).double()
    exact.load_state_dict(ours.state_dict())
    torch.testing.assert_close(of_layer(ours, x), of_layer(exact, x))


def test_noise_of_a_noisy_device_is_computed_by_it():
    @qml.qnode(qml.device("default.mixed", wires=1))
    def node(inputs, w):
        qml.RX(inputs[..., 0] + w, 0)
        qml.DepolarizingChannel(0.3, 0)
        return qml.expval(qml.Z(0))

    ours, x = CircuitLayer.from_qnode(node, {"w": ()}).double(), numbers(3, 1)
    torch.testing.assert_close(ours(x), torch.stack([node(row, ours.w) for row in x]).detach(), check_dtype=False)


@pytest.mark.parametrize(("shapes", "name"), [({"w": ()}, "inputs"), ({"w": (), "other": 2}, "inputs|other")])
def test_a_qnode_without_the_arguments_is_refused_by_name(shapes, name):
    node = qml.QNode(lambda x, w: qml.expval(qml.Z(0)), qml.device("default.qubit", wires=1))
    with pytest.raises(TypeError, match=f"the QNode must include an argument with name '({name})'"):
        CircuitLayer.from_qnode(node, shapes)


def test_an_argument_without_a_shape_is_refused_by_name():
    node = qnode_by_dots(qml.device("default.qubit", wires=2))
    with pytest.raises(ValueError, match="Must specify a shape for every non-input parameter: 'phase' has none"):
        CircuitLayer.from_qnode(node, {"weights": (2, 2, 3)})


def node_of(function, **options) -> qml.QNode:
    return qml.QNode(function, qml.device("default.qubit", wires=2), **options)


def by_keywords(inputs, **weights):
    qml.AngleEmbedding(inputs, range(2))
    qml.CRX(weights["w"], [0, 1])
    return qml.expval(qml.Z(1))


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (by_keywords, {}),
        (lambda w, features: by_keywords(features, w=w), {"input_arg": "features"}),
        (lambda w, inputs=None: by_keywords(inputs, w=w), {}),
        (lambda inputs, w, unused=2: by_keywords(inputs, w=w), {}),
    ],
    ids=["keywords", "another name of the input", "a default input", "an argument with a default"],
)
def test_a_qnode_takes_its_arguments_by_name(function, options):
    layer, x = CircuitLayer.from_qnode(node_of(function), {"w": ()}, **options).double(), numbers(3, 2)
    torch.testing.assert_close(layer(x), node_of(by_keywords)(x, w=layer.w))


@pytest.mark.parametrize(
    ("function", "options", "shapes", "kind", "sentence"),
    [
        (lambda inputs, *more: qml.expval(qml.Z(0)), {}, {}, TypeError, "Cannot have a variable number of positional"),
        (by_keywords, {}, {"inputs": 2}, ValueError, "the inputs argument should not have its dimension in weight_shapes"),
        (by_keywords, {"interface": "jax"}, {"w": ()}, ValueError, "Invalid interface 'jax' of the QNode"),
    ],
)
def test_what_is_no_qnode_of_an_input_and_weights_in_torch_is_refused(function, options, shapes, kind, sentence):
    with pytest.raises(kind, match=sentence):
        CircuitLayer.from_qnode(node_of(function, **options), shapes)


@pytest.mark.parametrize(
    "make", [lambda: layer_of(), lambda: CircuitLayer.from_qnode(node_of(by_keywords), {"w": ()}).double()]
)
def test_a_layer_has_a_qnode_of_the_same_values_to_be_drawn(make):
    layer, x = make(), numbers(2)
    found = layer.qnode(x, **dict(layer.named_parameters()))
    torch.testing.assert_close(layer(x), torch.stack(found) if isinstance(found, (list, tuple)) else found)
    assert "RX" in qml.draw(layer.qnode)(x, **dict(layer.named_parameters()))


def test_a_layer_by_default_measures_z_of_every_qubit():
    x = numbers(2, 2)
    torch.testing.assert_close(layer_of(None)(x), layer_of(lambda: expval_z(3))(x))


def test_a_layer_is_called_where_pennylane_records():
    script = (
        "import torch, pennylane as qml\n"
        "from hqnn_utils.quantum import circuits, layers\n"
        "layer = layers.CircuitLayer(circuits.layered, 2, {'theta': (1, 2)})\n"
        "tape = qml.tape.make_qscript(lambda: layer(torch.rand(1, 2)))()\n"
        "assert not tape.operations"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_first_call_of_a_layer_draws_no_random_number_of_the_callers():
    layer = CircuitLayer(lambda x, w: qml.RX(w * x[..., 0], 0), 1, {"w": ()})
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    layer(torch.ones(1, 1))
    assert torch.equal(torch.rand(2), expected)
