"""The tasks of Experiment 3: a data set as what a trainable network is shown, and the networks of all seeds trained on it.

Digits go into a LeNet as they are. Photographs go through the frozen backbone once, and what is trained is shown its features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import cross_entropy

from hqnn_utils.datasets import backbone, catalogue, digits, photos
from hqnn_utils.datasets.catalogue import DataError, MissingData, entry
from hqnn_utils.learning.models import network
from hqnn_utils.learning.training import Ensemble, fit


@dataclass(frozen=True)
class Task:
    """Images of a data set, in a split, as inputs of a network; `test_items` names each test image: its row, or its file."""

    name: str
    body: str
    classes: list[str]
    train_inputs: Float[Tensor, "train *input"]
    train_labels: Int[Tensor, " train"]
    test_inputs: Float[Tensor, "test *input"]
    test_labels: Int[Tensor, " test"]
    test_items: list[int] | list[Path]
    sha256: str

    def right(self, ensemble: Ensemble) -> Bool[ndarray, "seeds test"]:
        """Which test images the network of each seed classifies correctly."""
        return (ensemble.predict(self.test_inputs).argmax(dim=-1) == self.test_labels).numpy()

    def accuracy(self, ensemble: Ensemble) -> Float[ndarray, " seeds"]:
        """Share of the test images that the network of each seed classifies correctly."""
        return self.right(ensemble).mean(axis=1)


def task(name: str, *, clean: bool = False, train_size: int = 0, test_size: int = 0, weights: str = "resnet18-pqf") -> Task:
    """A data set of the catalogue as a task.

    Args:
        name: of the catalogue.
        clean: photographs in a split without identical pictures (`photos.clean`) instead of the published one.
        train_size, test_size: digits of each split, as for `digits.load`; photographs come whole.
        weights: of the backbone, as for `backbone.resnet18`.

    Raises:
        DataError: data or weights that cannot be had; the message says what to do. A `MissingData` if they are just not here.
    """
    if not entry(name).size:
        images = digits.load(name, None, train_size, min(test_size, entry(name).counts["test"]))
        shown = images.train_images, images.train_labels, images.test_images, images.test_labels
        return Task(name, "LeNet", images.classes, *shown, images.test_rows.tolist(), images.sha256)
    photographs = photos.published(name)
    features = backbone.features(photographs, weights)
    if clean:
        photographs = photos.clean(photographs)
    labels = torch.from_numpy(photographs.labels)
    train, test = photographs.of("train"), photographs.of("test")
    shown = features[train], labels[train], features[test], labels[test]
    items = [photographs.paths[row] for row in test]
    return Task(name, "ResNet18", photographs.classes, *shown, items, photographs.sha256)


def held_out(task: Task, share: float = 0.2, seed: int = 0) -> Task:
    """The task for choosing settings: its test images are a share of the training images, with the class shares of all."""
    from sklearn.model_selection import train_test_split

    rows, labels = range(len(task.train_labels)), task.train_labels
    train, test = train_test_split(rows, test_size=share, stratify=labels, random_state=seed)
    shown = dict(train_inputs=task.train_inputs[train], train_labels=labels[train])
    return replace(task, **shown, test_inputs=task.train_inputs[test], test_labels=labels[test], test_items=test)


def centred(task: Task) -> Task:
    """The task with the mean of the training inputs taken off all inputs, those of the test too."""
    mean = task.train_inputs.mean(dim=0)
    return replace(task, train_inputs=task.train_inputs - mean, test_inputs=task.test_inputs - mean)


def without(task: Task, rows: Sequence[int] | Int[ndarray, " rows"]) -> Task:
    """The task without some of its training images, given by row; the test is the same."""
    kept = torch.ones(len(task.train_labels), dtype=torch.bool)
    kept[torch.as_tensor(rows, dtype=torch.long)] = False
    return replace(task, train_inputs=task.train_inputs[kept], train_labels=task.train_labels[kept])


ANY = "any"
"""Chosen instead of names: whatever is here."""


def chosen(names: Sequence[str], **options) -> dict[str, Task]:
    """The tasks that a reader chose by name, or with `ANY` those of all data sets that are here, else of the digits.

    A data set that was asked for by name is used or refused, never replaced. What `ANY` leaves out is printed, and why.

    Args:
        names: of the catalogue, or `[ANY]`.
        options: as for `task`.

    Raises:
        DataError: a named set that cannot be had; data or weights that are here and wrong.
    """
    if list(names) != [ANY]:
        if ANY in names:
            raise DataError(f"{ANY!r} stands for whatever is here and goes with no other name, got {', '.join(names)}")
        return {name: task(name, **options) for name in names}
    here = {}
    for name in [name for name, wanted in catalogue.entries().items() if not wanted.embedded]:
        try:
            here[name] = task(name, **options)
        except MissingData as error:
            print(f"{name} is left out: {error}")
    if not here:
        print("None of the data sets is here, so the chapter goes on with digits.")
    return here or {"digits": task("digits", **options)}


def train(
    task: Task,
    ending: str,
    seeds: Sequence[int],
    *,
    n_qubits: int = 4,
    depth: int = 2,
    watch: Callable[[Ensemble], None] | None = None,
    **settings,
) -> tuple[Ensemble, Float[Tensor, "points seeds"]]:
    """Networks of a method, all seeds at once, by cross-entropy.

    Args:
        ending: of the method's name, as for `models.network`.
        n_qubits, depth: of the middle, as for `models.Dressed`.
        watch: shown the networks after each epoch.
        settings: for `training.fit`: epochs, batch size, learning rate.

    Returns:
        The networks, and the course of their training loss.
    """
    method = task.body + ending
    ensemble = Ensemble(partial(network, method, len(task.classes), n_qubits, depth), seeds)
    loss = partial(cross_entropy, reduction="none")
    settings = {"name": f"{task.name}: {method}"} | settings
    if watch is not None:
        settings["after_epoch"] = lambda: watch(ensemble)
    return ensemble, fit(ensemble, task.train_inputs, task.train_labels, loss, **settings)
