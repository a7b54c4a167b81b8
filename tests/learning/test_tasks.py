"""The tasks of Experiment 3: what a network is shown of each data set, and what is there."""

import hashlib
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hqnn_utils.checks import NotFinite
from hqnn_utils.datasets import backbone, catalogue, digits, folders, photos, rows
from hqnn_utils.datasets.catalogue import DataError, Dataset, MissingData
from hqnn_utils.learning.tasks import Task, centred, chosen, facts, fewer, given, held_out, standardised, task, without
from hqnn_utils.learning.training import Ensemble


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def pictures() -> dict[str, Image.Image]:
    """Twelve photographs of two classes, by file; two of the tests are also for training."""
    places = [f"{folder}/{label}" for folder in ("Training", "Testing") for label in "ba" for _ in range(3)]
    files = {f"{place}/{seed}.png": noise(seed) for seed, place in enumerate(places)}
    return files | {"Testing/a/leak.png": noise(3), "Testing/b/leak.png": noise(0)}


def small_network(weights: str) -> nn.Module:
    """In place of ResNet18: 512 features from a photograph, quickly, other ones for other weights."""
    torch.manual_seed(len(weights))
    features = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(3 * 64, 512))
    return nn.Sequential(OrderedDict(features=features, fc=nn.Linear(512, 1000))).requires_grad_(False)


