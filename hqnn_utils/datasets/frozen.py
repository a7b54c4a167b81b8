"""Frozen networks beside the book's ResNet18: of torchvision, if the weights are on this machine, or of one's own."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from hqnn_utils import named as names
from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.errors import BookError


class Frozen(NamedTuple):
    """A network and how it sees pictures."""

    network: nn.Module
    """`(batch, 3, height, width)` → `(batch, width, …)` features; frozen, in evaluation mode."""
    prepare: Callable[[Image.Image], Tensor]
    """A picture → `(3, height, width)`."""
    width: int
    """Numbers that it makes of a picture."""
    origin: str
    """All that its features depend on, but for the pictures."""


def load(named: str) -> Frozen:
    """The network of this name, without its last layer.

    Args:
        named: a classifier of torchvision, such as `"mobilenet_v3_small"`, whose weights are where torch keeps downloads
            (nothing is downloaded); or `package.module:attribute` or `path/to/file.py:attribute`, a module or a function
            without arguments that makes one, from `(batch, 3, 224, 224)` to features. A function `prepare` of the module says
            how it sees a picture; without one, as ResNet18 does.

    Raises:
        DataError: there is none, its weights are not here or not the published ones, or it makes no finite features.
    """
    network, prepare, origin = _own(named) if ":" in named else _of_torchvision(named)
    network = network.eval().requires_grad_(False)
    try:
        grey = prepare(Image.new("RGB", (320, 240), (90, 120, 150)))
        with torch.no_grad():
            shown = network(grey[None])
            twice = network(torch.stack([grey, grey]))
    except Exception as error:  # what a module of anyone's may raise
        raise DataError(f"{named} doesn't take a picture ({type(error).__name__}: {error})") from None
    if not isinstance(shown, Tensor) or shown.ndim < 2 or len(shown) != 1 or not shown.isfinite().all():
        raise DataError(f"{named} makes no finite features of a picture: expected a tensor of the shape (batch, n)")
    if not torch.allclose(shown, twice[1:], rtol=1e-3, atol=1e-3):
        raise DataError(f"{named} sees a picture otherwise when it is alone: it can't be frozen")
    digest = hashlib.sha256(origin.encode() + shown.numpy().tobytes() + grey.numpy().tobytes())
    return Frozen(network, prepare, shown[0].numel(), digest.hexdigest())


def _of_torchvision(name: str) -> tuple[nn.Module, Callable, str]:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise DataError(
            f"there is no network {name!r}: expected resnet18, resnet18-pqf, a classifier of torchvision such as "
            "mobilenet_v3_small, or one of your own, file.py:attribute"
        )
    published = models.get_model_weights(name)
    places = {weights: _place(weights.url) for weights in [published.DEFAULT, *published]}
    here = next((weights for weights, path in places.items() if path.is_file()), None)
    if here is None:
        raise DataError(
            f"the weights of {name} are not here: download {published.DEFAULT.url} to {places[published.DEFAULT]}, or have "
            f"torchvision do it with `torchvision.models.{name}(weights='DEFAULT')`"
        )
    path = places[here]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if (said := re.search(r"-([0-9a-f]{8,})\.", path.name)) and not sha256.startswith(said[1]):
        raise DataError(f"{path} is not what was published: its SHA-256 begins with {sha256[:8]}; delete it and fetch it anew")
    network = models.get_model(name, weights=None)
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    last = [place for place, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not last or last[-1] != [place for place, part in network.named_modules() if [*part.parameters(False)]][-1]:
        raise DataError(f"{name} does not end in a linear layer: cut it yourself, and name it as file.py:attribute")
    network.set_submodule(last[-1], nn.Identity())
    return network, here.transforms(), f"{here} {sha256}"


def _place(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _own(named: str) -> tuple[nn.Module, Callable, str]:
    from torchvision.models import ResNet18_Weights

    try:
        found = names.attribute(named)
        network = found if isinstance(found, nn.Module) else found()
    except BookError as error:
        raise DataError(f"a network of your own: {error}") from None
    except Exception as error:  # what a function of anyone's may raise
        raise DataError(f"{named} makes no network ({type(error).__name__}: {error})") from None
    if not isinstance(network, nn.Module):
        raise DataError(f"{named} is a {type(network).__name__}: expected a torch.nn.Module or what makes one")
    digest = hashlib.sha256(names.source(named).read_bytes())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy(force=True).tobytes())
    prepare = getattr(network, "prepare", None) or ResNet18_Weights.IMAGENET1K_V1.transforms()
    return network, prepare, digest.hexdigest()
