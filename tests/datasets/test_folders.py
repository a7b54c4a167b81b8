"""Folders of anyone: a picture is read whatever it is called, and what is wrong with a folder is told in a sentence."""

import re

import numpy as np
import pytest
from PIL import Image

from hqnn_utils.datasets import folders
from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.datasets.photos import audit, clean


def noise(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    smooth = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Writes files, `name → picture or bytes`, and returns their folder."""

    def make(files: dict):
        for name, content in files.items():
            path = tmp_path / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content.save(path)
        return tmp_path / "mine"

    return make


def two_classes(places: tuple[str, ...] = ("",), each: int = 6) -> dict:
    names = [f"{place}{name}/{k}.png" for place in places for name in ("cat", "dog") for k in range(each)]
    return {name: noise(seed) for seed, name in enumerate(names)}


def test_a_folder_a_class(folder):
    found = folders.read(folder(two_classes()))
    assert found.photographs.classes == ["cat", "dog"] and len(found.photographs) == 12
    assert found.photographs.labels.tolist() == [0] * 6 + [1] * 6
    assert not found.has_splits and set(found.photographs.splits) == {"train"} and not found.refused
    assert found.looks["width"].tolist() == [20] * 12 and set(found.looks["mode"]) == {"RGB"}


def test_splits_by_any_of_their_names_and_validation_is_trained_on(folder):
    found = folders.read(folder(two_classes(("Training/", "val/", "TEST/"), each=3)))
    assert found.has_splits and found.photographs.classes == ["cat", "dog"]
    assert {s: len(found.photographs.of(s)) for s in ("train", "test")} == {"train": 12, "test": 6}


def test_where_there_is_no_test_validation_is_the_test(folder):
    found = folders.read(folder(two_classes(("train/", "val/"), each=4)))
    assert {s: len(found.photographs.of(s)) for s in ("train", "test")} == {"train": 8, "test": 8}


def test_folders_in_folders_other_endings_and_hidden_files(folder):
    odd = {"cat/deep/er/x.jpeg": noise(90), ".hidden/y.png": noise(91), "cat/.DS_Store": b"x", "__MACOSX/cat/z.png": noise(92)}
    path = folder(two_classes() | odd)
    (path / "dog" / "1.png").rename(path / "dog" / "1.txt")  # what a file is called does not matter
    found = folders.read(path)
    assert len(found.photographs) == 13 and not found.refused


def test_what_is_no_picture_is_named_and_left_out(folder):
    path = folder(two_classes() | {"cat/notes.txt": b"hello"})
    found = folders.read(path)
    assert list(found.refused) == ["cat/notes.txt"] and "does not decode as an image" in found.refused["cat/notes.txt"]
    assert len(found.photographs) == 12
    with pytest.raises(DataError, match=r"1 of 13 files .* are no pictures, more than 5%.*cat/notes.txt"):
        folders.read(path, unreadable=0.05)


def test_colours_and_turns_are_told(folder):
    grey, clear, turned = noise(1).convert("L"), noise(2).convert("RGBA"), noise(3)
    path = folder(two_classes() | {"cat/grey.png": grey, "cat/clear.png": clear})
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(path / "dog" / "turned.jpg", exif=exif)
    looks = folders.read(path).looks
    assert looks["mode"].value_counts().to_dict() == {"RGB": 13, "L": 1, "RGBA": 1}
    assert looks[looks["turned"]][["width", "height"]].to_numpy().tolist() == [[16, 20]]  # as it is shown


def test_the_same_picture_twice_and_one_that_was_saved_anew(folder):
    path = folder(two_classes(each=8))
    noise(0).save(path / "dog" / "copy.bmp")  # of cat/0.png, pixel by pixel
    noise(1).resize((60, 48)).save(path / "dog" / "larger.jpg", quality=90)  # of cat/1.png
    found = folders.read(path)
    names = [file.name for file in found.photographs.paths]
    exact, near = found.same(), found.same(near=4.0)
    assert exact[names.index("0.png")] == exact[names.index("copy.bmp")]
    assert len(set(exact)) == 17
    assert near[names.index("1.png")] == near[names.index("larger.jpg")] and len(set(near)) == 16


def test_a_split_keeps_the_same_pictures_together(folder):
    path = folder(two_classes(("train/", "test/"), each=8))
    noise(0).save(path / "test" / "dog" / "copy.png")
    found = folders.read(path)
    same = found.same()
    assert audit(found.photographs, same)["in other split"].sum() == 2
    assert audit(clean(found.photographs, same), same)["in other split"].sum() == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "is no folder"),
        ({"cat/1.png": noise(1)}, "two classes or more are needed, and"),
        ({"readme.md": b"x"}, "has none: expected one folder for each class"),
        (two_classes(each=4), "class 'cat' in"),
        (two_classes(each=4), "has 4 pictures: each class needs at least 5"),
        (two_classes() | {"bird/x.txt": b"x"}, "has no pictures of the class 'bird'"),
        (two_classes(("train/",)) | {"test/cat/1.png": noise(1)}, "no pictures of the class 'dog' for test"),
        (two_classes(("train/", "training/")), "has the folders train, training: expected train and test"),
        (dict.fromkeys(["cat/1", "dog/2"], b"x"), "2 of 2 files"),
    ],
)
def test_a_folder_that_can_not_be_used_is_refused_with_a_sentence(folder, files, said):
    with pytest.raises(DataError, match=re.escape(said)):
        folders.read(folder(files))