@pytest.fixture
def toy(monkeypatch, tmp_path) -> Dataset:
    """A data set of photographs, `toy`, beside the digits, and a backbone that is small."""
    files = {}
    for file, picture in pictures().items():
        path = tmp_path / "data" / "toy" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        files[file] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
    described = Dataset(
        "toy",
        "photographs",
        classes=["b", "a"],
        counts={"train": 6, "test": 8},
        files=files,
        size=1,
        splits={"train": "Training", "test": "Testing"},
        mirrors=["http://127.0.0.1:9/"],  # nobody listens there
        **about,
    )
    digits = catalogue.entry("digits")
    monkeypatch.setenv("HQNN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(catalogue, "entries", lambda: {"toy": described, "digits": digits})
    monkeypatch.setattr(backbone.files, "cache", lambda: tmp_path)  # where features are kept
    monkeypatch.setattr(backbone, "resnet18", small_network)
    return described


def features_of(path: Path, weights: str = "resnet18-pqf") -> torch.Tensor:
    """The oracle: the network without its last layer, shown this photograph alone."""
    return small_network(weights).features(backbone.prepared([path])).squeeze(0)


# Digits


def same_but(found, whole, *names: str) -> bool:
    """Whether two tasks hold the very same things but for these; tensors are not compared by ==."""
    return all(getattr(found, f.name) is getattr(whole, f.name) for f in fields(whole) if f.name not in names)


def test_digits_are_shown_to_a_lenet_as_they_are():
    found, images = task("digits"), digits.load("digits")
    assert (found.name, found.body, found.classes, found.sha256) == ("digits", "LeNet", images.classes, images.sha256)
    assert (found.train_inputs.shape, found.test_inputs.shape) == ((1257, 1, 28, 28), (540, 1, 28, 28))
    assert torch.equal(found.train_inputs, images.train_images) and torch.equal(found.train_labels, images.train_labels)
    assert torch.equal(found.test_inputs, images.test_images) and torch.equal(found.test_labels, images.test_labels)


def test_digits_come_in_the_sizes_that_are_asked_for_and_can_be_found_again():
    found, images = task("digits", train_size=50, test_size=20), digits.load("digits")
    assert (len(found.train_inputs), len(found.train_labels), len(found.test_labels)) == (50, 50, 20)
    assert torch.equal(found.test_inputs, images.test_images[found.test_items])
    assert torch.equal(found.test_labels, images.test_labels[found.test_items])


def test_more_test_digits_than_there_are_are_all_of_them():
    assert len(task("digits", train_size=50, test_size=10_000).test_labels) == 540


def test_more_training_digits_than_there_are_are_refused():
    with pytest.raises(DataError, match=r"train size must be 0 \(all\) or 10 to 1257"):
        task("digits", train_size=10_000)


# Photographs


@pytest.mark.parametrize("clean", [False, True])
def test_photographs_are_shown_as_the_features_of_the_files_that_are_named(toy, clean):
    found = task("toy", clean=clean)
    assert (found.name, found.body, found.classes) == ("toy", "ResNet18", ["b", "a"])
    assert found.test_inputs.shape[1:] == found.train_inputs.shape[1:] == (512,)
    assert [found.classes[label] for label in found.test_labels] == [path.parent.name for path in found.test_items]
    torch.testing.assert_close(found.test_inputs, torch.stack([features_of(path) for path in found.test_items]))


def test_a_test_image_can_be_looked_at(toy):
    found = task("toy")
    picture = found.picture(3)
    assert picture.shape == (112, 112, 3) and 0 <= picture.min() < picture.max() <= 1
    middle = np.asarray(Image.open(found.test_items[3]).convert("RGB").resize((112, 112), box=(5, 0, 35, 30))) / 255
    assert np.abs(picture - middle).mean() < 0.1
    digit = task("digits", train_size=20, test_size=20)
    assert np.allclose(digit.picture(2)[::4, ::4, 0], 1 - digit.test_inputs[2, 0].numpy())


@pytest.mark.parametrize("clean", [False, True])
def test_what_is_not_for_the_test_is_for_training_with_its_label(toy, clean):
    found = task("toy", clean=clean)
    files = [toy.folder / file for file in sorted(toy.files)]
    others = [path for path in files if path not in found.test_items]
    assert len(found.train_labels) + len(found.test_labels) == len(files)
    assert [found.classes[label] for label in found.train_labels] == [path.parent.name for path in others]
    torch.testing.assert_close(found.train_inputs, torch.stack([features_of(path) for path in others]))


def test_the_published_split_is_taken_as_it_is(toy):
    assert {path.parents[1].name for path in task("toy").test_items} == {"Testing"}
    assert len(task("toy").test_items) == 8


@pytest.mark.parametrize(("clean", "leaked"), [(False, 2), (True, 0)])
def test_in_a_clean_split_no_picture_is_on_both_sides(toy, clean, leaked):
    test = task("toy", clean=clean).test_items
    train = [path for path in (toy.folder / file for file in toy.files) if path not in test]
    shown, known = ({Image.open(path).tobytes() for path in paths} for paths in (test, train))
    assert len(shown & known) == leaked


def test_photographs_are_identified_by_the_checksums_of_their_files(toy):
    assert task("toy").sha256 == task("toy", clean=True).sha256 == photos.published("toy").sha256


def test_the_weights_of_the_backbone_can_be_chosen(toy):
    found = task("toy", weights="resnet18")
    expected = torch.stack([features_of(path, "resnet18") for path in found.test_items])
    torch.testing.assert_close(found.test_inputs, expected)
    assert not torch.allclose(found.test_inputs, task("toy").test_inputs)


# What is there


def test_any_gives_every_task_that_is_here_and_tells_the_reason_for_every_other(toy, monkeypatch, tmp_path, capsys):
    assert list(chosen(["any"])) == ["toy", "toy_clean"]
    monkeypatch.setenv("HQNN_DATA", str(tmp_path / "empty"))  # and no network: see the mirror of the toy
    here = chosen(["any"], train_size=20)
    assert list(here) == ["digits"] and len(here["digits"].train_labels) == 20
    said = capsys.readouterr().out
    assert "toy is left out" in said and "missing" in said and "HQNN_DATA" in said and "goes on with digits" in said


def test_a_set_that_was_asked_for_by_name_is_refused_and_not_replaced(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path / "empty"))
    with pytest.raises(MissingData, match="'toy'"):
        chosen(["digits", "toy"])


def test_any_goes_with_no_name(toy):
    with pytest.raises(DataError, match="goes with no other name, got digits, any"):
        chosen(["digits", "any"])


def test_a_name_that_is_not_in_the_catalogue_is_no_missing_set(toy):
    with pytest.raises(DataError, match="unknown data set 'cifar'"):
        chosen(["digits", "cifar"])


def test_a_photograph_that_was_altered_is_no_missing_set(toy):
    (toy.folder / next(iter(toy.files))).write_bytes(b"another picture")
    with pytest.raises(DataError, match="is altered") as refused:
        chosen(["any"])
    assert not isinstance(refused.value, MissingData)


