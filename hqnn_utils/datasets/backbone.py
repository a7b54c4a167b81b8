"""The frozen network of Experiment 3: ResNet18 trained on ImageNet, and the 512 numbers it makes of each photograph.

The network is never trained further, so its features are computed once and kept, again and again while they grow, so that a
run that was stopped goes on where it was. They depend on the weights, the images and how those are prepared.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from hqnn_utils import files
from hqnn_utils.datasets import frozen
from hqnn_utils.datasets.catalogue import DataError, entry
from hqnn_utils.datasets.frozen import Frozen
from hqnn_utils.datasets.photos import Photos, decode
from hqnn_utils.kept import Kept

RESNET18 = ("resnet18", "resnet18-pqf")
"""Its weights, by their names in the catalogue."""

PREPARED = "seen upright and opaque in 8 bits; torchvision's transforms of ResNet18_Weights.IMAGENET1K_V1"
"""What `prepared` does; part of the name of what is kept, so that another preparation is not mistaken for this one."""

PART = 64
"""After so many photographs more the features are kept."""

BATCH = 16
"""So many are computed at a time."""

WIDTH = 512
"""Numbers that the last layer of ResNet18 is shown of each."""


def resnet18(weights: str = "resnet18-pqf") -> nn.Module:
    """ResNet18 with ImageNet weights, frozen, in evaluation mode: `(batch, 3, 224, 224)` → `(batch, 1000)` scores.

    Args:
        weights: one of `RESNET18`, fetched first if need be: torchvision's own, or those of Martinez et al.

    Raises:
        DataError: unknown weights, some that cannot be had, or are not the published ones.

    Sources: He et al. 2016; Martinez et al. 2021, whose files hold codebooks: a weight is `codebook[codes]`.
    """
    from torchvision.models import resnet18 as build

    wanted = entry(weights, "weights")
    wanted.fetch()
    (file,) = wanted.files
    network = build(weights=None)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    # Read as plain tensors, never as code.
    stored = torch.load(io.BytesIO(wanted.content(file)), weights_only=True, map_location="cpu")
    # Martinez et al. folded the batch norms: their running mean and variance stay 0 and 1, as they are made.
    network.load_state_dict(dict(network.named_buffers()) | _decoded(stored, shapes))
    return network.eval().requires_grad_(False)


def _decoded(stored: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """torchvision's state dict; weights that are stored as codes are looked up in their codebooks."""
    state = {name: tensor for name, tensor in stored.items() if not name.endswith((".codes_matrix", ".codebook"))}
    for layer in [name.removesuffix(".codes_matrix") for name in stored if name.endswith(".codes_matrix")]:
        codes, codebook = stored[f"{layer}.codes_matrix"].long(), stored[f"{layer}.codebook"].float()
        state[f"{layer}.weight"] = codebook[codes].reshape(shapes[f"{layer}.weight"])
    return state


@torch.no_grad()
def unfolded(network: nn.Module, images: Float[Tensor, "n 3 height width"]) -> nn.Module:
    """The network with batch norms that know the statistics of these images; in evaluation mode it computes what it did.

    The weights of Martinez et al. come with batch norms that are one factor and one offset for each channel. In training mode
    these would forget what they were made of; with statistics of their own they are what batch norms are elsewhere.

    Args:
        network: in evaluation mode; changed in place, and returned.
        images: prepared as the network sees them; the more, the nearer the statistics are to those of its own training.
    """
    norms: dict[nn.BatchNorm2d, list[Tensor]] = {m: [] for m in network.modules() if isinstance(m, nn.BatchNorm2d)}

    def note(norm: Any, given: tuple[Tensor]) -> None:
        norms[norm].append(torch.stack([given[0].mean((0, 2, 3)), given[0].square().mean((0, 2, 3))]) * len(given[0]))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for batch in images.split(BATCH):
        network(batch)
    for hook, (norm, noted) in zip(hooks, norms.items(), strict=True):
        hook.remove()
        mean, square = torch.stack(noted).sum(dim=0) / len(images)
        known = dict(norm.named_parameters()) | dict(norm.named_buffers())
        deviation = (square - mean**2 + norm.eps).sqrt()
        factor = known["weight"] / (known["running_var"] + norm.eps).sqrt()
        known["bias"] += factor * (mean - known["running_mean"])
        known["weight"].copy_(factor * deviation)
        known["running_mean"].copy_(mean)
        known["running_var"].copy_(square - mean**2)
    return network


