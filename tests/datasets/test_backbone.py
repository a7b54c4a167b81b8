"""The frozen backbone: the published weights, decoded, and features that are computed once and survive accidents."""

import hashlib
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from hqnn_utils import files
from hqnn_utils.datasets import backbone
from hqnn_utils.datasets.backbone import features, prepared, resnet18
from hqnn_utils.datasets.catalogue import DataError, root, verify
from hqnn_utils.datasets.photos import Photos
from hqnn_utils.datasets.photos import published as photos

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
    monkeypatch.setattr(
        backbone, "_computed", lambda network, paths, *rest: shown.extend(paths) or compute(network, paths, *rest)
    )
    return shown


def resnet18_of_random_weights() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None).eval()


def test_features_are_the_input_of_the_last_layer_in_the_order_of_the_photographs(few, asked, tmp_path):
    found = features(few, cache=tmp_path / "cache")
    network = backbone.resnet18("any")
    network.fc = nn.Identity()
    with torch.no_grad():
        alone = torch.cat([network(prepared([path])) for path in few.paths])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    assert found.shape == (5, 512) and asked == few.paths


def test_features_are_computed_once(few, asked, tmp_path):
    first = features(few, cache=tmp_path / "cache")
    asked.clear()
    assert torch.equal(features(few, cache=tmp_path / "cache"), first)
    assert asked == []


def test_a_run_that_was_stopped_goes_on_where_it_was(few, asked, tmp_path, monkeypatch):
    compute, calls = backbone._computed, []

    def killed(network, paths, *rest):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(network, paths, *rest)

    monkeypatch.setattr(backbone, "_computed", killed)
    with pytest.raises(KeyboardInterrupt):
        features(few, cache=tmp_path / "cache")
    monkeypatch.setattr(backbone, "_computed", compute)
    asked.clear()
    features(few, cache=tmp_path / "cache")
    assert asked == few.paths[2:]
    assert {path.name for path in kept(tmp_path)} == {"00000.f32", "00002.f32", "00004.f32", "lock"}


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


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


