"""Networks trained on a task, once: what was trained before, with everything the same, is kept and not trained again.

Kept are, to the last bit, the weights of all seeds and how the training went. They depend on the inputs and labels, the
method, the seeds and settings, torch, and the code that they ran through; the name of their file is a checksum of it all.
"""

import ast
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import cross_entropy

from hqnn_utils import files
from hqnn_utils.kept import Kept
from hqnn_utils.learning.methods import CIRCUITS, network, title
from hqnn_utils.learning.models import Middle
from hqnn_utils.learning.tasks import Task, held_out
from hqnn_utils.learning.training import Ensemble, fit, top1, torch_device


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How networks are made and trained.

    The first seven are those of `training.fit`, `n_qubits`, `depth`, `entangler` and `start` those of `methods.network`, and
    `device` is that of `training.Ensemble`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "adam"
    decay_every: int = 0
    decay: int | float = 0.1
    points: int = 1
    n_qubits: int = 4
    depth: int = 2
    entangler: str = "ring"
    start: str = "near zero"
    device: str = "cpu"


def train(
    task: Task, method: str | Middle, seeds: Sequence[int], settings: Settings
) -> tuple[Ensemble, Float[Tensor, "points seeds"]]:
    """Networks of a method, all seeds at once, by cross-entropy; trained, or as they were trained before.

    Args:
        method: one of `methods.METHODS`, or what makes a middle of your own; the latter is trained each time unless it has a
            `fingerprint`, as those of `own.middle` have.

    Returns:
        The networks, and the course of their training loss.

    Raises:
        ValueError, NotFinite: as `methods.network` and `training.fit`.
        BookError: as `training.torch_device`.
    """
    ensemble = _untrained(task, method, seeds, settings)

    def weights() -> dict[str, ndarray]:
        history = _fit(ensemble, task, method, settings)
        return {"history": history.numpy()} | {name: p.numpy(force=True) for name, p in ensemble.parameters.items()}

    found = _once("weights", task, method, seeds, settings, weights)
    with torch.no_grad():
        for name, stacked in ensemble.parameters.items():
            stacked.copy_(torch.from_numpy(found[name]))
    return ensemble, torch.from_numpy(found["history"])


class Course(NamedTuple):
    """How the training of many networks went."""

    right: Bool[ndarray, "epochs seeds test"]
    """Which test images each network classifies correctly after each epoch."""
    loss: Float[ndarray, "epochs seeds"]
    """The mean training loss, as seen during each epoch."""
    arrived: Float[ndarray, " seeds"]
    """Share of the training images that each network classifies correctly at the end."""


def course(task: Task, method: str | Middle, seeds: Sequence[int], settings: Settings) -> Course:
    """How the networks of `train` do, epoch by epoch. Arguments and errors are its own, but for `points`."""
    settings = replace(settings, points=1)

    def answers() -> dict[str, ndarray]:
        ensemble, seen = _untrained(task, method, seeds, settings), []
        loss = _fit(ensemble, task, method, settings, after_epoch=lambda: seen.append(task.right(ensemble)))
        arrived = top1(ensemble.predict(task.train_inputs), task.train_labels)
        return {"right": np.stack(seen), "loss": loss.numpy(), "arrived": arrived.numpy()}

    return Course(**_once("course", task, method, seeds, settings, answers))


def best(task: Task, method: str | Middle, seeds: Sequence[int], tries: Sequence[Settings]) -> tuple[Settings, float]:
    """Of several settings the ones with which a method does best on held-out training images, and its mean accuracy there."""
    held = held_out(task)
    scores = [float(course(held, method, seeds, settings).right[-1].mean()) for settings in tries]
    place = max(range(len(tries)), key=scores.__getitem__)
    return tries[place], scores[place]


def _untrained(task: Task, method: str | Middle, seeds: Sequence[int], settings: Settings) -> Ensemble:
    sizes, circuit = (len(task.classes), settings.n_qubits, settings.depth), (settings.entangler, settings.start)
    build = partial(network, task.body, method, *sizes, *circuit, n_features=task.train_inputs.shape[-1])
    return Ensemble(build, seeds, settings.device)


def _fit(ensemble: Ensemble, task: Task, method: str | Middle, settings: Settings, **watching: Any) -> Tensor:
    how = {field.name: getattr(settings, field.name) for field in fields(Settings)[:7]}
    loss = partial(cross_entropy, reduction="none")
    name = f"{task.name}: {title(task.body, method)}"
    return fit(ensemble, task.train_inputs, task.train_labels, loss, **how, name=name, **watching)


def _once(
    what: str,
    task: Task,
    method: str | Middle,
    seeds: Sequence[int],
    settings: Settings,
    compute: Callable[[], dict[str, ndarray]],
) -> dict[str, ndarray]:
    """The arrays that were kept, or else computed; those of a method without name or fingerprint are not kept."""
    fingerprint = "" if isinstance(method, str) else getattr(method, "fingerprint", "")
    if not (isinstance(method, str) or fingerprint):
        return compute()
    origin = {
        "what": what,
        "method": title(task.body, method),
        "seeds": list(seeds),
        "settings": _seen(method, settings) | {"device": torch_device(settings.device).type},
        "data": _checksum(task),
        "torch": torch.__version__,
        "code": _code() + fingerprint,
    }
    kept = Kept(files.cache() / "trained", f"{task.name}-{origin['method']}-{what}", json.dumps(origin, sort_keys=True))

    def packed() -> bytes:
        content = io.BytesIO()
        np.savez(content, **compute())  # type: ignore[arg-type]  # no array is called allow_pickle
        return content.getvalue()

    with np.load(io.BytesIO(kept.once(packed)), allow_pickle=False) as arrays:
        return dict(arrays)


def _seen(method: str | Middle, settings: Settings) -> dict[str, Any]:
    """The settings that make a difference to a method: a classical head does not know of an entangler."""
    seen = CIRCUITS.get(method, ()) if isinstance(method, str) else ("depth",)
    unseen = {"depth", "entangler", "start"}.difference(seen)
    return {name: value for name, value in asdict(settings).items() if name not in unseen}


def _checksum(task: Task) -> str:
    digest = hashlib.sha256()
    for tensor in (task.train_inputs, task.train_labels, task.test_inputs, task.test_labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@cache
def _code() -> str:
    """A checksum of the code that a training runs through; of what it says, not of its comments and line breaks."""
    sources = sorted(path for wing in ("learning", "quantum") for path in (files.PACKAGE / wing).glob("*.py"))
    said = [f"{path.stem}: {ast.dump(ast.parse(path.read_bytes()))}" for path in sources]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
