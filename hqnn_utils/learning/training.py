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

Loss = Callable[[Tensor, Tensor], Tensor]
"""(predictions of one model, labels) → the loss of each image, shape `(batch,)`."""


class Ensemble:
    """Models that differ only in their seed, with all their parameters stacked along a first axis.

    Args:
        build: makes one model; torch's generator is seeded before each call.
        seeds: one for each model.

    The caller's random state is left as it was.
    """

    def __init__(self, build: Callable[[], nn.Module], seeds: Sequence[int]):
        self.seeds = list(seeds)
        models = []
        with torch.random.fork_rng(devices=[]):
            for seed in self.seeds:
                torch.manual_seed(seed)
                models.append(build())
        self.parameters, self.buffers = stack_module_state(models)
        self.template = models[0]  # says what to compute; its own parameters are never used

    def __call__(self, images: Tensor, shared: bool = False) -> Tensor:
        """Outputs of all models, shape `(seeds, batch, …)`.

        Args:
            images: `(seeds, batch, …)`, a batch for each model; or with `shared` one `(batch, …)` for all.
        """

        def one(parameters, buffers, batch):
            return functional_call(self.template, (parameters, buffers), (batch,))

        in_dims = (0, 0, None if shared else 0)
        return torch.vmap(one, in_dims, randomness="different")(self.parameters, self.buffers, images)

    def model(self, number: int) -> nn.Module:
        """One of the models, as a module of its own with a copy of its weights."""
        module = deepcopy(self.template)
        state = {name: stacked[number] for name, stacked in (self.parameters | self.buffers).items()}
        module.load_state_dict(state, strict=False)  # buffers may be left out of the state of a module
        return module

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "n *image"], batch_size: int = 256) -> Float[Tensor, "seeds n *output"]:
        """Outputs of all models for all images, in batches so that memory stays small. One that is not finite is refused."""
        outputs = torch.cat([self(batch, shared=True) for batch in images.split(batch_size)], dim=1)
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
    points: int = 1,
    name: str = "training",
    after_epoch: Callable[[], None] = lambda: None,
) -> Float[Tensor, "points seeds"]:
    """Train every model of the ensemble with Adam, each seed with its own order of the images.

    Args:
        images: finite, at least one.
        labels: 0 … k - 1 where a model gives k scores for an image, 0 and 1 where it gives one number.
        loss: gives the loss of each image; every model follows the gradient of its own mean.
        epochs: passes over the images, at least 1.
        batch_size: images a step and model; the last batch of an epoch may be smaller.
        learning_rate: Adam's step size.
        points: into how many parts each epoch is divided for the history, at least 1 and at most its number of steps.
        name: shown beside the progress bar.
        after_epoch: called after each epoch, e.g. to look at how the networks do.

    Returns:
        The mean training loss of each part of each epoch and of each seed, as seen during it, `(epochs * points, seeds)`.

    Raises:
        ValueError: epochs or a batch size below 1, a learning rate that is not positive, more parts than steps, no images,
            or labels that are not as many, or not of these classes.
        NotFinite: an image; or after an epoch a loss or a weight, named with the epoch and the seed.

    Models do not share parameters, so the gradient of the summed losses is each model's own gradient, and Adam, which
    works element by element, makes each model's own step.
    """
    for what, value, good in (
        ("epochs", epochs, epochs >= 1),
        ("batch_size", batch_size, batch_size >= 1),
        ("learning_rate", learning_rate, 0 < learning_rate < inf),
    ):
        if not good:
            raise ValueError(f"{what} must be {'positive' if what == 'learning_rate' else 'at least 1'}, got {value}")
    n = len(images)
    if not n == len(labels) > 0:
        raise ValueError(f"every image needs a label, and there must be some: got {n} images and {len(labels)} labels")
    finite("images", images, row=range(n))
    parts = torch.arange(-(-n // batch_size)).tensor_split(points) if points >= 1 else [()]
    if not min(map(len, parts)):
        raise ValueError(f"points must be between 1 and the {-(-n // batch_size)} steps of an epoch, got {points}")
    part_of = [number for number, part in enumerate(parts) for _ in part]  # of each step of an epoch
    steps = [f"{part[0] + 1} to {part[-1] + 1}" for part in parts]
    generators = [torch.Generator().manual_seed(seed) for seed in ensemble.seeds]
    optimiser = torch.optim.Adam(ensemble.parameters.values(), lr=learning_rate)
    history, seen = torch.zeros(epochs, points, len(ensemble.seeds)), torch.zeros(epochs, points, 1)
    with tqdm(total=epochs * len(part_of), desc=name, leave=False, mininterval=1, unit="step") as bar:
        for epoch in range(epochs):
            order = torch.stack([torch.randperm(n, generator=g) for g in generators])  # (seeds, n)
            for part, rows in zip(part_of, order.split(batch_size, dim=1), strict=True):  # (seeds, batch)
                outputs = ensemble(images[rows])  # (seeds, batch, …)
                if not bar.n:  # the first outputs tell how many classes there are
                    _check_labels(labels, max((2, *outputs.shape[2:])))
                losses = torch.vmap(loss)(outputs, labels[rows])  # (seeds, batch)
                optimiser.zero_grad()
                losses.mean(dim=1).sum().backward()
                optimiser.step()
                history[epoch, part] += losses.detach().sum(dim=1)
                seen[epoch, part] += rows.shape[1]
                bar.update()
            finite(f"training losses of epoch {epoch + 1}", history[epoch], steps=steps, seed=ensemble.seeds)
            for weights, stacked in ensemble.parameters.items():
                finite(f"weights {weights} after epoch {epoch + 1}", stacked, seed=ensemble.seeds)
            after_epoch()
    return (history / seen).flatten(0, 1)


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
