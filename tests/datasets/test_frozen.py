"""Other frozen networks: torchvision's, whose published files are imitated here, and anyone's own."""

import hashlib
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from hqnn_utils.datasets import backbone, frozen
from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.datasets.photos import Photos

MINE = """
from torch import nn
from torchvision.transforms.functional import to_tensor

class Means(nn.Module):
    def forward(self, x): return x.mean(dim=(2, 3))
    def prepare(self, picture):
        return to_tensor(picture.resize((8, 8)))

ready = nn.Sequential(nn.AvgPool2d(56), nn.Flatten())
class Numbers(nn.Module):
    def forward(self, x): return 3
class Endless(nn.Module):
    def forward(self, x): return x.mean(dim=(2, 3)) / 0
class Flat(nn.Module):
    def forward(self, x): return x[:, :, 0, 0, 0]
class Looking(nn.Module):
    def forward(self, x): return x.mean(dim=(2, 3)) + len(x)
class Unprepared(nn.Module):
    def prepare(self, picture): raise RuntimeError("no picture")
def text(): return "a word"
def raising(): raise RuntimeError("not today")
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    return lambda attribute: f"{tmp_path / 'mine.py'}:{attribute}"


@pytest.fixture
def few(tmp_path) -> Photos:
    """Three pictures, each of one colour."""
    colours, paths = [(255, 0, 0), (0, 255, 0), (0, 0, 51)], [tmp_path / f"{k}.png" for k in range(3)]
    for colour, path in zip(colours, paths, strict=True):
        Image.new("RGB", (40, 30), colour).save(path)
    return Photos("few", ["a", "b"], paths, np.array([0, 1, 0]), np.array(["train", "train", "test"]), "sha of few")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Random weights of a small network, where torch would have put the published ones, under a name that is true of them."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name, weights = "shufflenet_v2_x0_5", models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "some.pth")
    sha256 = hashlib.sha256((tmp_path / "some.pth").read_bytes()).hexdigest()
    path = tmp_path / "checkpoints" / f"shufflenet-{sha256[:10]}.pth"
    (tmp_path / "some.pth").rename(path)
    monkeypatch.setattr("hqnn_utils.datasets.frozen._place", lambda url: path)
    return name, network, weights, path


def test_a_network_of_torchvision_makes_what_its_last_layer_is_shown(published, few, tmp_path):
    name, network, weights, _ = published
    found = backbone.features(few, name, tmp_path / "cache")
    network.fc = torch.nn.Identity()
    pictures = torch.stack([weights.transforms()(Image.open(path)) for path in few.paths])
    with torch.no_grad():
        torch.testing.assert_close(found, network(pictures))
    assert found.shape == (3, 1024)


def test_a_network_of_ones_own_sees_pictures_its_own_way(mine, few, tmp_path):
    found = backbone.features(few, mine("Means"), tmp_path / "cache")
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0.2]]))
    assert backbone.features(few, mine("ready"), tmp_path / "cache").shape == (3, 3 * 4 * 4)


def test_features_of_another_network_are_not_taken_for_those_that_were_kept(mine, few, tmp_path):
    first = backbone.features(few, mine("Means"), tmp_path / "cache")
    file = tmp_path / "mine.py"
    file.write_text(file.read_text().replace("x.mean(dim=(2, 3))", "2 * x.mean(dim=(2, 3))"))
    torch.testing.assert_close(backbone.features(few, mine("Means"), tmp_path / "cache"), 2 * first)


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("Numbers", "makes no finite features"),
        ("Endless", "makes no finite features"),
        ("Flat", "doesn't take a picture (IndexError"),
        ("Unprepared", "doesn't take a picture (RuntimeError: no picture)"),
        ("Looking", "sees a picture otherwise when it is alone"),
        ("text", "is a str: expected a torch.nn.Module or what makes one"),
        ("raising", "RuntimeError: not today"),
        ("absent", "can't be had (AttributeError"),
    ],
)
def test_what_makes_no_features_is_refused(mine, attribute, said):
    with pytest.raises(DataError) as refused:
        frozen.load(mine(attribute))
    assert said in str(refused.value)


def test_weights_that_are_absent_or_not_the_published_ones_are_refused(published, few):
    name, _, _, path = published
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="is not what was published: its SHA-256 begins with"):
        frozen.load(name)
    path.unlink()
    with pytest.raises(DataError, match=rf"the weights of {name} are not here: download https://.* to .*checkpoints"):
        frozen.load(name)
    with pytest.raises(DataError, match="there is no network 'resnet17': expected resnet18"):
        frozen.load("resnet17")


def test_a_network_without_a_last_linear_layer_is_refused(monkeypatch, tmp_path):
    network = models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    monkeypatch.setattr("hqnn_utils.datasets.frozen._place", lambda url: tmp_path / "squeezenet.pth")
    with pytest.raises(DataError, match="does not end in a linear layer: cut it yourself"):
        frozen.load("squeezenet1_1")
