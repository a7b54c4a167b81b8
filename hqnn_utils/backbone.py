"""The frozen network of Experiment 3: ResNet18 trained on ImageNet, and the 512 numbers it makes of each photograph.

The network is never trained further, so its features are computed once and kept, in parts, so that a run that was stopped goes
on where it was. What is kept is named by everything it depends on: weights, images and the code that prepares them.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from hqnn_utils import files
from hqnn_utils.catalogue import DataError, MissingData, downloads, root
from hqnn_utils.photos import Photos, decode

WEIGHTS = ("resnet18", "resnet18-pqf")
"""torchvision's own, and the product-quantised network of Martinez et al. 2021 (66.74 % top-1 on ImageNet)."""

PQF_URL = (
    "https://raw.githubusercontent.com/uber-research/permute-quantize-finetune/"
    "53a30bade862769f4f0523e38c4ee1333a2e48b1/compressed_models/resnet18.pth"
)
PQF_SHA256 = "6b9fc5f66a841ee372a47570a5040ac5616359d374a2fe30d78b6626b0a52fe4"

PREPARED = "torchvision's transforms of ResNet18_Weights.IMAGENET1K_V1"
"""What `_prepared` does; part of the name of what is kept, so that another preparation is not mistaken for this one."""

PART = 64
"""So many photographs are computed, and kept, at a time."""


def resnet18(weights: str = "resnet18-pqf") -> nn.Module:
    """ResNet18 with ImageNet weights, frozen, in evaluation mode: `(batch, 3, 224, 224)` → `(batch, 1000)` scores.

    Args:
        weights: one of `WEIGHTS`; fetched first if need be, `resnet18` by torchvision, `resnet18-pqf` from its authors.

    Raises:
        ValueError: unknown weights.
        DataError: weights that cannot be had, or are not those of the catalogue.

    Sources: He et al. 2016; Martinez et al. 2021, whose files hold codebooks: a weight is `codebook[codes]`.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights {weights!r}: choose one of {', '.join(WEIGHTS)}")
    from torchvision.models import ResNet18_Weights
    from torchvision.models import resnet18 as build

    if weights == "resnet18":
        try:
            network = build(weights=ResNet18_Weights.IMAGENET1K_V1)
        except OSError as error:
            raise MissingData(
                f"torchvision could not fetch the weights of ResNet18 ({error}): try again with the network there, or take "
                "weights='resnet18-pqf'"
            ) from None
    else:
        network = build(weights=None)
        # Batch norms are folded: their running mean and variance stay 0 and 1, as they are made.
        network.load_state_dict(_decoded(_pqf_file()) | _running(network))
    return network.eval().requires_grad_(False)


def _running(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in network.named_buffers()}


def _pqf_file() -> Path:
    """The published file, in the data root or fetched into the cache, with its SHA-256 compared."""
    given = root() / "weights" / "pqf_resnet18.pth"
    if given.exists():
        if hashlib.sha256(given.read_bytes()).hexdigest() != PQF_SHA256:
            raise DataError(f"{given} is not the published file (its SHA-256 differs): remove it, and it will be fetched")
        return given
    kept = files.cache() / "weights" / given.name
    try:
        return Path(downloads().retrieve(PQF_URL, f"sha256:{PQF_SHA256}", kept.name, kept.parent))
    except (OSError, ValueError) as error:
        raise (DataError if kept.exists() else MissingData)(
            f"the weights resnet18-pqf could not be fetched from {PQF_URL} ({type(error).__name__}): try again with the "
            f"network there, or set HQNN_DATA to a folder that holds weights/{given.name}"
        ) from None


def _decoded(path: Path) -> dict[str, Tensor]:
    """torchvision's state dict of a product-quantised file; read as plain tensors, never as code."""
    stored = torch.load(path, weights_only=True, map_location="cpu")
    state = {name: tensor for name, tensor in stored.items() if not name.endswith((".codes_matrix", ".codebook"))}
    from torchvision.models import resnet18 as build

    shapes = {name: parameter.shape for name, parameter in build(weights=None).named_parameters()}
    for name in stored:
        if layer := name.removesuffix(".codes_matrix") if name.endswith(".codes_matrix") else "":
            codes, codebook = stored[name].long(), stored[f"{layer}.codebook"].float()
            state[f"{layer}.weight"] = codebook[codes].reshape(shapes[f"{layer}.weight"])
    return state


def _prepared(path: Path) -> Float[Tensor, "3 224 224"]:
    from torchvision.models import ResNet18_Weights

    return ResNet18_Weights.IMAGENET1K_V1.transforms()(decode(path))


def prepared(paths: Sequence[Path]) -> Float[Tensor, "n 3 224 224"]:
    """Photographs as the network sees them: short side 256, the middle 224, ImageNet's mean and deviation."""
    return torch.stack([_prepared(path) for path in paths])


def features(photographs: Photos, weights: str = "resnet18-pqf", cache: Path | None = None) -> Float[Tensor, "n 512"]:
    """What the frozen network makes of each photograph, in the order of its paths: the input of its last layer.

    Computed once, in parts that are kept as they are ready; a part that cannot be read is computed anew, with a warning.
    Processes that ask at the same time share the work: each takes parts that no other is at.

    Args:
        weights: one of `WEIGHTS`.
        cache: the folder to keep them in; by default `features/` of `files.cache()`.

    Raises:
        DataError: a photograph that does not decode, weights that cannot be had, or a kept part of other origin.
    """
    key = "\n".join([weights, PREPARED, photographs.sha256])
    name = f"{photographs.name}-{weights}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder = (cache or files.cache() / "features") / name
    starts = range(0, len(photographs), PART)
    parts = {folder / f"{start:05}.npz": range(start, min(start + PART, len(photographs))) for start in starts}
    kept = {file: _kept(file, key, len(rows)) for file, rows in parts.items()}
    missing = [file for file in parts if kept[file] is None]
    if missing:
        network = resnet18(weights)
        network.fc = nn.Identity()
        folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(missing), desc=photographs.name, unit="part", leave=False, disable=not missing) as bar:
        for wait in (False, True):  # first what no other process is at; then, if need be, wait for the others
            for file in [file for file in missing if kept[file] is None]:
                with suppress(Timeout), FileLock(file.with_suffix(".lock"), blocking=wait):
                    kept[file] = _kept(file, key, len(parts[file]))  # another process may have been faster
                    if kept[file] is None:
                        kept[file] = _computed(network, [photographs.paths[row] for row in parts[file]])
                        _keep(file, key, kept[file])
                    bar.update()
    return torch.from_numpy(np.concatenate(list(kept.values())))


@torch.no_grad()
def _computed(network: nn.Module, paths: list[Path]) -> np.ndarray:
    batches = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    return torch.cat([network(prepared(batch)) for batch in batches]).numpy()


def _kept(path: Path, key: str, rows: int) -> np.ndarray | None:
    """A kept part, or `None` where there is none that can be read."""
    if not path.exists():
        return None
    try:
        with np.load(path) as stored:  # a zip file, whose own checksums tell a damaged one
            origin, part = str(stored["key"]), stored["features"]
        if part.shape != (rows, 512):
            raise ValueError(f"its shape is {part.shape}, not {(rows, 512)}")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        warnings.warn(f"{path} cannot be read ({error}) and is computed anew", stacklevel=3)
        path.unlink(missing_ok=True)
        return None
    if origin != key:
        raise DataError(f"{path} holds features of another origin ({origin!r}): remove the folder, and they are computed anew")
    return part


def _keep(path: Path, key: str, part: np.ndarray) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez(file, key=np.array(key), features=part)
    os.replace(file.name, path)
