"""The tasks of Experiment 3: a data set as what a trainable network is shown.

Digits go into a LeNet as they are. Photographs go through the frozen backbone once, and what is trained is shown its features.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from PIL import ImageOps
from torch import Tensor

from hqnn_utils.datasets import backbone, catalogue, digits, photos
from hqnn_utils.datasets.catalogue import DataError, MissingData, entry
from hqnn_utils.datasets.folders import Folder
from hqnn_utils.datasets.rows import Rows
from hqnn_utils.learning.training import Ensemble, torch_device

SPLITS = ("both", "published", "clean")


@dataclass(frozen=True)
class Task:
    """Images of a data set, in a split, as inputs of a network; `test_items` names each test image: its row, or its file."""

    name: str
    split: str  # "published" or "clean"
    body: str  # one of methods.BODIES
    classes: list[str]
    train_inputs: Float[Tensor, "train *input"]
    train_labels: Int[Tensor, " train"]
    test_inputs: Float[Tensor, "test *input"]
    test_labels: Int[Tensor, " test"]
    test_items: list[int] | list[Path]
    sha256: str

    def picture(self, row: int) -> Float[ndarray, "112 112 3"]:
        """A test image as a person sees it, a square in colour, values in [0, 1]; of a digit the ink is black."""
        if self.body == "LeNet":
            return np.kron(1 - self.test_inputs[row, 0].numpy(), np.ones((4, 4)))[..., None].repeat(3, axis=-1)
        photograph = photos.decode(self.test_items[row])  # type: ignore[arg-type]  # only digits have a row instead of a file
        return np.asarray(ImageOps.fit(photograph, (112, 112))) / 255

    def right(self, ensemble: Ensemble) -> Bool[ndarray, "seeds test"]:
        """Which test images the network of each seed classifies correctly."""
        return (ensemble.predict(self.test_inputs).argmax(dim=-1) == self.test_labels).numpy()

    def accuracy(self, ensemble: Ensemble) -> Float[ndarray, " seeds"]:
        """Share of the test images that the network of each seed classifies correctly."""
        return self.right(ensemble).mean(axis=1)


def task(
    name: str,
    *,
    clean: bool = False,
    train_size: int = 0,
    test_size: int = 0,
    weights: str = "resnet18-pqf",
    features: str = "raw",
    redraw: int = 0,
) -> Task:
    """A data set of the catalogue as a task.

    Args:
        name: of the catalogue.
        clean: photographs in a split without identical pictures (`photos.clean`) instead of the published one.
        train_size, test_size: digits of each split, as for `digits.load`; photographs come whole.
        weights: of the backbone, as for `backbone.resnet18`.
        features: what photographs are shown as, one of `FEATURES`; digits are shown as they are.
        redraw: which of the possible draws; 0 is the split as it is. Of photographs another one shares out all pictures anew,
            no picture on both sides; of digits it takes other training images (and, if not all are asked for, test images).

    Raises:
        ValueError: unknown features, or a negative `redraw`.
        DataError: data or weights that cannot be had; the message says what to do. A `MissingData` if they are just not here.
    """
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}: choose one of {', '.join(FEATURES)}")
    if redraw < 0:
        raise ValueError(f"redraw counts the draws from 0, got {redraw}")
    if entry(name).kind == "digits":
        images = digits.load(name, None, train_size, min(test_size, entry(name).counts["test"]), redraw)
        shown = images.train_images, images.train_labels, images.test_images, images.test_labels
        return Task(name, "published", "LeNet", images.classes, *shown, images.test_rows.tolist(), images.sha256)
    photographs = photos.published(name)
    clean = clean or redraw > 0
    split = photos.clean(photographs, seed=redraw) if clean else photographs
    return FEATURES[features](_of_photographs(split, weights, clean))


def _of_photographs(photographs: photos.Photos, weights: str, clean: bool, device: str = "cpu") -> Task:
    inputs = backbone.features(photographs, weights, device=device)
    labels = torch.from_numpy(photographs.labels)
    train, test = photographs.of("train"), photographs.of("test")
    shown = inputs[train], labels[train], inputs[test], labels[test]
    items, split = [photographs.paths[row] for row in test], "clean" if clean else "published"
    body = "ResNet18" if weights in backbone.RESNET18 else "features"
    return Task(photographs.name, split, body, photographs.classes, *shown, items, photographs.sha256)


def given(
    own: Folder | Rows,
    redraw: int = 0,
    *,
    share: float = 0.3,
    near: float = 4.0,
    weights: str = "resnet18-pqf",
    features: str = "centred",
    device: str = "cpu",
) -> Task:
    """Anyone's pictures or table as a task.

    Args:
        own: as `folders.read` or `rows.read` gives it.
        redraw: the split as it is, if it has one, or the k-th other one; rows of a group, and pictures that are the same or
            nearly so, are never on both sides of a split that is drawn.
        share: of the rows that are for the test, where they have no split of their own.
        near: how like each other pictures are that count as the same, as for `Folder.same`.
        weights: of the frozen network, or another one, as for `backbone.features`.
        features: as for `task`.
        device: that computes what the network makes of pictures, one of `training.DEVICES`.

    Raises:
        ValueError: as `task`, or a share outside (0, 1).
        DataError: as `task`; a class that no draw gives to both sides.
    """
    if features not in FEATURES or redraw < 0 or not 0 < share < 1:
        raise ValueError(f"features are one of {', '.join(FEATURES)}, a redraw 0 or more, a share in (0, 1)")
    if isinstance(own, Folder):
        pictures = own.photographs
        if is_drawn := redraw > 0 or not own.has_splits:
            number = len(pictures.of("test")) or round(share * len(pictures))
            pictures = photos.clean(pictures, own.same(near), redraw, number)
        return FEATURES[features](_of_photographs(pictures, weights, is_drawn, torch_device(device).type))
    splits = own.splits
    if redraw or splits is None:
        number = round(share * len(own.labels)) if splits is None else int((splits == "test").sum())
        splits = photos.drawn(own.labels, own.groups, number, redraw)
    train, test = (np.flatnonzero(splits == split) for split in ("train", "test"))
    for label, name in enumerate(own.classes):
        if not ((own.labels[train] == label).any() and (own.labels[test] == label).any()):
            raise DataError(f"{own.name}: class {name!r} can't be on both sides of a split that keeps groups together")
    inputs, labels = torch.from_numpy(own.features), torch.from_numpy(own.labels)
    shown = inputs[train], labels[train], inputs[test], labels[test]
    split = "clean" if redraw or own.splits is None else "published"
    return FEATURES[features](Task(own.name, split, "features", own.classes, *shown, test.tolist(), own.sha256))


def held_out(task: Task, share: float = 0.2, seed: int = 0) -> Task:
    """The task for choosing settings: its test images are a share of the training images, with the class shares of all."""
    from sklearn.model_selection import train_test_split

    rows, labels = range(len(task.train_labels)), task.train_labels
    train, test = train_test_split(rows, test_size=share, stratify=labels, random_state=seed)
    shown = replace(task, train_inputs=task.train_inputs[train], train_labels=labels[train])
    return replace(shown, test_inputs=task.train_inputs[test], test_labels=labels[test], test_items=test)


def centred(task: Task) -> Task:
    """The task with the mean of the training inputs taken off all inputs, those of the test too."""
    mean = task.train_inputs.mean(dim=0)
    return replace(task, train_inputs=task.train_inputs - mean, test_inputs=task.test_inputs - mean)


def standardised(task: Task) -> Task:
    """The task centred, and every input divided by its standard deviation over the training images; one that is 0 stays."""
    of_mean = centred(task)
    spread = of_mean.train_inputs.std(dim=0)
    spread[spread == 0] = 1.0
    return replace(task, train_inputs=of_mean.train_inputs / spread, test_inputs=of_mean.test_inputs / spread)


FEATURES: dict[str, Callable[[Task], Task]] = {"raw": lambda task: task, "centred": centred, "standardised": standardised}
"""What networks are shown of photographs: the features as the backbone gives them, or on another scale."""


def fewer(task: Task, size: int, seed: int = 0) -> Task:
    """The task with so many of its training images, drawn with the class shares of all; the test is the same.

    A ValueError: more images than there are, or fewer than classes.
    """
    from sklearn.model_selection import train_test_split

    n, labels = len(task.train_labels), task.train_labels
    if not len(task.classes) <= size <= n:
        raise ValueError(f"{task.name} has {n} training images of {len(task.classes)} classes, got a size of {size}")
    if n - size < len(task.classes):  # nobody can draw the few that are left out class by class
        return task if size == n else without(task, np.random.default_rng(seed).permutation(n)[size:])
    kept, _ = train_test_split(range(n), train_size=size, stratify=labels, random_state=seed)
    return replace(task, train_inputs=task.train_inputs[kept], train_labels=labels[kept])


def without(task: Task, rows: Sequence[int] | Int[ndarray, " rows"]) -> Task:
    """The task without some of its training images, given by row; the test is the same."""
    kept = torch.ones(len(task.train_labels), dtype=torch.bool)
    kept[torch.as_tensor(rows, dtype=torch.long)] = False
    return replace(task, train_inputs=task.train_inputs[kept], train_labels=task.train_labels[kept])


ANY = "any"
"""Chosen instead of names: whatever is here."""


def chosen(names: Sequence[str], split: str = "both", **options: Any) -> dict[str, Task]:
    """The tasks that a reader chose by name, or with `ANY` those of all data sets that are here, else of the digits.

    A data set that was asked for by name is used or refused, never replaced. What `ANY` leaves out is printed, and why.

    Args:
        names: of the catalogue, or `[ANY]`.
        split: of photographs whose published split has pictures on both sides: `"published"` as it is, `"clean"` without them,
            by the name of the set with `_clean` behind it, or `"both"`.
        options: as for `task`.

    Raises:
        ValueError: an unknown split, or as `task`.
        DataError: a named set that cannot be had; data or weights that are here and wrong.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    here = _here(options) if list(names) == [ANY] else _named(names, options)
    # Not `task`, which Python 3.12.1 would then not find in the next line.
    leaking = [name for name, one in here.items() if split != "published" and one.body == "ResNet18" and _leaks(name)]
    clean = {f"{name}_clean": task(name, clean=True, **options) for name in leaking}
    return {name: found for name, found in here.items() if split == "both" or name not in leaking} | clean


def _named(names: Sequence[str], options: dict) -> dict[str, Task]:
    if ANY in names:
        raise DataError(f"{ANY!r} stands for whatever is here and goes with no other name, got {', '.join(names)}")
    return {name: task(name, **options) for name in names}


def _here(options: dict) -> dict[str, Task]:
    here = {}
    for name in [name for name, wanted in catalogue.entries().items() if wanted.kind != "weights" and not wanted.embedded]:
        try:
            here[name] = task(name, **options)
        except MissingData as error:
            print(f"{name} is left out: {error}")
    if not here:
        print("None of the data sets is here, so the chapter goes on with digits.")
    return here or {"digits": task("digits", **options)}


def _leaks(name: str) -> bool:
    """Whether a picture of a set stands on both sides of its published split."""
    return bool(photos.audit(photos.published(name))["in other split"].any())


def facts(chosen: dict[str, Task]) -> dict[str, str]:
    """What a chapter records of its data: the names of the sets, and one checksum of them all."""
    sha256 = {task.name: task.sha256 for task in chosen.values()}
    return {"dataset": ", ".join(sha256), "dataset_sha256": hashlib.sha256("".join(sha256.values()).encode()).hexdigest()}
