"""Circuits of the field, written as their authors and PennyLane's demos write them, as layers: PennyLane's in every number."""

from collections.abc import Callable
from math import pi
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from hqnn_utils.quantum.layers import CircuitLayer


class Demo(NamedTuple):
    circuit: Callable[..., None]
    n_qubits: int
    n_inputs: int
    weight_shapes: dict[str, Any]
    measure: Callable[[], Any] | None = None


def z0():
    return qml.expval(qml.Z(0))


def parity():
    return qml.expval(qml.Z(0) @ qml.Z(1) @ qml.Z(2))


def last_two():
    return [qml.expval(qml.Z(i)) for i in (2, 3)]


def dressed(inputs, weights):
    """A. Mari et al., Transfer learning in hybrid classical-quantum neural networks, 2020; PennyLane's demo of that name."""
    n = 4
    for i in range(n):
        qml.Hadamard(i)
        qml.RY(inputs[..., i] * pi / 2, i)
    for layer in weights:
        for i in [*range(0, n - 1, 2), *range(1, n - 1, 2)]:
            qml.CNOT([i, i + 1])
        for i in range(n):
            qml.RY(layer[i], i)


def reuploading(inputs, theta, scale):
    """A. Pérez-Salinas et al., Data re-uploading for a universal quantum classifier, 2020: U3(θ + w ∘ x) on one qubit."""
    for angles, factors in zip(theta, scale, strict=True):
        qml.Rot(*(angles[i] + factors[i] * inputs[..., i] for i in range(3)), wires=0)


def fourier(inputs, weights):
    """M. Schuld, R. Sweke, J. J. Meyer, The effect of data encoding on expressive power, 2021: W S(x) W … of two qubits."""
    for block in weights[:-1]:
        qml.StronglyEntanglingLayers(block, wires=range(2))
        for i in range(2):
            qml.RX(inputs[..., 0], i)
    qml.StronglyEntanglingLayers(weights[-1], wires=range(2))


def quanvolution(inputs, weights):
    """M. Henderson et al., Quanvolutional neural networks, 2020; PennyLane's demo: four pixels, a random circuit."""
    for i in range(4):
        qml.RY(pi * inputs[..., i], i)
    qml.RandomLayers(weights, wires=range(4), seed=3)


def convolutional(inputs, convolutions, pools, last):
    """I. Cong, S. Choi, M. Lukin, Quantum convolutional neural networks, 2019: blocks of U3 and Ising gates, pooling."""
    qml.AngleEmbedding(inputs, wires=range(8), rotation="Y")
    wires = list(range(8))
    for kernel, pool in zip(convolutions, pools, strict=True):
        for start in (0, 1):
            for a, b in zip(wires[start::2], wires[start + 1 :: 2], strict=False):
                qml.U3(*kernel[0:3], wires=a)
                qml.U3(*kernel[3:6], wires=b)
                qml.IsingXX(kernel[6], [a, b])
                qml.IsingYY(kernel[7], [a, b])
                qml.IsingZZ(kernel[8], [a, b])
                qml.U3(*kernel[9:12], wires=a)
                qml.U3(*kernel[12:15], wires=b)
        for dropped, kept in zip(wires[1::2], wires[::2], strict=True):
            qml.CRZ(pool[0], [dropped, kept])
            qml.X(dropped)
            qml.CRX(pool[1], [dropped, kept])
        wires = wires[::2]
    qml.ArbitraryUnitary(last, wires=wires)


def maximum_cut(inputs, gamma, beta):
    """E. Farhi et al., A quantum approximate optimization algorithm, 2014: a weighted triangle, with weights from the data."""
    for i in range(3):
        qml.Hadamard(i)
    for cost, mixer in zip(gamma, beta, strict=True):
        for edge, (a, b) in enumerate([(0, 1), (1, 2), (0, 2)]):
            qml.CNOT([a, b])
            qml.RZ(cost * inputs[..., edge], b)
            qml.CNOT([a, b])
        for i in range(3):
            qml.RX(2 * mixer, i)


def triangle():
    return qml.expval(sum(0.5 * (1 - qml.Z(a) @ qml.Z(b)) for a, b in [(0, 1), (1, 2), (0, 2)]))


