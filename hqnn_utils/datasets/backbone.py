"""The frozen network of Experiment 3: ResNet18 trained on ImageNet, and the 512 numbers it makes of each photograph.

The network is never trained further, so its features are computed once and kept, in parts, so that a run that was stopped goes
on where it was. What is kept is named by everything it depends on: weights, images and the code that prepares them; and it is
verified, bit by bit, before it is used.
"""

import hashlib
import io
import warnings
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from hqnn_utils import files
from hqnn_utils.datasets.catalogue import DataError, MissingData, content, download, root
from hqnn_utils.datasets.photos import Photos, decode

WEIGHTS = {
    "resnet18": {
        "file": "resnet18-f37072fd.pth",
        "url": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "bytes": 46_830_571,
        "sha256": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    },
    "resnet18-pqf": {
        "file": "pqf_resnet18.pth",
        "url": "https://raw.githubusercontent.com/uber-research/permute-quantize-finetune/"
        "53a30bade862769f4f0523e38c4ee1333a2e48b1/compressed_models/resnet18.pth",
        "bytes": 1_707_918,
        "sha256": "6b9fc5f66a841ee372a47570a5040ac5616359d374a2fe30d78b6626b0a52fe4",
    },
}
"""torchvision's own, and the product-quantised network of Martinez et al. 2021 (66.74 % top-1 on ImageNet)."""

PREPARED = "seen upright and opaque in 8 bits; torchvision's transforms of ResNet18_Weights.IMAGENET1K_V1"
"""What `prepared` does; part of the name of what is kept, so that another preparation is not mistaken for this one."""

PART = 64
"""So many photographs are kept together."""

BATCH = 16
"""So many are computed at a time."""

WIDTH = 512
"""Numbers that the last layer is shown of each."""


def resnet18(weights: str = "resnet18-pqf") -> nn.Module:
    """ResNet18 with ImageNet weights, frozen, in evaluation mode: `(batch, 3, 224, 224)` → `(batch, 1000)` scores.

    Args:
        weights: one of `WEIGHTS`; from `weights/` of the data root, or fetched into that of `files.cache()`.

    Raises:
        ValueError: unknown weights.
        DataError: weights that cannot be had, or are not the published ones.

    Sources: He et al. 2016; Martinez et al. 2021, whose files hold codebooks: a weight is `codebook[codes]`.
    """
    if weights not in list(WEIGHTS):
        raise ValueError(f"unknown weights {weights!r:.80}: choose one of {', '.join(WEIGHTS)}")
    from torchvision.models import resnet18 as build

    network = build(weights=None)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    # Read as plain tensors, never as code.
    stored = torch.load(io.BytesIO(_published(weights)), weights_only=True, map_location="cpu")
    # Martinez et al. folded the batch norms: their running mean and variance stay 0 and 1, as they are made.
    network.load_state_dict(dict(network.named_buffers()) | _decoded(stored, shapes))
    return network.eval().requires_grad_(False)


def _published(weights: str) -> bytes:
    """The published file, in the data root or fetched into the cache, with its SHA-256 compared."""
    wanted = WEIGHTS[weights]
    place = root() / "weights" / wanted["file"]
    if not place.exists():
        place = files.cache() / "weights" / wanted["file"]
    if not place.exists():
        try:
            download(wanted["url"], place, wanted["bytes"], wanted["sha256"])
        except DataError as error:
            raise MissingData(
                f"the weights {weights} could not be fetched from {wanted['url']} ({error}): try again with the network "
                f"there, or set HQNN_DATA to a folder that holds weights/{wanted['file']}"
            ) from None
    return content(place, wanted["sha256"])


