"""The frozen backbone: the published weights, decoded, and features that are computed once and survive accidents."""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hqnn_utils.datasets import backbone, catalogue
from hqnn_utils.datasets.backbone import features, prepared, resnet18
from hqnn_utils.datasets.catalogue import DataError, MissingData, entry, root
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
    assert sorted(path.suffix for path in kept(tmp_path)) == [".kept", ".lock"]


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
def test_what_was_damaged_is_computed_anew_with_a_warning(few, asked, tmp_path, damage):
    first = features(few, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.kept")
    file.write_bytes(damage(file.read_bytes()))
    asked.clear()
    with pytest.warns(UserWarning, match=rf"{file.name} is not as it was kept, and is computed anew"):
        again = features(few, cache=tmp_path / "cache")
    assert torch.equal(again, first) and asked == few.paths
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(few, cache=tmp_path / "cache")


def test_features_of_another_backbone_or_of_other_photographs_are_not_taken_for_these(few, asked, tmp_path):
    wanted = features(few, weights="resnet18", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.kept")
    for other in ({"weights": "resnet18-pqf"}, {"photographs": replace(few, sha256="another")}):
        features(**{"photographs": few, "weights": "resnet18"} | other, cache=tmp_path / "other")
    for other in (tmp_path / "other").glob("*.kept"):
        file.write_bytes(other.read_bytes())
        asked.clear()
        with pytest.warns(UserWarning, match="is not as it was kept"):
            assert torch.equal(features(few, weights="resnet18", cache=tmp_path / "cache"), wanted)
        assert asked == few.paths


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
    assert [path.suffix for path in kept(tmp_path)] == [".lock"]


def test_a_folder_that_cannot_be_written_is_named(few, asked, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"nothing can be kept in .*cache .*: make room"):
        features(few, cache=tmp_path / "cache")


def test_unknown_weights_are_refused_by_name():
    with pytest.raises(DataError, match="unknown weights 'resnet50': the catalogue has resnet18, resnet18-pqf"):
        resnet18("resnet50")


def test_a_data_set_is_no_weights():
    with pytest.raises(DataError, match=r"'mnist' is a set of digits: `hqnn_utils\.datasets\.digits\.load\('mnist'\)`"):
        resnet18("mnist")


@pytest.fixture
def unreachable(monkeypatch, tmp_path) -> Path:
    """Weights that cannot be fetched, and where they would lie."""
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    described = replace(entry("resnet18-pqf"), mirrors=["http://127.0.0.1:9/"])  # nobody listens there
    monkeypatch.setattr(catalogue, "entries", lambda: {"resnet18-pqf": described})
    return tmp_path / "weights" / PQF.name


def test_weights_that_are_not_the_published_ones_are_refused(unreachable):
    unreachable.parent.mkdir()
    unreachable.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"weights 'resnet18-pqf': pqf_resnet18\.pth is altered in .*could not be downloaded"):
        resnet18("resnet18-pqf")


def test_weights_that_cannot_be_had_are_refused_with_a_way_on(unreachable):
    sentence = (
        r"127\.0\.0\.1:9/resnet18\.pth: (.|\n)*`hqnn data fetch resnet18-pqf` .* HQNN_DATA to a folder that holds weights/"
    )
    with pytest.raises(MissingData, match=sentence) as refused:
        resnet18("resnet18-pqf")
    assert "digits" not in str(refused.value)  # which are no way on here


def test_plain_weights_are_loaded_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    published = resnet18_of_random_weights()
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "resnet18-f37072fd.pth"
    torch.save({name: tensor for name, tensor in published.state_dict().items() if "batches" not in name}, path)
    described = replace(entry("resnet18"), files={path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}})
    monkeypatch.setattr(catalogue, "entries", lambda: {"resnet18": described})
    loaded = resnet18("resnet18").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.state_dict().items())


def test_torchvisions_weights_are_those_that_torchvision_names():
    from torchvision.models import ResNet18_Weights

    (mirror,), ((file, facts),) = entry("resnet18").mirrors, entry("resnet18").files.items()
    assert mirror + file == ResNet18_Weights.IMAGENET1K_V1.url
    assert file == f"resnet18-{facts['sha256'][:8]}.pth"
    assert facts["bytes"] / 2**20 == pytest.approx(ResNet18_Weights.IMAGENET1K_V1.meta["_file_size"], abs=1e-3)


@needs_weights
def test_the_published_file_has_the_checksum_of_the_source():
    assert entry("resnet18-pqf").verify() == {PQF.name: "ok"}
    assert hashlib.sha256(PQF.read_bytes()).hexdigest().startswith("6b9fc5f66a84")


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
    if set(entry("hymenoptera").verify().values()) != {"ok"}:
        pytest.skip("needs the photographs: try `hqnn data fetch hymenoptera`")
    found, network = photos("hymenoptera"), resnet18()
    rows = found.of("test")[::6]
    with torch.no_grad():
        scores = torch.cat([network(prepared([found.paths[row]])) for row in rows])
    said = scores.argmax(1).numpy()
    right = said == np.where(found.labels[rows] == 0, 310, 309)  # ImageNet's classes ant and bee
    assert right.mean() > 0.6  # among a thousand classes; 0.76 of all 397


@torch.no_grad()
def test_an_unfolded_network_computes_the_same_at_rest_and_has_the_statistics_of_the_images():
    torch.manual_seed(1)
    network, images = resnet18_of_random_weights(), torch.rand(20, 3, 64, 64)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.uniform_(0.5, 1.5), norm.bias.normal_(0, 0.1), norm.running_var.uniform_(0.5, 2)
    expected = network(images)
    unfolded = backbone.unfolded(network, images)
    torch.testing.assert_close(unfolded(images), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(unfolded.bn1.running_mean, unfolded.conv1(images).mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    # So in training mode, shown all of them, it computes the same too, as the folded one would not.
    assert (unfolded.train()(images) - expected).abs().max() < 1e-2 * expected.abs().max()