def iris(inputs, weights):
    """M. Schuld et al., Circuit-centric quantum classifiers, 2020; PennyLane's variational classifier: padded amplitudes."""
    qml.AmplitudeEmbedding(inputs, wires=range(2), pad_with=0.3, normalize=True)
    for layer in weights:
        for i in range(2):
            qml.Rot(*layer[i], wires=i)
        qml.CNOT([0, 1])


def feature_map(inputs, weights):
    """V. Havlíček et al., Supervised learning with quantum-enhanced feature spaces, 2019: ZZ feature map, RealAmplitudes."""
    for _ in range(2):
        for i in range(3):
            qml.Hadamard(i)
            qml.PhaseShift(2 * inputs[..., i], i)
        for a, b in [(0, 1), (0, 2), (1, 2)]:
            qml.CNOT([a, b])
            qml.PhaseShift(2 * (pi - inputs[..., a]) * (pi - inputs[..., b]), b)
            qml.CNOT([a, b])
    for layer in weights[:-1]:
        qml.AngleEmbedding(layer, wires=range(3), rotation="Y")
        for a, b in [(1, 2), (0, 2), (0, 1)]:
            qml.CNOT([a, b])
    qml.AngleEmbedding(weights[-1], wires=range(3), rotation="Y")


def hardware_efficient(inputs, weights):
    """A. Kandala et al., Hardware-efficient variational quantum eigensolver, 2017: Euler rotations, a fixed entangler."""
    qml.IQPEmbedding(inputs, wires=range(4))
    for layer in weights:
        for i in range(4):
            qml.RZ(layer[i, 0], i)
            qml.RX(layer[i, 1], i)
            qml.RZ(layer[i, 2], i)
        for i in range(3):
            qml.PauliRot(0.8, "ZX", [i, i + 1])  # cross resonance


def energy():
    words = [qml.Z(0) @ qml.Z(1), qml.X(0) @ qml.X(1), qml.Y(2) @ qml.Y(3), qml.Z(3), qml.X(1)]
    return qml.expval(qml.dot([-1.05, 0.39, 0.39, -0.01, 0.18], words))


def two_design(inputs, initial, weights):
    """M. Cerezo et al., Cost function dependent barren plateaus, 2021: the simplified two-design and a local cost."""
    qml.AngleEmbedding(inputs, wires=range(4), rotation="X")
    qml.SimplifiedTwoDesign(initial, weights, wires=range(4))


def tree(inputs, weights):
    """W. Huggins et al., Towards quantum machine learning with tensor networks, 2019; PennyLane's template TTN."""

    def block(angles, wires):
        qml.RY(angles[0], wires[0])
        qml.RY(angles[1], wires[1])
        qml.CNOT(wires)

    qml.AngleEmbedding(inputs, wires=range(4), rotation="Y")
    qml.TTN(range(4), 2, block, 2, weights)


def entangling_tree(inputs, weights):
    """E. Grant et al., Hierarchical quantum classifiers, 2018; PennyLane's template MERA."""

    def block(angles, wires):
        qml.CNOT(wires)
        qml.CRot(*angles, wires)

    qml.AngleEmbedding(inputs, wires=range(4), rotation="Y")
    qml.MERA(range(4), 2, block, 3, weights)


def kernel(inputs, weights):
    """M. Schuld, Supervised quantum machine learning models are kernel methods, 2021 (PennyLane's demo, too)."""
    first, second = inputs[..., :3], inputs[..., 3:]

    def embedding(x):
        for layer in weights:
            for i in range(3):
                qml.Hadamard(i)
                qml.RZ(x[..., i], i)
                qml.RY(layer[0, i], i)
            for i in range(3):
                qml.CRZ(layer[1, i], [i, (i + 1) % 3])

    embedding(first)
    qml.adjoint(embedding)(second)


def of_zero():
    return qml.expval(qml.Projector([0, 0, 0], wires=range(3)))


def embedded_energy(inputs, features, weights):
    """S. Lloyd et al., Quantum embeddings for machine learning, 2020: a QAOAEmbedding that is trained, too."""
    qml.QAOAEmbedding(inputs, features, wires=range(3), local_field="Z")
    qml.BasicEntanglerLayers(torch.arctan(weights), wires=range(3), rotation=qml.RZ)


def probabilities():
    return qml.probs(wires=[0, 2])