def test_weights_that_were_altered_are_no_missing_set(toy, monkeypatch, tmp_path):
    monkeypatch.undo()  # the real backbone
    monkeypatch.setenv("HQNN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    described = replace(catalogue.entry("resnet18-pqf"), mirrors=["http://127.0.0.1:9/"])
    monkeypatch.setattr(catalogue, "entries", lambda: {"resnet18-pqf": described})
    file = tmp_path / "data" / "weights" / "pqf_resnet18.pth"
    file.parent.mkdir()
    file.write_bytes(b"other weights")
    with pytest.raises(DataError) as refused:
        backbone.resnet18()
    assert not isinstance(refused.value, MissingData)
    file.unlink()
    with pytest.raises(MissingData):
        backbone.resnet18()


def test_options_reach_every_task(toy):
    here = chosen(["toy"], weights="resnet18", features="centred")
    for found, clean in zip(here.values(), (False, True), strict=True):
        expected = task("toy", clean=clean, weights="resnet18", features="centred")
        assert torch.equal(found.test_inputs, expected.test_inputs) and found.test_items == expected.test_items


@pytest.mark.parametrize(
    ("split", "names"),
    [("both", ["digits", "toy", "toy_clean"]), ("published", ["digits", "toy"]), ("clean", ["digits", "toy_clean"])],
)
def test_a_set_that_leaks_comes_in_the_splits_that_are_asked_for(toy, split, names):
    here = chosen(["digits", "toy"], split, train_size=20)
    assert list(here) == names
    assert {name: found.split for name, found in here.items()} == {
        name: "clean" if name == "toy_clean" else "published" for name in names
    }


@pytest.mark.parametrize("split", ["both", "clean"])
def test_a_set_that_does_not_leak_has_its_published_split_alone(toy, monkeypatch, split):
    for file in [file for file in toy.files if "leak" in file]:
        del toy.files[file]
    assert list(chosen(["toy"], split)) == ["toy"]


def test_an_unknown_split_or_scale_is_refused(toy):
    with pytest.raises(ValueError, match="unknown split 'random': choose one of both, published, clean"):
        chosen(["toy"], "random")
    with pytest.raises(ValueError, match="unknown features 'scaled': choose one of raw, centred, standardised"):
        task("digits", features="scaled")


def test_a_chapter_records_each_set_once_and_one_checksum_of_all(toy):
    here = chosen(["digits", "toy"])
    joined = here["digits"].sha256 + here["toy"].sha256
    assert facts(here) == {"dataset": "digits, toy", "dataset_sha256": hashlib.sha256(joined.encode()).hexdigest()}


def test_photographs_without_a_backbone_are_not_there(toy, monkeypatch, capsys):
    def refused(weights):
        raise MissingData("no weights")

    monkeypatch.setattr(backbone, "resnet18", refused)
    assert list(chosen(["any"])) == ["digits"] and "toy is left out: no weights" in capsys.readouterr().out


def test_an_error_that_is_not_of_the_data_is_no_reason(toy, monkeypatch):
    def broken(weights):
        raise ValueError("unknown weights")

    monkeypatch.setattr(backbone, "resnet18", broken)
    with pytest.raises(ValueError, match="unknown weights"):
        chosen(["any"])


# Choosing settings


def test_settings_are_chosen_on_training_images_that_are_held_out():
    whole = task("digits", train_size=200)
    found = held_out(whole, 0.25)
    assert (len(found.train_labels), len(found.test_labels)) == (150, 50)
    assert torch.equal(found.test_inputs, whole.train_inputs[found.test_items])
    assert torch.equal(found.test_labels, whole.train_labels[found.test_items])


def test_no_image_that_is_held_out_is_trained_on_and_none_is_lost():
    whole = made_up("ResNet18", 50)
    whole.train_inputs[:, 0] = torch.arange(50)
    found = held_out(whole, 0.3)
    train, test = found.train_inputs[:, 0].long(), found.test_inputs[:, 0].long()
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(50))
    assert torch.equal(found.train_labels, whole.train_labels[train])


def test_a_fifth_is_held_out_with_the_class_shares_of_all_unless_told_otherwise():
    whole = replace(made_up("ResNet18", 100), train_labels=torch.tensor([0] * 70 + [1] * 20 + [2] * 10))
    found = held_out(whole)
    assert (found.test_labels.bincount().tolist(), found.train_labels.bincount().tolist()) == ([14, 4, 2], [56, 16, 8])


def test_what_is_held_out_depends_on_the_seed_alone():
    whole = made_up("ResNet18", 100)
    first, again, other = (held_out(whole, seed=seed).test_items for seed in (0, 0, 1))
    assert first == again != other


def test_a_task_with_images_held_out_is_the_same_otherwise():
    whole = made_up("ResNet18")
    found = held_out(whole)
    assert (found.name, found.body, found.classes, found.sha256) == (whole.name, whole.body, whole.classes, whole.sha256)


# Other inputs of the same task