def prepared(paths: Sequence[Path], hashes: Sequence[str] = ()) -> Float[Tensor, "n 3 224 224"]:
    """Photographs as the network sees them: short side 256, the middle 224, ImageNet's mean and deviation.

    Args:
        hashes: SHA-256 of the files, where they were checked before; what has been altered since is refused.
    """
    from torchvision.models import ResNet18_Weights

    return _prepared(paths, hashes, ResNet18_Weights.IMAGENET1K_V1.transforms())


def _prepared(paths: Sequence[Path], hashes: Sequence[str], prepare: Callable) -> Tensor:
    return torch.stack(
        [prepare(decode(path, sha256)) for path, sha256 in zip(paths, hashes or [""] * len(paths), strict=True)]
    )


def features(
    photographs: Photos, weights: str = "resnet18-pqf", cache: Path | None = None, device: str = "cpu"
) -> Float[Tensor, "n features"]:
    """What the frozen network makes of each photograph, in the order of its paths: the input of its last layer.

    Computed once. Of processes that ask at the same time one computes, and the others wait for it. What is not as it was kept,
    be it by one bit, is computed anew, with a warning.

    Args:
        weights: as for `resnet18`, or another network, as for `frozen.load`.
        cache: the folder to keep them in; by default `features/` of `files.cache()`.
        device: of torch, to compute them on; what was kept is taken as it is, whatever made it.

    Raises:
        DataError: a photograph that does not decode or was altered after it was checked, weights that cannot be had, features
            that are no numbers, or a folder that cannot be written.
    """
    other = None if weights in RESNET18 else frozen.load(weights)
    seen_by = [other.origin] if other else [weights, PREPARED]
    origin = "\n".join([*seen_by, photographs.sha256, *photographs.hashes])
    name = weights.rpartition(":")[2]
    kept = Kept(cache or files.cache() / "features", f"{photographs.name}-{name}", origin)
    width = other.width if other else WIDTH
    found = _rows(kept.read(), width)
    if len(found) < len(photographs):
        with kept.alone():
            found = _rows(kept.read(), width)  # another process may have been faster
            found = _completed(found, photographs, lambda: other or _resnet18(weights), kept, device)
    return torch.from_numpy(found.copy())


def _resnet18(weights: str) -> Frozen:
    from torchvision.models import ResNet18_Weights

    network = resnet18(weights)
    network.fc = nn.Identity()
    return Frozen(network, ResNet18_Weights.IMAGENET1K_V1.transforms(), WIDTH, weights)


def _completed(found: np.ndarray, photographs: Photos, load: Callable[[], Frozen], kept: Kept, device: str) -> np.ndarray:
    if starts := range(len(found), len(photographs), PART):
        by = load()
        network = by.network.to(device)
        with tqdm(starts, desc=photographs.name, unit="part", leave=False) as bar:
            for start in bar:
                part = slice(start, start + PART)
                shown = photographs.paths[part], photographs.hashes[part]
                found = np.concatenate([found, _computed(network, *shown, by.prepare, device)])
                kept.write(found.tobytes())
    return found


def _rows(kept: bytes | None, width: int) -> np.ndarray:
    """What was kept of the features, from the first photograph on; nothing at first."""
    return np.frombuffer(kept or b"", "<f4").reshape(-1, width)


@torch.no_grad()
def _computed(network: nn.Module, paths: Sequence[Path], hashes: Sequence[str], prepare: Callable, device: str) -> np.ndarray:
    batches = [slice(start, start + BATCH) for start in range(0, len(paths), BATCH)]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # on a GPU too, single precision is single precision
        seen = [network(_prepared(paths[batch], hashes[batch], prepare).to(device)) for batch in batches]
    part = torch.cat(seen).flatten(1).numpy(force=True)
    odd = np.flatnonzero(~np.isfinite(part).all(axis=1))
    if len(odd):
        raise DataError(f"the features of {paths[odd[0]]} hold NaN or infinity: the weights of the network are not sound")
    return part.astype("<f4")
