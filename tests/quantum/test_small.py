"""Small batches, which NumPy computes, held against torch's own way through the same steps."""

from math import nan

import pennylane as qml
import pytest
import torch
from torch import Tensor

from hqnn_utils.quantum import programs, small
from hqnn_utils.quantum.compilation import program
from hqnn_utils.quantum.layers import CircuitLayer


def wide(x, w):
    """Blocks, moves, exchanges, and phases of each half and of both, shared and of the data."""
    qml.AngleEmbedding(x, wires=range(8), rotation="Y")
    for layer in range(2):
        for i in range(8):
            qml.IsingZZ(w[layer, 0] * x[..., i], [i, (i + 1) % 8])
            qml.RZ(w[layer, 1], i)
            qml.RX(w[layer, i], i)
        qml.CNOT([0, 5])
        qml.CY([3, 7])


def prepared(x, w):
    """States of the data, and a product of them with other qubits."""
    qml.AmplitudeEmbedding(x, wires=[1, 3, 0], normalize=True)
    qml.StronglyEntanglingLayers(w[:, :4, None] * torch.ones(3), wires=range(4))


def turned(x, w):
    """A complex state of the data."""
    qml.StatePrep(torch.polar(torch.full_like(x, 8**-0.5), x), wires=range(3))
    qml.StronglyEntanglingLayers(w[:, :3, None] * torch.ones(3), wires=range(3))


def polynomial(x, w):
    """Sums of products of inputs and weights; the last input is without use."""
    for i in range(3):
        qml.RX(w[0, i] * x[..., i] + x[..., 0] - 1, i)
        qml.RY(w[1, i] + w[0, i] * w[0, 0], i)
        qml.CNOT([i, (i + 1) % 3])


def learned(x, w):
    """A state of the weights, in another order, and the data behind it."""
    qml.AmplitudeEmbedding(torch.roll(w.reshape(-1), 3), wires=[2, 0, 3, 1], normalize=True)
    qml.AngleEmbedding(x[..., :4], wires=range(4), rotation="X")
    qml.StronglyEntanglingLayers(w[:, :4, None] * torch.ones(3), wires=range(4))


CIRCUITS = {learned: 4, wide: 8, prepared: 4, turned: 3, polynomial: 3}


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layer_of(circuit) -> CircuitLayer:
    layer = CircuitLayer(circuit, CIRCUITS[circuit], {"w": (2, 8)}).double()
    layer.load_state_dict({"w": numbers(2, 8)})
    return layer


def of(layer: CircuitLayer, x: Tensor, *wanted: bool) -> tuple[Tensor, ...]:
    """Value and gradients, to the input, to the weights or to both."""
    x = x.clone().requires_grad_(wanted[0])
    layer.w.requires_grad_(wanted[1])
    value = layer(x)
    leaves = [leaf for leaf in (x, layer.w) if leaf.requires_grad]
    return value.detach(), *torch.autograd.grad(value.square().sum(), leaves)


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_values_and_gradients_are_those_of_torch(circuit, rows, wanted, monkeypatch):
    layer, x = layer_of(circuit), numbers(rows, 8)
    ran = []
    run = small.Small.run
    monkeypatch.setattr(small.Small, "run", lambda self, *inputs: ran.append(1) or run(self, *inputs))
    found = of(layer, x, *wanted)
    assert ran
    monkeypatch.setattr(programs, "LARGEST", 0)
    torch.testing.assert_close(found, of(layer, x, *wanted))
    assert len(ran) == 1


def halved(x, w):
    """Half of the input as a state, of which the norm is that of all."""
    qml.StatePrep(x[..., :4] / torch.linalg.vector_norm(x[..., :4], dim=-1, keepdim=True), wires=range(2))
    qml.RX(w[0, 0], 0)


@pytest.mark.parametrize(("circuit", "has_graph"), [(prepared, False), (learned, False), (turned, True), (halved, True)])
def test_only_what_is_no_whole_argument_divided_by_its_norm_goes_through_a_graph(circuit, has_graph):
    layer = CircuitLayer(circuit, CIRCUITS.get(circuit, 2), {"w": (2, 8)})
    assert program(layer.key, 8).has_functions == has_graph


def test_a_row_of_zeros_is_no_state():
    with pytest.raises(ValueError, match="a state must have norm 1, got nan"):
        layer_of(prepared)(torch.zeros(2, 8, dtype=torch.float64))


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_graph_that_is_kept_gives_its_gradient_again(circuit):
    layer, x = layer_of(circuit), numbers(2, 8).requires_grad_()
    total = layer(x).sum()
    first, again = (torch.autograd.grad(total, [x, layer.w], retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.autograd.grad(total, [x])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, [x])


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_second_derivatives_are_those_of_torch(circuit, monkeypatch):
    layer, x = layer_of(circuit), numbers(2, 8).requires_grad_()

    def derivatives() -> list[Tensor]:
        first = torch.autograd.grad(layer(x).square().sum(), [x, layer.w], create_graph=True)
        return [*first, *torch.autograd.grad(sum(one.square().sum() for one in first), [x, layer.w])]

    found = derivatives()
    monkeypatch.setattr(programs, "LARGEST", 0)
    torch.testing.assert_close(found, derivatives())


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_many_gradients_come_back_at_once(circuit):
    layer, x = layer_of(circuit), numbers(1, 8).requires_grad_()
    value = layer(x)
    ones = torch.eye(value.numel(), dtype=x.dtype).unsqueeze(1)
    at_once = torch.autograd.grad(value, [x, layer.w], ones, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(value, [x, layer.w], one, retain_graph=True) for one in ones]
    torch.testing.assert_close(at_once, tuple(map(torch.stack, zip(*each, strict=True))))


def test_weights_that_were_changed_meanwhile_are_refused_as_by_torch():
    layer = layer_of(polynomial)
    total = layer(numbers(2, 8)).sum()
    with torch.no_grad():
        layer.w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_nan_stays_in_its_row_and_out_of_it_where_the_input_has_no_use():
    x = numbers(3, 8)
    x[0, 7], x[1, 0] = nan, nan
    found, expected = layer_of(polynomial)(x), layer_of(polynomial)(numbers(3, 8))
    torch.testing.assert_close(found[2], expected[2])
    assert found[1].isnan().all()