def test_centred_inputs_have_lost_the_mean_of_the_training_images_and_nothing_else():
    whole = made_up("ResNet18")
    found = centred(whole)
    torch.testing.assert_close(found.train_inputs.mean(dim=0), torch.zeros(512), atol=1e-6, rtol=0)
    apart = whole.test_inputs - found.test_inputs
    torch.testing.assert_close(apart, whole.train_inputs.mean(dim=0).expand_as(apart), atol=1e-6, rtol=0)
    assert same_but(found, whole, "train_inputs", "test_inputs")


def test_standardised_inputs_have_mean_zero_and_spread_one_over_the_training_images():
    whole = made_up("ResNet18")
    whole.train_inputs[:, 7] = 0.25  # always the same: there is no spread to divide by
    found = standardised(whole)
    mean, spread = whole.train_inputs.mean(dim=0), whole.train_inputs.std(dim=0)
    spread[7] = 1
    torch.testing.assert_close(found.train_inputs, (whole.train_inputs - mean) / spread)
    torch.testing.assert_close(found.test_inputs, (whole.test_inputs - mean) / spread)
    assert same_but(found, whole, "train_inputs", "test_inputs")


@pytest.mark.parametrize(
    ("features", "scale"), [("raw", lambda task: task), ("centred", centred), ("standardised", standardised)]
)
def test_photographs_are_shown_on_the_scale_that_is_asked_for(toy, features, scale):
    torch.testing.assert_close(task("toy", features=features).train_inputs, scale(task("toy")).train_inputs)


def test_digits_are_shown_as_they_are_on_any_scale():
    assert torch.equal(task("digits", features="centred").train_inputs, task("digits").train_inputs)


def test_a_task_without_some_training_images_has_all_others_and_the_same_test():
    whole = made_up("ResNet18", 5)
    found = without(whole, [3, 0])
    assert torch.equal(found.train_inputs, whole.train_inputs[[1, 2, 4]])
    assert torch.equal(found.train_labels, whole.train_labels[[1, 2, 4]])
    assert same_but(found, whole, "train_inputs", "train_labels")
    assert torch.equal(without(whole, []).train_inputs, whole.train_inputs)


def test_fewer_training_images_are_drawn_with_the_class_shares_of_all_and_the_test_is_the_same():
    whole = replace(made_up("ResNet18", 100), train_labels=torch.tensor([0] * 70 + [1] * 20 + [2] * 10))
    whole.train_inputs[:, 0] = torch.arange(100)
    found, again, other = fewer(whole, 10), fewer(whole, 10), fewer(whole, 10, seed=1)
    assert found.train_labels.bincount().tolist() == [7, 2, 1]
    assert torch.equal(found.train_labels, whole.train_labels[found.train_inputs[:, 0].long()])
    assert torch.equal(found.train_inputs, again.train_inputs) and not torch.equal(found.train_inputs, other.train_inputs)
    assert found.test_inputs is whole.test_inputs
    assert [len(fewer(whole, size).train_labels) for size in (98, 99, 100)] == [98, 99, 100]


@pytest.mark.parametrize("size", [2, 101])
def test_what_cannot_be_drawn_is_refused(size):
    with pytest.raises(ValueError, match=f"100 training images of 3 classes, got a size of {size}"):
        fewer(made_up("ResNet18", 100), size)


# Answers


