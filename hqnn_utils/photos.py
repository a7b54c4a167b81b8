"""The photographs of Experiment 3: which files, in which class and split, and which of them are the same picture.

A data set of photographs is what its manifest lists. Extensions are not believed: a file is what it decodes to.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from hqnn_utils.catalogue import DataError, entry, fetch, verify

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Photos:
    """Photographs by file; `labels` index `classes`, `splits` say `"train"` or `"test"`, all of the same length."""

    name: str
    classes: list[str]
    paths: list[Path]
    labels: np.ndarray
    splits: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, split: str) -> np.ndarray:
        """The rows of a split, ascending."""
        return np.flatnonzero(self.splits == split)


def photos(name: str) -> Photos:
    """The photographs of a data set in their published split, fetched first if need be and checked against their SHA-256.

    A set that is published without a split gets a fixed one of ours, with the class shares of the whole.

    Raises:
        DataError: not a set of photographs, data that cannot be had, or a split without images of a class.
    """
    wanted = entry(name)
    if not wanted.size:
        raise DataError(f"{name!r} is not a set of photographs: `hqnn_utils.data.load({name!r})` gives its images")
    if set(verify(name).values()) != {"ok"}:
        fetch(name)
    folders = {folder: split for split, folder in wanted.splits.items()}
    files = sorted(wanted.files)
    labels = np.array([wanted.classes.index(Path(file).parent.name) for file in files])
    if folders:
        splits = np.array([folders[Path(file).parts[0]] for file in files])
    else:
        splits = _drawn(labels, np.arange(len(files)), wanted.counts["test"])
    digest = hashlib.sha256("".join(wanted.files[file]["sha256"] for file in files).encode()).hexdigest()
    return _complete(Photos(name, wanted.classes, [wanted.folder / file for file in files], labels, splits, digest))


def decode(path: Path) -> Image.Image:
    """An image file in RGB, whatever its extension and colour mode.

    Raises:
        DataError: it does not decode; names the file.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} does not decode as an image ({error}): replace it, or take it out of the data set") from None


def pictures(paths: Sequence[Path]) -> np.ndarray:
    """A number for each file, equal for files that show the same picture, that is the same RGB value in every pixel."""

    def digest(path: Path) -> bytes:
        image = decode(path)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()

    with ThreadPoolExecutor() as pool:
        return np.unique(list(pool.map(digest, paths)), return_inverse=True)[1]


def clean(photographs: Photos, same: np.ndarray | None = None, seed: int = 0) -> Photos:
    """The same photographs in a split without leaks: all files of a picture are on one side.

    As many test pictures of each class are drawn as the published split has test files, or as near as whole pictures allow.

    Args:
        photographs: in any split.
        same: of `pictures`, if it is known already.
        seed: of the draw.
    """
    same = pictures(photographs.paths) if same is None else same
    return _complete(replace(photographs, splits=_drawn(photographs.labels, same, len(photographs.of("test")), seed)))


def audit(photographs: Photos, same: np.ndarray | None = None) -> pd.DataFrame:
    """Where a picture stands more than once: one row for each class of each split.

    Returns:
        Columns: `files`; `pictures`, the distinct ones; `in other split`, files whose picture is also in the other split;
        `in other class`, files whose picture also stands under another label, in any split.
    """
    same = pictures(photographs.paths) if same is None else same
    table = pd.DataFrame({"picture": same, "class": photographs.labels, "split": photographs.splits})
    by_picture = table.groupby("picture")
    table["in other split"] = by_picture["split"].transform("nunique") > 1
    table["in other class"] = by_picture["class"].transform("nunique") > 1
    table["class"] = [photographs.classes[label] for label in photographs.labels]
    grouped = table.groupby(["split", "class"], sort=False)
    columns = {
        "files": grouped.size(),
        "pictures": grouped["picture"].nunique(),
        "in other split": grouped["in other split"].sum(),
        "in other class": grouped["in other class"].sum(),
    }
    return pd.DataFrame(columns).sort_index(level="split", ascending=False, sort_remaining=True)


def _drawn(labels: np.ndarray, groups: np.ndarray, test_size: int, seed: int = 0) -> np.ndarray:
    """`"train"` or `"test"` for each row: groups stay together, and each class gives its share of the test rows."""
    splits = np.full(len(labels), "train", dtype="<U5")
    generator = np.random.default_rng(seed)
    wanted = np.rint(test_size * np.bincount(labels) / len(labels)).astype(int)  # of each class
    for group in generator.permutation(np.unique(groups)):
        members = groups == group
        number = np.bincount(labels[members], minlength=len(wanted))
        if (number <= wanted).all():
            splits[members] = "test"
            wanted -= number
    return splits


def _complete(photographs: Photos) -> Photos:
    """The same, if every class has images in both splits."""
    for split in SPLITS:
        for label, title in enumerate(photographs.classes):
            if not ((photographs.splits == split) & (photographs.labels == label)).any():
                raise DataError(
                    f"data set {photographs.name!r} has no {split} images of class {title!r}: a class needs images in both "
                    "the train and the test split"
                )
    return photographs
