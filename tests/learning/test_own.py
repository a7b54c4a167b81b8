"""Middles of anyone: found by name, tried, and trained as the book's own; or refused with a sentence."""

import importlib
import re
import sys
import textwrap

import pytest
import torch

from hqnn_utils.learning import own, trained
from hqnn_utils.learning.methods import network
from hqnn_utils.learning.own import MiddleError
from hqnn_utils.learning.tasks import Task
from hqnn_utils.learning.training import Ensemble
from hqnn_utils.quantum.layers import CircuitLayer

MINE = """
import pennylane as qml
import torch
from torch import nn

class Cubed(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(n))
    def forward(self, x):
        return self.factor * x**3

def deep(n, depth):
    return nn.Sequential(*[nn.Linear(n, n) for _ in range(depth)])

ready = nn.Linear(3, 3)
device = qml.device("default.qubit", wires=3)

@qml.qnode(device, interface="torch")
def node(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return [qml.expval(qml.Z(k)) for k in range(3)]

layer = qml.qnn.TorchLayer(node, {"weights": (2, 3)})
pair = node, {"weights": (1, 3)}

class Wide(nn.Module):
    def __init__(self, n): super().__init__()
    def forward(self, x): return torch.cat([x, x], dim=-1)

class Numb(nn.Module):
    def __init__(self, n): super().__init__()
    def forward(self, x): return x.detach().sign().requires_grad_()

class Endless(nn.Module):
    def __init__(self, n): super().__init__()
    def forward(self, x): return x / 0

class Looking(nn.Module):
    def __init__(self, n): super().__init__()
    def forward(self, x): return x if x.sum() > 0 else -x

def normed(n): return nn.BatchNorm1d(n)
def dropping(n): return nn.Dropout(0.5)
def number(n): return 3
def raising(n): raise RuntimeError("not today")
text = "a word"
"""


@pytest.fixture
def mine(tmp_path):
    """The name of an attribute of a file."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    return lambda attribute: f"{tmp_path / 'mine.py'}:{attribute}"


@pytest.mark.parametrize("attribute", ["Cubed", "deep", "ready", "layer", "pair"])
def test_modules_functions_and_circuits_are_middles(mine, attribute):
    make = own.middle(mine(attribute), 3)
    ensemble = Ensemble(lambda: network("ResNet18", make, 2, n_qubits=3), range(2))
    assert ensemble(torch.randn(2, 5, 512)).shape == (2, 5, 2)
    assert make.name == attribute
    if attribute in ("layer", "pair"):
        assert isinstance(make(3, 2), CircuitLayer)


def test_a_circuit_of_ones_own_computes_what_pennylane_does_and_starts_anew(mine):
    make = own.middle(mine("layer"), 3)
    layer, other = make(3, 2), make(3, 2)
    assert not torch.equal(layer.weights, other.weights)
    x = torch.randn(4, 3)
    expected = torch.stack([torch.stack(layer.qnode(row, weights=layer.weights)) for row in x])
    torch.testing.assert_close(layer(x), expected.float(), atol=1e-5, rtol=0)


def test_a_module_that_is_there_already_draws_its_weights_anew(mine):
    make = own.middle(mine("ready"), 3)
    assert not torch.equal(make(3, 2).weight, make(3, 2).weight)


def test_a_middle_may_be_named_by_its_module():
    make = own.middle("hqnn_utils.quantum.layers:QuantumLayer", 4)
    assert make(4, 3)(torch.zeros(1, 4)).shape == (1, 4)


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("Wide", "makes (3, 6) of (3, 3): a middle hands on as many numbers as it takes"),
        ("Numb", "has no gradient with respect to its input"),
        ("Endless", "makes numbers that are not finite"),
        ("Looking", "can't be trained many at a time"),
        ("normed", "has another answer for a row alone"),
        ("dropping", "has another answer for a row alone, or the second time"),
        ("number", "a torch.nn.Module was expected, got int"),
        ("raising", "(RuntimeError: not today)"),
        ("node", "a pair of a QNode and its weight shapes"),
        ("text", "is no middle (expected a module"),
        ("nothing", "can't be had (AttributeError"),
    ],
)
def test_what_is_no_middle_is_refused_with_a_sentence(mine, attribute, said):
    with pytest.raises(MiddleError, match=re.escape(said)):
        own.middle(mine(attribute), 3)


def test_what_was_trained_with_it_is_kept_until_it_changes(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(trained.files, "cache", lambda: tmp_path / "cache")
    x, labels = torch.randn(24, 5), torch.arange(24) % 2
    task = Task("mine", "clean", "features", ["low", "high"], x[:16], labels[:16], x[16:], labels[16:], list(range(8)), "")
    settings = trained.Settings(epochs=1, batch_size=8, learning_rate=0.01, n_qubits=3)
    fits, fit = [], trained.fit
    monkeypatch.setattr(trained, "fit", lambda *given, **how: fits.append(given) or fit(*given, **how))

    def run(attribute="Cubed"):
        return trained.course(task, own.middle(mine(attribute), 3), range(2), settings)

    first, again = run(), run()
    assert len(fits) == 1 and (first.loss == again.loss).all()
    run("deep")
    assert len(fits) == 2
    file = tmp_path / "mine.py"
    file.write_text(file.read_text().replace("self.factor * x**3", "self.factor * x**3 + (x - 900).relu()"))
    run()  # another function far away from where it was tried
    assert len(fits) == 3


def test_a_middle_that_refuses_large_numbers_is_one_and_is_trained_each_time(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nclass Small(nn.Linear):\n    def __init__(self, n): super().__init__(n, n)\n"
        "    def forward(self, x):\n        if len(x) > 100: raise ValueError('too many')\n        return super().forward(x)\n"
    )
    assert not own.middle(f"{tmp_path}/mine.py:Small", 3).fingerprint


def test_a_file_that_a_middle_uses_counts_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("import hqnn_part\ndef layer(n): return hqnn_part.Part(n)\n")
    part = "from torch import nn\nclass Part(nn.Linear):\n    def __init__(self, n): super().__init__(n, n)\n"
    (tmp_path / "hqnn_part.py").write_text(part)
    found = [own.middle(f"{tmp_path}/mine.py:layer", 3).fingerprint for _ in range(2)]
    assert found[0] == found[1]
    (tmp_path / "hqnn_part.py").write_text(part + "    def forward(self, x): return super().forward(x).clamp(-1e3, 1e3)\n")
    monkeypatch.delitem(sys.modules, "hqnn_part")
    importlib.invalidate_caches()
    assert own.middle(f"{tmp_path}/mine.py:layer", 3).fingerprint != found[0]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("mine", "expected package.module:attribute or file.py:attribute, got 'mine'"),
        ("no.such.module:layer", "can't be had (ModuleNotFoundError"),
        ("no/such/file.py:layer", "can't be had (FileNotFoundError"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(named, said):
    with pytest.raises(MiddleError, match=re.escape(said)):
        own.middle(named, 3)
