"""One door to the images: `load` gives any data set of the catalogue as tensors, checked and split."""

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hqnn_utils.datasets.catalogue import DataError, Dataset, entry


@dataclass(frozen=True)
class Images:
    """A data set in memory: grey values in [0, 1], labels 0…k-1 in the order of `classes`.

    `test_rows` says where each test image stands in its split, so that a picture can be named and found again;
    `sha256` identifies the source files, so that a result can be traced to the data that it came from.

    Raises:
        DataError: NaN or infinity in an image; says in which.
    """

    name: str
    classes: list[str]
    train_images: Float[Tensor, "train channel height width"]
    train_labels: Int[Tensor, " train"]
    test_images: Float[Tensor, "test channel height width"]
    test_labels: Int[Tensor, " test"]
    test_rows: Int[Tensor, " test"]
    sha256: str

    def __post_init__(self) -> None:
        for split, images in (("train", self.train_images), ("test", self.test_images)):
            odd = (~images.isfinite()).flatten(1).any(dim=1).nonzero()
            if len(odd):
                raise DataError(f"data set {self.name!r}: {split} image {odd[0].item()} holds NaN or infinity")


def load(name: str, classes: Sequence[int] | None = None, train_size: int = 0, test_size: int = 0, seed: int = 0) -> Images:
    """The images of a data set, fetched first if need be and always checked against their SHA-256.

    Args:
        name: of the catalogue, e.g. `"mnist"`, or `"digits"`, which works anywhere.
        classes: which classes, by index; labels become 0…k-1 in this order. All by default.
        train_size, test_size: how many images of each split, drawn at random with the class shares of the whole; 0 takes all.
        seed: of that draw.

    Raises:
        DataError: data that cannot be had, classes that are not distinct or do not exist, sizes that are negative or more
            than there are, and what is no whole number.
    """
    wanted = entry(name, "digits")
    try:
        chosen = list(range(len(wanted.classes))) if classes is None else [index(label) for label in classes]
        train_size, test_size, seed = index(train_size), index(test_size), index(seed)
    except TypeError:
        given = f"classes {classes!r}, train size {train_size!r}, test size {test_size!r}, seed {seed!r}"
        raise DataError(f"classes, sizes and seed must be whole numbers, got {given:.200}") from None
    if not 0 <= seed < 2**32:
        raise DataError(f"the seed must be 0 to {2**32 - 1}, got {seed}")
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise DataError(f"classes must be at least two different ones, got {chosen}")
    if not set(chosen) <= set(range(len(wanted.classes))):
        raise DataError(f"data set {name!r} has the classes 0 to {len(wanted.classes) - 1}, got {chosen}")
    wanted.fetch()
    reader = {"mnist": _read_mnist, "digits": _read_digits}[name]
    parts = []
    for split, size in (("train", train_size), ("test", test_size)):
        images, labels = reader(wanted, split)
        rows, labels = _draw(f"{split} size", labels, chosen, size, seed)
        parts += [(images[rows], labels)]
    digest = hashlib.sha256("".join(f["sha256"] for f in wanted.files.values()).encode()).hexdigest()
    return Images(name, [wanted.classes[c] for c in chosen], *parts[0], *parts[1], rows, wanted.sha256 or digest)


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


def _read_mnist(wanted: Dataset, split: str) -> tuple[Tensor, Tensor]:
    def unpacked(file: str) -> Tensor:
        """An IDX file: two zero bytes, the type, the number of dimensions, their sizes as big-endian integers, the values."""
        plain = gzip.decompress(wanted.content(file))
        shape = np.frombuffer(plain, ">i4", count=plain[3], offset=4)
        return torch.tensor(np.frombuffer(plain, "uint8", offset=4 + shape.nbytes).reshape(shape))

    stem = {"train": "train", "test": "t10k"}[split]
    images, labels = unpacked(f"{stem}-images-idx3-ubyte.gz"), unpacked(f"{stem}-labels-idx1-ubyte.gz")
    return images.unsqueeze(1) / 255, labels.long()


def _read_digits(wanted: Dataset, split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # The bundle has no split of its own: this one is fixed, so that every run and every seed sees the same.
    train, test = train_test_split(range(len(digits.target)), test_size=0.3, stratify=digits.target, random_state=0)
    rows = {"train": train, "test": test}[split]
    images = torch.tensor(digits.images[rows] / 16, dtype=torch.float32).unsqueeze(1)
    images = torch.nn.functional.interpolate(images, size=28, mode="bilinear")  # 8×8 → 28×28, MNIST's size
    return images, torch.tensor(digits.target[rows])