def made_up(body: str, n: int = 20) -> Task:
    """A few random inputs of a body, in three classes."""
    shape = {"LeNet": (1, 28, 28), "ResNet18": (512,)}[body]
    inputs = torch.rand(2, n, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3
    return Task("made up", "published", body, ["a", "b", "c"], inputs[0], labels, inputs[1], labels, list(range(n)), "")


def test_an_image_is_right_where_its_class_has_the_largest_score():
    few, ensemble = made_up("ResNet18", 4), Ensemble(lambda: nn.Linear(512, 3, bias=False), [0, 1])
    few = replace(few, test_inputs=torch.eye(4, 512)[[0, 1, 2, 2]], test_labels=torch.tensor([0, 1, 2, 0]))
    with torch.no_grad():  # the first network says which number is 1, the second always class 0
        ensemble.parameters["weight"].copy_(torch.stack([torch.eye(3, 512), torch.eye(3, 1).expand(3, 512)]))
    assert few.right(ensemble).tolist() == [[True, True, True, False], [True, False, False, True]]
    assert few.accuracy(ensemble).tolist() == [0.75, 0.5]


def test_networks_that_answer_with_no_number_are_neither_right_nor_wrong():
    few = made_up("ResNet18", 4)
    ensemble = Ensemble(lambda: nn.Linear(512, 3), [5, 7])
    with torch.no_grad():
        ensemble.parameters["bias"][1] = torch.nan
    for score in (few.right, few.accuracy):
        with pytest.raises(NotFinite, match="got nan at seed 7, image 0"):
            score(ensemble)


def test_another_draw_shares_out_all_pictures_anew_and_none_stands_on_both_sides(toy):
    draws = [task("toy", redraw=k) for k in (0, 1, 2)]
    items = [set(draw.test_items) for draw in draws]
    assert items[1] != items[2] and [draw.split for draw in draws] == ["published", "clean", "clean"]
    assert {len(draw.train_labels) + len(draw.test_labels) for draw in draws} == {len(draws[0].train_labels) + len(items[0])}


def test_another_draw_of_digits_takes_other_training_images():
    first, again, other = (task("digits", train_size=100, redraw=k) for k in (1, 1, 2))
    assert torch.equal(first.train_inputs, again.train_inputs) and not torch.equal(first.train_inputs, other.train_inputs)


def test_draws_are_counted_from_zero():
    with pytest.raises(ValueError, match="redraw counts the draws from 0, got -1"):
        task("digits", redraw=-1)


# Anyone's


def table(groups: list[int] | None = None, splits: list[str] | None = None) -> rows.Rows:
    features = np.arange(40, dtype=np.float32).reshape(20, 2)
    labels, groups = np.arange(20) % 2, np.array(groups or range(20))
    return rows.Rows("mine", ["x", "y"], features, labels, groups, None if splits is None else np.array(splits), "0" * 64)


def test_a_table_is_shared_out_with_the_shares_of_its_classes():
    found, other = given(table(), features="raw"), given(table(), 1, features="raw")
    assert (found.body, found.split, found.name, found.classes) == ("features", "clean", "mine", ["x", "y"])
    assert (len(found.train_labels), len(found.test_labels)) == (14, 6) and found.test_labels.bincount().tolist() == [3, 3]
    everything = torch.cat([found.train_inputs, found.test_inputs])[:, 0].sort().values
    assert torch.equal(everything, torch.arange(0, 40, 2).float())
    assert found.test_items != other.test_items
    assert torch.equal(found.test_inputs[:, 0], 2.0 * torch.tensor(found.test_items))


def test_a_split_of_ones_own_is_kept_until_another_is_drawn():
    own = table(splits=["test"] * 4 + ["train"] * 16)
    assert given(own).test_items == [0, 1, 2, 3] and given(own).split == "published"
    drawn = given(own, 1)
    assert len(drawn.test_items) == 4 and drawn.test_items != [0, 1, 2, 3] and drawn.split == "clean"


def test_rows_of_a_group_are_on_one_side():
    groups = [k // 4 for k in range(20)]
    for redraw in range(5):
        on_test = {groups[item] for item in given(table(groups), redraw, share=0.4).test_items}
        assert sum(group in on_test for group in groups) == len(given(table(groups), redraw, share=0.4).test_items)
    with pytest.raises(DataError, match=r"mine: class 'x' can't be on both sides of a split that keeps groups together"):
        given(table([0] * 20))


def test_tables_are_centred_by_their_training_rows():
    found = given(table(), features="centred")
    assert found.train_inputs.mean(dim=0).abs().max() < 1e-5 < found.test_inputs.mean(dim=0).abs().max()


def test_a_folder_of_pictures_is_what_the_backbone_makes_of_it(toy, tmp_path):
    for number, label in enumerate("aaaaaabbbbbb"):
        path = tmp_path / "mine" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(path)
    noise(0).save(tmp_path / "mine" / "b" / "again.png")
    own = folders.read(tmp_path / "mine")
    for redraw in range(6):
        found = given(own, redraw, features="raw")
        assert len(found.test_labels) == 4 and found.split == "clean" and found.body == "ResNet18"
        assert {path.name for path in found.test_items} & {"0.png", "again.png"} in (set(), {"0.png", "again.png"})
        torch.testing.assert_close(found.test_inputs[0], features_of(found.test_items[0]))


def test_a_split_of_folders_is_kept_until_another_is_drawn(toy, tmp_path):
    own = folders.read(tmp_path / "data" / "toy")
    assert {path.parts[-3] for path in given(own).test_items} == {"Testing"} and given(own).split == "published"
    assert len(given(own, 2).test_items) == 8 and given(own, 2).split == "clean"


@pytest.mark.parametrize("wrong", [{"features": "whitened"}, {"redraw": -1}, {"share": 0.0}, {"share": 1.0}])
def test_what_can_not_be_asked_of_ones_own_data_is_refused(wrong):
    with pytest.raises(ValueError, match="features are one of raw, centred, standardised"):
        given(table(), **wrong)