def _decoded(stored: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """torchvision's state dict; weights that are stored as codes are looked up in their codebooks."""
    state = {name: tensor for name, tensor in stored.items() if not name.endswith((".codes_matrix", ".codebook"))}
    for layer in [name.removesuffix(".codes_matrix") for name in stored if name.endswith(".codes_matrix")]:
        codes, codebook = stored[f"{layer}.codes_matrix"].long(), stored[f"{layer}.codebook"].float()
        state[f"{layer}.weight"] = codebook[codes].reshape(shapes[f"{layer}.weight"])
    return state


def prepared(paths: Sequence[Path], hashes: Sequence[str] = ()) -> Float[Tensor, "n 3 224 224"]:
    """Photographs as the network sees them: short side 256, the middle 224, ImageNet's mean and deviation.

    Args:
        hashes: SHA-256 of the files, where they were checked before; what has been altered since is refused.
    """
    from torchvision.models import ResNet18_Weights

    transform = ResNet18_Weights.IMAGENET1K_V1.transforms()
    return torch.stack([transform(decode(path, sha256)) for path, sha256 in zip_longest(paths, hashes, fillvalue="")])


def features(photographs: Photos, weights: str = "resnet18-pqf", cache: Path | None = None) -> Float[Tensor, "n 512"]:
    """What the frozen network makes of each photograph, in the order of its paths: the input of its last layer.

    Computed once, in parts that are kept as they are ready, each with a SHA-256 of its numbers and its origin. A part that is
    not what was kept, be it by one bit, is computed anew, with a warning. Of processes that ask at the same time one computes,
    and the others wait for it.

    Args:
        weights: one of `WEIGHTS`.
        cache: the folder to keep them in; by default `features/` of `files.cache()`.

    Raises:
        DataError: a photograph that does not decode or was altered after it was checked, weights that cannot be had, features
            that are no numbers, or a folder that cannot be written.
    """
    key = "\n".join([weights, PREPARED, photographs.sha256, *photographs.hashes])
    name = f"{photographs.name}-{weights}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder = (cache or files.cache() / "features") / name
    parts = {folder / f"{start:05}.f32": slice(start, start + PART) for start in range(0, len(photographs), PART)}
    paths = {file: photographs.paths[part] for file, part in parts.items()}
    kept = {file: _kept(file, key, len(paths[file])) for file in parts}
    if missing := [file for file in parts if kept[file] is None]:
        network = resnet18(weights)
        network.fc = nn.Identity()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"), tqdm(missing, desc=photographs.name, unit="part", leave=False) as bar:
                for file in bar:
                    kept[file] = _kept(file, key, len(paths[file]))  # another process may have been faster
                    if kept[file] is None:
                        if file.exists():
                            warnings.warn(f"{file} is not as it was kept, and is computed anew", stacklevel=2)
                        kept[file] = _computed(network, paths[file], photographs.hashes[parts[file]])
                        files.write(file, _sealed(kept[file].tobytes(), key, file.name))
        except OSError as error:
            raise DataError(f"features cannot be kept in {folder} ({error}): make room, or choose another cache") from None
    return torch.from_numpy(np.concatenate(list(kept.values())))


@torch.no_grad()
def _computed(network: nn.Module, paths: Sequence[Path], hashes: Sequence[str]) -> np.ndarray:
    batches = [slice(start, start + BATCH) for start in range(0, len(paths), BATCH)]
    part = torch.cat([network(prepared(paths[batch], hashes[batch])) for batch in batches]).numpy()
    odd = np.flatnonzero(~np.isfinite(part).all(axis=1))
    if len(odd):
        raise DataError(f"the features of {paths[odd[0]]} hold NaN or infinity: the weights of the network are not sound")
    return part.astype("<f4")


def _kept(path: Path, key: str, rows: int) -> np.ndarray | None:
    """A kept part, or `None` where there is none that is, bit by bit, what was kept."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    numbers = stored[hashlib.sha256().digest_size :]
    if stored != _sealed(numbers, key, path.name) or len(numbers) != rows * WIDTH * 4:
        return None
    return np.frombuffer(numbers, "<f4").reshape(rows, WIDTH)


def _sealed(numbers: bytes, key: str, name: str) -> bytes:
    """What is kept of a part: a SHA-256 over its origin, place and numbers, then the numbers, as little-endian float32."""
    return hashlib.sha256(f"{key}\n{name}\n".encode() + numbers).digest() + numbers
