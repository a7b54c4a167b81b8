"""The frozen backbone: the published weights, decoded, and features that are computed once and survive accidents."""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hqnn_utils import backbone, files
from hqnn_utils.backbone import features, resnet18
from hqnn_utils.catalogue import DataError, root, verify
from hqnn_utils.photos import Photos, photos

PQF = root() / "weights" / "pqf_resnet18.pth"
needs_weights = pytest.mark.skipif(not PQF.exists(), reason="needs the weights of Martinez et al. in the data root")


@pytest.fixture
def few(tmp_path) -> Photos:
    """Five small photographs."""
    paths = []
    for k in range(5):
        paths.append(tmp_path / f"{k}.png")
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(paths[-1])
    return Photos("few", ["a", "b"], paths, np.arange(5) % 2, np.array(["train"] * 3 + ["test"] * 2), "sha of few")


@pytest.fixture
def asked(monkeypatch) -> list[Path]:
    """Parts of two photographs, and a network of random weights; lists every photograph that it is shown."""
    torch.manual_seed(0)
    network = resnet18_of_random_weights()
    shown, compute = [], backbone._computed
    monkeypatch.setattr(backbone, "PART", 2)
    monkeypatch.setattr(backbone, "resnet18", lambda weights: network)
    monkeypatch.setattr(backbone, "_computed", lambda network, paths: shown.extend(paths) or compute(network, paths))
    return shown


def resnet18_of_random_weights() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None).eval()


def test_features_are_the_input_of_the_last_layer_in_the_order_of_the_photographs(few, asked, tmp_path):
    found = features(few, cache=tmp_path / "cache")
    network = backbone.resnet18("any")
    network.fc = nn.Identity()
    with torch.no_grad():
        alone = torch.cat([network(backbone._prepared(path).unsqueeze(0)) for path in few.paths])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    assert found.shape == (5, 512) and asked == few.paths


def test_features_are_computed_once(few, asked, tmp_path):
    first = features(few, cache=tmp_path / "cache")
    asked.clear()
    assert torch.equal(features(few, cache=tmp_path / "cache"), first)
    assert asked == []


def test_a_run_that_was_stopped_goes_on_where_it_was(few, asked, tmp_path, monkeypatch):
    compute, calls = backbone._computed, []

    def killed(network, paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(network, paths)

    monkeypatch.setattr(backbone, "_computed", killed)
    with pytest.raises(KeyboardInterrupt):
        features(few, cache=tmp_path / "cache")
    monkeypatch.setattr(backbone, "_computed", compute)
    asked.clear()
    features(few, cache=tmp_path / "cache")
    assert asked == few.paths[2:]
    assert {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {".npz", ".lock"}


def test_two_that_ask_at_the_same_time_share_the_work(few, asked, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: features(few, cache=tmp_path / "cache"), range(2))
    assert torch.equal(one, other)
    assert sorted(asked) == few.paths


def test_the_progress_bar_is_gone_when_the_features_are_there(few, asked, tmp_path, capsys):
    features(few, cache=tmp_path / "cache")
    shown = capsys.readouterr().err
    assert "few" in shown and "\n" not in shown and shown.split("\r")[-1].strip() == ""
    features(few, cache=tmp_path / "cache")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "something else", "empty"])
def test_a_damaged_part_is_computed_anew_with_a_warning(few, asked, tmp_path, damage):
    first = features(few, cache=tmp_path / "cache")
    part = next((tmp_path / "cache").rglob("00002.npz"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    broken = {"cut off": content[:500], "a bit flipped": content, "something else": b"hello", "empty": b""}[damage]
    part.write_bytes(bytes(broken))
    asked.clear()
    with pytest.warns(UserWarning, match=r"00002\.npz cannot be read .* and is computed anew"):
        again = features(few, cache=tmp_path / "cache")
    assert torch.equal(again, first) and asked == few.paths[2:4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(few, cache=tmp_path / "cache")


def test_features_of_another_backbone_are_refused(few, asked, tmp_path):
    features(few, weights="resnet18", cache=tmp_path / "cache")
    features(few, weights="resnet18-pqf", cache=tmp_path / "cache")
    one, other = sorted((tmp_path / "cache").iterdir())
    (one / "00000.npz").write_bytes((other / "00000.npz").read_bytes())
    with pytest.raises(DataError, match=r"holds features of another origin .*remove the folder"):
        features(few, weights="resnet18", cache=tmp_path / "cache")


def test_other_images_have_features_of_their_own(few, asked, tmp_path):
    features(few, cache=tmp_path / "cache")
    asked.clear()
    features(Photos(**(vars(few) | {"sha256": "another"})), cache=tmp_path / "cache")
    assert asked == few.paths


def test_unknown_weights_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown weights 'resnet50': choose one of resnet18, resnet18-pqf"):
        resnet18("resnet50")


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / PQF.name).write_bytes(b"something else")
    with pytest.raises(DataError, match="is not the published file"):
        resnet18("resnet18-pqf")


def test_weights_that_cannot_be_had_are_refused_with_a_way_on(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    monkeypatch.setattr(backbone, "PQF_URL", "http://127.0.0.1:9/resnet18.pth")  # nobody listens there
    monkeypatch.setattr(files, "cache", lambda: tmp_path)
    with pytest.raises(DataError, match=r"could not be fetched from .* set HQNN_DATA to a folder that holds weights/"):
        resnet18("resnet18-pqf")


@needs_weights
def test_the_published_file_has_the_checksum_of_the_source():
    assert hashlib.sha256(PQF.read_bytes()).hexdigest() == backbone.PQF_SHA256


@needs_weights
def test_a_decoded_weight_is_made_of_its_codebook():
    stored, network = torch.load(PQF, weights_only=True, map_location="cpu"), resnet18()
    weight = network.layer1[0].conv1.weight.reshape(64, 64, 9)
    codes, codebook = stored["layer1.0.conv1.codes_matrix"].long(), stored["layer1.0.conv1.codebook"].float()
    for row, column in ((0, 0), (5, 63), (63, 7)):
        assert torch.equal(weight[row, column], codebook[codes[row, column]])
    assert not any(parameter.requires_grad for parameter in network.parameters()) and not network.training


@needs_weights
def test_the_decoded_network_knows_ants_from_bees():
    if set(verify("hymenoptera").values()) != {"ok"}:
        pytest.skip("needs the photographs: try `hqnn data fetch hymenoptera`")
    found, network = photos("hymenoptera"), resnet18()
    rows = found.of("test")[::6]
    with torch.no_grad():
        scores = torch.cat([network(backbone._prepared(found.paths[row]).unsqueeze(0)) for row in rows])
    said = scores.argmax(1).numpy()
    right = said == np.where(found.labels[rows] == 0, 310, 309)  # ImageNet's classes ant and bee
    assert right.mean() > 0.6  # among a thousand classes; 0.76 of all 397
