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

from hqnn_utils import backbone, data, photos
from hqnn_utils.catalogue import MissingData, entry
from hqnn_utils.models import network
from hqnn_utils.training import Ensemble, fit


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
        clean: photographs in a split without leaks (`photos.clean`) instead of the published one.
        train_size, test_size: digits of each split, as for `data.load`; photographs come whole.
        weights: of the backbone, as for `backbone.resnet18`.

    Raises:
        DataError: data or weights that cannot be had; the message says what to do. A `MissingData` if they are just not here.
    """
    if not entry(name).size:
        images = data.load(name, None, train_size, min(test_size, entry(name).counts["test"]))
        shown = images.train_images, images.train_labels, images.test_images, images.test_labels
        return Task(name, "LeNet", images.classes, *shown, images.test_rows.tolist(), images.sha256)
    photographs = photos.photos(name)
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


def tasks(names: Sequence[str], **options) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks that can be had here, and the reason for each that is not here; options as for `task`.

    For data sets that nobody asked for by name: `task` refuses one that cannot be had, and says why.

    Raises:
        DataError: data or weights that are here and wrong, or a name that is not in the catalogue.
    """
    here, missing = {}, {}
    for name in names:
        try:
            here[name] = task(name, **options)
        except MissingData as error:
            missing[name] = str(error)
    return here, missing


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