DEMOS = {
    "dressed": Demo(dressed, 4, 4, {"weights": (3, 4)}),
    "re-uploading": Demo(reuploading, 1, 3, {"theta": (3, 3), "scale": (3, 3)}, z0),
    "Fourier": Demo(fourier, 2, 1, {"weights": (3, 1, 2, 3)}, z0),
    "quanvolution": Demo(quanvolution, 4, 4, {"weights": (2, 5)}),
    "convolution": Demo(convolutional, 8, 8, {"convolutions": (2, 15), "pools": (2, 2), "last": 15}, z0),
    "maximum cut": Demo(maximum_cut, 3, 3, {"gamma": 2, "beta": 2}, triangle),
    "iris": Demo(iris, 2, 3, {"weights": (3, 2, 3)}, z0),
    "feature map": Demo(feature_map, 3, 3, {"weights": (3, 3)}, parity),
    "hardware-efficient": Demo(hardware_efficient, 4, 4, {"weights": (2, 4, 3)}, energy),
    "two-design": Demo(two_design, 4, 4, {"initial": 4, "weights": (2, 3, 2)}, last_two),
    "tree": Demo(tree, 4, 4, {"weights": (3, 2)}, lambda: qml.expval(qml.Z(3))),
    "MERA": Demo(entangling_tree, 4, 4, {"weights": (5, 3)}, lambda: qml.expval(qml.Z(1))),
    "kernel": Demo(kernel, 3, 6, {"weights": (2, 2, 3)}, of_zero),
    "embedding": Demo(embedded_energy, 3, 3, {"features": (2, 6), "weights": (1, 3)}, probabilities),
}
every_demo = pytest.mark.parametrize("name", DEMOS)
small = pytest.mark.parametrize("name", [name for name in DEMOS if name != "convolution"])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(name: str, **options) -> CircuitLayer:
    circuit, n_qubits, _, weight_shapes, measure = DEMOS[name]
    layer = CircuitLayer(circuit, n_qubits, weight_shapes, measure, **options).double()
    layer.load_state_dict({key: numbers(*weight.shape, seed=1) for key, weight in layer.state_dict().items()})
    return layer


def rows(name: str, *batch: int) -> Tensor:
    return numbers(*batch, DEMOS[name].n_inputs).requires_grad_()