DAMAGES = {
    "cut off": lambda content: content[:500],
    "longer": lambda content: content + b"\0",
    "something else": lambda content: b"hello",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "not a number": lambda content: content[:32] + np.full(len(content) // 4 - 8, np.nan, "<f4").tobytes(),
    "an npz": lambda content: b"PK\x03\x04" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_computed_anew_with_a_warning(few, asked, tmp_path, damage):
    first = features(few, cache=tmp_path / "cache")
    (part,) = [path for path in kept(tmp_path) if path.name == "00002.f32"]
    part.write_bytes(damage(part.read_bytes()))
    asked.clear()
    with pytest.warns(UserWarning, match=r"00002\.f32 is not as it was kept, and is computed anew"):
        again = features(few, cache=tmp_path / "cache")
    assert torch.equal(again, first) and asked == few.paths[2:4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(few, cache=tmp_path / "cache")


@given(bit=st.integers(0, 8 * (32 + 2 * 512 * 4) - 1))
@settings(max_examples=100)
def test_a_flipped_bit_is_noticed_wherever_it_is(bit):
    sealed = bytearray(backbone._sealed(np.ones((2, 512), "<f4").tobytes(), "key", "00000.f32"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.f32"
        path.write_bytes(sealed)
        assert backbone._kept(path, "key", 2) is not None
        sealed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(sealed)
        assert backbone._kept(path, "key", 2) is None


def test_features_of_another_backbone_are_not_taken_for_these(few, asked, tmp_path):
    wanted = features(few, weights="resnet18", cache=tmp_path / "cache")
    features(few, weights="resnet18-pqf", cache=tmp_path / "cache")
    one, other = sorted((tmp_path / "cache").iterdir())
    (one / "00000.f32").write_bytes((other / "00000.f32").read_bytes())
    asked.clear()
    with pytest.warns(UserWarning, match="is not as it was kept"):
        assert torch.equal(features(few, weights="resnet18", cache=tmp_path / "cache"), wanted)
    assert asked == few.paths[:2]


def test_features_of_other_photographs_are_not_taken_for_these(few, asked, tmp_path):
    wanted = features(few, cache=tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "00000.f32").write_bytes((folder / "00002.f32").read_bytes())
    with pytest.warns(UserWarning, match="is not as it was kept"):
        assert torch.equal(features(few, cache=tmp_path / "cache"), wanted)


def checked(few: Photos) -> Photos:
    """As `photos` gives them: with the SHA-256 of each file."""
    return replace(few, hashes=[hashlib.sha256(path.read_bytes()).hexdigest() for path in few.paths])


def test_features_belong_to_the_photographs_that_were_checked(few, asked, tmp_path):
    good = checked(few)
    was, other = few.paths[3].read_bytes(), few.paths[0].read_bytes()
    few.paths[3].write_bytes(other)
    with pytest.raises(DataError, match=r"3\.png is not the published file"):
        features(good, cache=tmp_path / "cache")
    few.paths[3].write_bytes(was)
    asked.clear()
    assert torch.equal(features(good, cache=tmp_path / "cache"), features(few, cache=tmp_path / "another"))
    assert asked[:3] == few.paths[2:]  # and of the altered one nothing had been kept


def test_features_of_some_photographs_are_not_taken_for_those_of_others(few, asked, tmp_path):
    good = checked(few)
    first, turned = (replace(good, paths=good.paths[::k], hashes=good.hashes[::k]) for k in (1, -1))
    assert torch.equal(features(first, cache=tmp_path / "cache").flip(0), features(turned, cache=tmp_path / "cache"))


def test_features_that_are_no_numbers_are_refused_by_the_photographs_name(few, asked, tmp_path):
    torch.nn.init.constant_(backbone.resnet18("any").layer4[1].bn2.bias, float("nan"))
    with pytest.raises(DataError, match=r"the features of .*0\.png hold NaN or infinity"):
        features(few, cache=tmp_path / "cache")
    assert [path.name for path in kept(tmp_path)] == ["lock"]


def test_a_folder_that_cannot_be_written_is_named(few, asked, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"features cannot be kept in .*cache.*: make room, or choose another cache"):
        features(few, cache=tmp_path / "cache")


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
    monkeypatch.setitem(backbone.WEIGHTS["resnet18-pqf"], "url", "http://127.0.0.1:9/resnet18.pth")  # nobody listens there
    monkeypatch.setattr(files, "cache", lambda: tmp_path / "cache")
    with pytest.raises(DataError, match=r"could not be fetched from .* set HQNN_DATA to a folder that holds weights/"):
        resnet18("resnet18-pqf")


def test_plain_weights_are_loaded_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    published = resnet18_of_random_weights()
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / backbone.WEIGHTS["resnet18"]["file"]
    torch.save({name: tensor for name, tensor in published.state_dict().items() if "batches" not in name}, path)
    monkeypatch.setitem(backbone.WEIGHTS["resnet18"], "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    loaded = resnet18("resnet18").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.state_dict().items())


def test_torchvisions_weights_are_those_that_torchvision_names():
    from torchvision.models import ResNet18_Weights

    wanted = backbone.WEIGHTS["resnet18"]
    assert wanted["url"] == ResNet18_Weights.IMAGENET1K_V1.url
    assert wanted["file"] == f"resnet18-{wanted['sha256'][:8]}.pth" == wanted["url"].rsplit("/")[-1]
    assert wanted["bytes"] / 2**20 == pytest.approx(ResNet18_Weights.IMAGENET1K_V1.meta["_file_size"], abs=1e-3)


@needs_weights
def test_the_published_file_has_the_checksum_of_the_source():
    assert hashlib.sha256(PQF.read_bytes()).hexdigest() == backbone.WEIGHTS["resnet18-pqf"]["sha256"]


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
        scores = torch.cat([network(prepared([found.paths[row]])) for row in rows])
    said = scores.argmax(1).numpy()
    right = said == np.where(found.labels[rows] == 0, 310, 309)  # ImageNet's classes ant and bee
    assert right.mean() > 0.6  # among a thousand classes; 0.76 of all 397
