"""Training of many seeds at once: the models of an experiment are one batch of parameters.

Seeds differ in their initial weights and in the order of the images, and in nothing else. Stacking them along a first
axis makes one pass of vectorised code train all of them, and each as if it were alone.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from tqdm import tqdm

from hqnn_utils.checks import finite
from hqnn_utils.errors import BookError

Loss = Callable[[Tensor, Tensor], Tensor]
"""(predictions of one model, labels) → the loss of each image, shape `(batch,)`."""

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
"""All work element by element, so what a model's weights do depends on its own gradients alone. With torch's defaults."""

DEVICES = ("auto", "cpu", "cuda")


def torch_device(name: str) -> torch.device:
    """Where torch computes: on the processor, on a GPU, or with `"auto"` on a GPU where there is one.

    Raises:
        BookError: an unknown name, or `"cuda"` where torch finds no GPU.
    """
    if name not in DEVICES:
        raise BookError(f"unknown device {name!r}: choose one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise BookError("torch finds no GPU here: choose the device cpu, or auto, which takes a GPU where there is one")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Ensemble:
    """Models that differ only in their seed, with all their parameters stacked along a first axis.

    Args:
        build: makes one model; torch's generator is seeded before each call.
        seeds: one for each model.
        device: where they live and are trained, as for `torch_device`; they start with the same weights anywhere.

    The caller's random state is left as it was.
    """

    def __init__(self, build: Callable[[], nn.Module], seeds: Sequence[int], device: str = "cpu"):
        self.seeds, self.device = list(seeds), torch_device(device)
        models = []
        with torch.random.fork_rng(devices=[]):
            for seed in self.seeds:
                torch.manual_seed(seed)
                models.append(build().to(self.device))
        self.parameters, self.buffers = stack_module_state(models)
        self.template = models[0]  # says what to compute; its own parameters are never used

    def __call__(self, batches: Tensor) -> Tensor:
        """Outputs of all models, each for a batch of its own: `(seeds, batch, …)` → `(seeds, batch, …)`."""
        return self._outputs(batches, 0)

    def shown(self, images: Tensor) -> Tensor:
        """Outputs of all models for the same images: `(batch, …)` → `(seeds, batch, …)`."""
        return self._outputs(images, None)

    def _outputs(self, images: Tensor, axis: int | None) -> Tensor:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self.template, (parameters, buffers), (batch,))

        return torch.vmap(one, (0, 0, axis), randomness="different")(self.parameters, self.buffers, images.to(self.device))

    def model(self, number: int) -> nn.Module:
        """One of the models, as a module of its own with a copy of its weights, on the processor."""
        module = deepcopy(self.template)
        state = {name: stacked[number] for name, stacked in (self.parameters | self.buffers).items()}
        module.load_state_dict(state, strict=False)  # buffers may be left out of the state of a module
        return module.cpu()

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "n *image"], batch_size: int = 256) -> Float[Tensor, "seeds n *output"]:
        """Outputs of all models for all images, in batches so that memory stays small. One that is not finite is refused."""
        outputs = torch.cat([self.shown(batch).cpu() for batch in images.split(batch_size)], dim=1)
        finite("outputs of the networks", outputs, seed=self.seeds, image=range(len(images)))
        return outputs


def fit(
    ensemble: Ensemble,
    images: Float[Tensor, "n *image"],
    labels: Int[Tensor, " n"],
    loss: Loss,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    optimizer: str = "adam",
    decay_every: int = 0,
    decay: int | float = 0.1,
    points: int = 1,
    name: str = "training",
    after_epoch: Callable[[], None] = lambda: None,
) -> Float[Tensor, "points seeds"]:
    """Train every model of the ensemble, where it lives, each seed with its own order of the images.

    Args:
        images: finite, at least one.
        labels: 0 … k - 1 where a model gives k scores for an image, 0 and 1 where it gives one number.
        loss: gives the loss of each image; every model follows the gradient of its own mean.
        epochs: passes over the images, at least 1.
        batch_size: images a step and model; the last batch of an epoch may be smaller.
        learning_rate: the optimiser's step size.
        optimizer: one of `OPTIMIZERS`.
        decay_every: after so many epochs, again and again, the step size is multiplied by `decay`, in (0, 1]; 0 is never.
        points: into how many parts each epoch is divided for the history, at least 1 and at most its number of steps.
        name: shown beside the progress bar.
        after_epoch: called after each epoch, e.g. to look at how the networks do.

    Returns:
        The mean training loss of each part of each epoch and of each seed, as seen during it, `(epochs * points, seeds)`.

    Raises:
        ValueError: epochs or a batch size below 1, a learning rate that is not positive, a decay outside (0, 1] or after a
            negative number of epochs, an unknown optimiser, more parts than steps, no images, or labels that are not as many,
            or not of these classes.
        NotFinite: an image; or after an epoch a loss or a weight, named with the epoch and the seed.

    Models do not share parameters, so the gradient of the summed losses is each model's own gradient, and an optimiser, which
    works element by element, makes each model's own step.
    """
    _check_settings(optimizer, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    if not (decay_every >= 0 and 0 < decay <= 1):
        raise ValueError(f"a decay must be in (0, 1], after 0 epochs (never) or more, got {decay} after {decay_every}")
    _check_images(images, labels)
    n = len(images)
    part_of, steps = _parts(-(-n // batch_size), points)
    optimiser = OPTIMIZERS[optimizer](ensemble.parameters.values(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, decay_every or epochs, decay)
    step = _stepper(ensemble, images.to(ensemble.device), labels.to(ensemble.device), loss, optimiser)
    generators = [torch.Generator().manual_seed(seed) for seed in ensemble.seeds]
    history, seen = torch.zeros(epochs, points, len(ensemble.seeds), device=ensemble.device), torch.zeros(epochs, points, 1)
    with tqdm(total=epochs * len(part_of), desc=name, leave=False, mininterval=1, unit="step") as bar:
        for epoch in range(epochs):
            order = torch.stack([torch.randperm(n, generator=g) for g in generators])  # (seeds, n)
            for part, rows in zip(part_of, order.split(batch_size, dim=1), strict=True):  # (seeds, batch)
                history[epoch, part] += step(rows).sum(dim=1)
                seen[epoch, part] += rows.shape[1]
                bar.update()
            finite(f"training losses of epoch {epoch + 1}", history[epoch], steps=steps, seed=ensemble.seeds)
            for weights, stacked in ensemble.parameters.items():
                finite(f"weights {weights} after epoch {epoch + 1}", stacked, seed=ensemble.seeds)
            schedule.step()
            after_epoch()
    return (history.cpu() / seen).flatten(0, 1)


def _stepper(
    ensemble: Ensemble, images: Tensor, labels: Tensor, loss: Loss, optimiser: torch.optim.Optimizer
) -> Callable[[Tensor], Tensor]:
    """Makes a step of every model with its rows of the images `(seeds, batch)`, and gives their losses."""
    unchecked = [labels]

    def step(rows: Tensor) -> Tensor:
        rows = rows.to(ensemble.device)
        outputs = ensemble(images[rows])  # (seeds, batch, …)
        if unchecked:  # the first outputs tell how many classes there are
            _check_labels(unchecked.pop(), max((2, *outputs.shape[2:])))
        losses = torch.vmap(loss)(outputs, labels[rows])  # (seeds, batch)
        optimiser.zero_grad()
        losses.mean(dim=1).sum().backward()
        optimiser.step()
        return losses.detach()

    return step


def _parts(steps: int, points: int) -> tuple[list[int], list[str]]:
    """To which part of an epoch each of its steps belongs, and what the parts are called."""
    if not 1 <= points <= steps:
        raise ValueError(f"points must be between 1 and the {steps} steps of an epoch, got {points}")
    parts = torch.arange(steps).tensor_split(points)
    return [number for number, part in enumerate(parts) for _ in part], [f"{part[0] + 1} to {part[-1] + 1}" for part in parts]


def _check_images(images: Tensor, labels: Tensor) -> None:
    if not len(images) == len(labels) > 0:
        got = f"{len(images)} images and {len(labels)} labels"
        raise ValueError(f"every image needs a label, and there must be some: got {got}")
    finite("images", images, row=range(len(images)))


def _check_settings(optimizer: str, **settings: int | float) -> None:
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    for what, value in settings.items():
        if what == "learning_rate" and not 0 < value < inf:
            raise ValueError(f"{what} must be positive, got {value}")
        if what != "learning_rate" and not value >= 1:
            raise ValueError(f"{what} must be at least 1, got {value}")


def _check_labels(labels: Tensor, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(f"labels must be in 0 to {classes - 1}, the classes of the outputs, got {wrong[0]}")


def _check_outputs(what: str, outputs: Tensor, labels: Tensor) -> None:
    """Refuse outputs `(models, images, …)` that are not finite, or not as many as the labels."""
    if outputs.shape[1] != len(labels):
        raise ValueError(f"every image needs a label: got {what} of {outputs.shape[1]} images and {len(labels)} labels")
    finite(what, outputs, model=range(len(outputs)), image=range(len(labels)))


def negative_probability(p1: Float[Tensor, " batch"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """-P(true class), in [-1, 0]: what `nll_loss` makes of probabilities in place of their logarithms.

    The loss of the slides' first experiment, hence their negative losses. Discussed in book/experiments/quantum_classifier.
    Of a NaN it makes a NaN: it is used under `torch.vmap`, where no value can be looked at, and `fit` looks at its losses.
    """
    return -torch.where(labels == 1, p1, 1 - p1)


def top1(scores: Float[Tensor, "*models batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, "*models"]:
    """Share of images whose true class has the largest score, in [0, 1].

    Raises:
        NotFinite: a score; names the model and the image.
        ValueError: labels that are no classes, or not as many as images.
    """
    _check_outputs("scores", scores.reshape(-1, *scores.shape[-2:]), labels)
    _check_labels(labels, scores.shape[-1])
    return (scores.argmax(dim=-1) == labels).double().mean(dim=-1)


def accuracy(p1: Float[Tensor, "*models batch"], labels: Int[Tensor, " batch"]) -> Float[Tensor, "*models"]:
    """Share of images whose true class has the larger probability, in [0, 1]. Errors as for `top1`."""
    _check_outputs("probabilities", p1.reshape(-1, p1.shape[-1]), labels)
    _check_labels(labels, 2)
    return ((p1 > 0.5) == (labels == 1)).double().mean(dim=-1)