def value_and_gradients(function: Callable[[], Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    value = function()
    return value.detach(), *torch.autograd.grad((value * numbers(*value.shape, seed=2).to(value)).sum(), leaves)


def of_layer(layer: CircuitLayer, x: Tensor) -> tuple[Tensor, ...]:
    return value_and_gradients(lambda: layer(x), x, *layer.parameters())


def of_pennylane(layer: CircuitLayer, x: Tensor) -> tuple[Tensor, ...]:
    """The oracle: default.qubit, differentiated by backpropagation, one row after the other."""
    circuit, _, measure, wires, _ = layer.definition
    weights = dict(layer.named_parameters())

    @qml.qnode(qml.device("default.qubit", wires=wires), diff_method="backprop")
    def node(row):
        circuit(row, **weights)
        return measure()

    def of_row(row: Tensor) -> Tensor:
        found = node(row)
        return torch.stack(found) if isinstance(found, list) else found

    return value_and_gradients(lambda: torch.stack([of_row(row) for row in x]), x, *weights.values())


@every_demo
def test_a_demo_is_pennylanes_in_value_and_gradient(name):
    layer, x = layer_of(name), rows(name, 2)
    torch.testing.assert_close(of_layer(layer, x), of_pennylane(layer, x), atol=1e-10, rtol=1e-10)


@every_demo
def test_a_demo_in_single_precision_is_the_same_to_four_places(name):
    layer, x = layer_of(name), rows(name, 3)
    expected = of_layer(layer, x)
    found = of_layer(layer.float(), x.detach().float().requires_grad_())
    assert all(tensor.dtype == torch.float32 for tensor in found)
    torch.testing.assert_close(tuple(tensor.double() for tensor in found), expected, atol=1e-4, rtol=1e-4)


@small
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_a_demo_can_be_differentiated_twice(name, check):
    layer = layer_of(name)
    names = [key for key, _ in layer.named_parameters()]

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert check(function, (rows(name, 2), *layer.parameters()), fast_mode=True)


@every_demo
def test_stacked_demos_under_vmap_are_a_loop_in_value_and_gradient(name):
    layers = [layer_of(name) for _ in range(3)]
    for i, layer in enumerate(layers):
        layer.load_state_dict({key: weight + 0.3 * i for key, weight in layer.state_dict().items()})
    stacked, _ = stack_module_state(layers)
    x = rows(name, 2)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layers[0], weights, (x,)).square().sum()

    found = torch.vmap(torch.func.grad_and_value(loss), (0, None))(stacked, x.detach())
    loop = [torch.func.grad_and_value(loss)(dict(layer.named_parameters()), x.detach()) for layer in layers]
    expected = (
        {key: torch.stack([gradients[key] for gradients, _ in loop]) for key in stacked},
        torch.stack([v for _, v in loop]),
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["iris", "feature map", "kernel", "embedding"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_and_an_exported_demo_are_the_eager_one(name):
    layer, x = layer_of(name), rows(name, 3)
    expected = of_layer(layer, x)
    whole = name != "iris"  # whose amplitudes are a function of the data
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=whole)
    torch.testing.assert_close(value_and_gradients(lambda: compiled(x), x, *layer.parameters()), expected)
    sizes = ({0: torch.export.Dim("batch", min=2)},) if whole else None  # such a function is exported for one batch size
    exported = torch.export.export(layer, (x.detach(),), dynamic_shapes=sizes).module()
    torch.testing.assert_close(exported(x)[:2], expected[0][:2])
    assert not whole or exported(rows(name, 5)).shape[0] == 5


@every_demo
def test_a_demo_as_a_qnode_is_a_line_away_from_pennylanes_layer(name):
    circuit, n_qubits, n_inputs, weight_shapes, _ = DEMOS[name]
    source = layer_of(name).definition
    arguments = ", ".join(weight_shapes)

    def run(inputs, weights):
        circuit(inputs, **weights)
        return source.measure()

    space = {"run": run}
    exec(f"def node(inputs, {arguments}): return run(inputs, dict(zip({list(weight_shapes)}, [{arguments}])))", space)
    node = qml.QNode(space["node"], qml.device("default.qubit", wires=n_qubits))
    theirs = qml.qnn.TorchLayer(node, weight_shapes).double()
    ours = CircuitLayer.from_qnode(node, weight_shapes).double()
    ours.load_state_dict(theirs.state_dict())
    x = numbers(n_inputs)
    torch.testing.assert_close(ours(x), theirs(x), check_dtype=False)
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("name", [name for name in DEMOS if name not in ("convolution", "iris")])  # amplitudes have no angles
@pytest.mark.parametrize("options", [{"diff_method": "parameter-shift"}, {"simulator": "default.qubit"}])
def test_a_demo_has_its_values_and_gradients_on_every_engine(name, options):
    exact, other, x = layer_of(name), layer_of(name, **options), rows(name, 2)
    torch.testing.assert_close(of_layer(other, x), of_layer(exact, x))


@pytest.mark.parametrize("options", [{}, {"diff_method": "adjoint"}], ids=["parameter-shift", "adjoint"])
@pytest.mark.parametrize("name", ["dressed", "MERA", "hardware-efficient"])
def test_a_demo_has_its_values_and_gradients_on_lightning(name, options):
    exact, other, x = layer_of(name), layer_of(name, simulator="lightning.qubit", **options), rows(name, 2)
    torch.testing.assert_close(of_layer(other, x), of_layer(exact, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("simulator", ["statevector", "default.qubit", "lightning.qubit"])
@pytest.mark.parametrize("name", ["dressed", "feature map", "hardware-efficient", "kernel"])
def test_with_shots_the_mean_of_a_demo_is_its_exact_value(name, simulator):
    shots, repeats = 100, 100
    x = rows(name, 1).detach()
    sampled = layer_of(name, simulator=simulator, shots=shots, seed=0)(x.expand(repeats, -1)).reshape(repeats, -1)
    exact = layer_of(name)(x).reshape(-1)
    standard_error = sampled.std(0) / np.sqrt(repeats)
    assert ((sampled.mean(0) - exact).abs() <= 5 * standard_error + 1e-12).all()


def test_a_demo_learns_in_a_network():
    torch.manual_seed(0)
    layer = CircuitLayer(reuploading, 1, {"theta": (3, 3), "scale": (3, 3)}, z0)
    network = nn.Sequential(nn.Linear(2, 3), layer)
    x = torch.rand(60, 2)
    y = 2.0 * ((x - 0.5).norm(dim=-1) < 0.4) - 1
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = (network(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
