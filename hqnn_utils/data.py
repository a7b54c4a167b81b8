"""One door to the images: `load` gives any data set of the catalogue as tensors, checked and split."""

import gzip
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hqnn_utils.catalogue import DataError, Entry, entry, fetch


@dataclass(frozen=True)
class Images:
    """A data set in memory: grey values in [0, 1], labels 0…k-1 in the order of `classes`.

    `test_rows` says where each test image stands in its split, so that a picture can be named and found again;
    `sha256` identifies the source files, so that a result can be traced to the data that it came from.
    """

    name: str
    classes: list[str]
    train_images: Float[Tensor, "train channel height width"]
    train_labels: Int[Tensor, " train"]
    test_images: Float[Tensor, "test channel height width"]
    test_labels: Int[Tensor, " test"]
    test_rows: Int[Tensor, " test"]
    sha256: str


def load(name: str, classes: list[int] | None = None, train_size: int = 0, test_size: int = 0, seed: int = 0) -> Images:
    """The images of a data set, fetched first if need be and always checked against their SHA-256.

    Args:
        name: of the catalogue, e.g. `"mnist"`, or `"digits"`, which works anywhere.
        classes: which classes, by index; labels become 0…k-1 in this order. All by default.
        train_size, test_size: how many images of each split, drawn at random with the class shares of the whole; 0 takes all.
        seed: of that draw.

    Raises:
        DataError: data that cannot be had, classes that are not distinct or do not exist, sizes that are negative or more
            than there are.
    """
    wanted = entry(name)
    if wanted.size:
        raise DataError(f"{name!r} is a set of photographs: `hqnn_utils.photos.photos({name!r})` lists them")
    chosen = list(range(len(wanted.classes))) if classes is None else list(classes)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise DataError(f"classes must be at least two different ones, got {chosen}")
    if not set(chosen) <= set(range(len(wanted.classes))):
        raise DataError(f"data set {name!r} has the classes 0 to {len(wanted.classes) - 1}, got {chosen}")
    if not wanted.embedded:
        fetch(name)
    reader = {"mnist": _read_mnist, "digits": _read_digits}[name]
    parts = []
    for split, size in (("train", train_size), ("test", test_size)):
        images, labels = reader(wanted, split)
        rows, labels = _draw(f"{split} size", labels, chosen, size, seed)
        parts += [images[rows], labels]
    digest = hashlib.sha256("".join(f["sha256"] for f in wanted.files.values()).encode()).hexdigest()
    return Images(name, [wanted.classes[c] for c in chosen], *parts, rows, wanted.sha256 or digest)


def _draw(what: str, labels: Tensor, chosen: list[int], size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of `size` images of the chosen classes, drawn with the class shares of the whole, and their new labels."""
    from sklearn.utils import resample  # here, because it takes seconds to import

    relabelled = torch.full_like(labels, -1)
    for new, old in enumerate(chosen):
        relabelled[labels == old] = new
    rows = (relabelled >= 0).nonzero().squeeze(1)
    if not (size == 0 or len(chosen) <= size <= len(rows)):
        raise DataError(f"{what} must be 0 (all) or {len(chosen)} to {len(rows)}, the images of these classes; got {size}")
    if size:
        drawn = resample(rows, replace=False, n_samples=size, stratify=relabelled[rows], random_state=seed)
        rows = torch.as_tensor(drawn)
    return rows, relabelled[rows]


def _read_mnist(wanted: Entry, split: str) -> tuple[Tensor, Tensor]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    def unpacked(file: str, read) -> Tensor:
        # torchvision reads plain IDX files only; the root may be read-only, so unpack elsewhere.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / file
            plain.write_bytes(gzip.decompress((wanted.folder / f"{file}.gz").read_bytes()))
            return read(str(plain))

    stem = {"train": "train", "test": "t10k"}[split]
    images = unpacked(f"{stem}-images-idx3-ubyte", read_image_file)
    return images.unsqueeze(1) / 255, unpacked(f"{stem}-labels-idx1-ubyte", read_label_file)


def _read_digits(wanted: Entry, split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # The bundle has no split of its own: this one is fixed, so that every run and every seed sees the same.
    train, test = train_test_split(range(len(digits.target)), test_size=0.3, stratify=digits.target, random_state=0)
    rows = {"train": train, "test": test}[split]
    images = torch.tensor(digits.images[rows] / 16, dtype=torch.float32).unsqueeze(1)
    images = torch.nn.functional.interpolate(images, size=28, mode="bilinear")  # 8×8 → 28×28, MNIST's size
    return images, torch.tensor(digits.target[rows])
