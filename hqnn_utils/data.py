"""One door to the data sets of the book: what they are, where they lie, whether they are intact, and `load`.

The catalogue is `data/datasets.toml`. Files lie under `$HQNN_DATA/NAME/`, or under `data/cache/NAME/` of this checkout.
"""

import gzip
import hashlib
import os
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent


class DataError(Exception):
    """A data set, or a request for part of one, that cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue.

    `files` maps file name to `{"bytes": …, "sha256": …}`; `mirrors` are addresses that the file names are appended to; a data
    set without files is `embedded` in a library that is installed anyway.
    """

    name: str
    title: str
    classes: list[str]
    counts: dict[str, int]  # images per split: train, test
    licence: str
    citation: str
    homepage: str
    sha256: str = ""  # of an embedded data set
    embedded: str = ""
    mirrors: list[str] = field(default_factory=list)
    files: dict[str, dict] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(file["bytes"] for file in self.files.values())

    @property
    def folder(self) -> Path:
        """Where the files lie, or would lie."""
        return root() / self.name


@dataclass(frozen=True)
class Images:
    """A data set in memory: grey values in [0, 1], labels 0…k-1 in the order of `classes`.

    `sha256` identifies the source files, so that a result can be traced to the data that it came from.
    """

    name: str
    classes: list[str]
    train_images: Float[Tensor, "train channel height width"]
    train_labels: Int[Tensor, " train"]
    test_images: Float[Tensor, "test channel height width"]
    test_labels: Int[Tensor, " test"]
    sha256: str


def root() -> Path:
    """The data root: `$HQNN_DATA` if set, else `data/cache/` of this checkout."""
    return Path(os.environ.get("HQNN_DATA") or CHECKOUT / "data" / "cache").expanduser()


def catalogue() -> dict[str, Entry]:
    """All data sets by name, as `data/datasets.toml` describes them (a wheel carries its own copy of that file)."""
    places = [CHECKOUT / "data" / "datasets.toml", PACKAGE / "datasets.toml"]
    text = next(place for place in places if place.exists()).read_text(encoding="utf-8")
    return {name: Entry(name, **fields) for name, fields in tomllib.loads(text).items()}


def entry(name: str) -> Entry:
    """The catalogue's entry `name`.

    Raises:
        DataError: no such entry; the message lists those there are.
    """
    entries = catalogue()
    if name not in entries:
        raise DataError(f"unknown data set {name!r}: the catalogue has {', '.join(entries)}")
    return entries[name]


def verify(name: str) -> dict[str, str]:
    """The state of each file of a data set: `ok`, `missing`, or `altered` (its SHA-256 is not the catalogue's)."""

    def state(path: Path, sha256: str) -> str:
        if not path.is_file():
            return "missing"
        with path.open("rb") as file:
            return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "altered"

    wanted = entry(name)
    if wanted.embedded:
        return {wanted.embedded: "ok" if _digits_sha256() == wanted.sha256 else "altered"}
    return {file: state(wanted.folder / file, facts["sha256"]) for file, facts in wanted.files.items()}


def fetch(name: str, timeout: float = 20.0) -> None:
    """Download what is missing or altered of a data set, from the first mirror that delivers it intact.

    pooch writes beside the final place, compares the SHA-256 and renames, so an interrupted, truncated or altered download
    never replaces a good file, and two processes may fetch the same file at once.

    Args:
        name: of the catalogue.
        timeout: seconds without an answer before a mirror is given up.

    Raises:
        DataError: no mirror delivered a file; names the data set, the place, each cause and the way on.
    """
    wanted = entry(name)
    for file, state in verify(name).items():
        if state != "ok":
            _download(wanted, file, state, timeout)


def _download(wanted: Entry, file: str, state: str, timeout: float) -> None:
    import pooch  # here, because only a download needs it

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
    causes = []
    for mirror in wanted.mirrors:
        try:
            sha256 = wanted.files[file]["sha256"]
            pooch.retrieve(mirror + file, f"sha256:{sha256}", file, wanted.folder, downloader=downloader)
            return
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            causes.append(f"  {mirror}{file}: {_short(error)}")
    raise DataError(
        f"data set {wanted.name!r}: {file} is {state} in {wanted.folder} and could not be downloaded:\n"
        + "\n".join(causes)
        + f"\nFetch it with `hqnn data fetch {wanted.name}` when the network is there, or set HQNN_DATA to a folder that "
        f"holds {wanted.name}/{file}, or go on with dataset=digits, which needs no download."
    )


def _short(error: Exception) -> str:
    """The cause in one line: what a reader needs of the long chains that network libraries print."""
    if isinstance(error, ValueError):
        return "refused, its SHA-256 is not the catalogue's (truncated or altered)"
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"


def load(name: str, classes: list[int] | None = None, train_size: int = 0, test_size: int = 0, seed: int = 0) -> Images:
    """The images of a data set, fetched first if need be and always checked against their SHA-256.

    Args:
        name: of the catalogue, e.g. `"mnist"`, or `"digits"`, which works anywhere.
        classes: which classes, by index; labels become 0…k-1 in this order. All by default.
        train_size, test_size: how many images of each split, drawn at random in equal class shares; 0 takes all.
        seed: of that draw.

    Raises:
        DataError: data that cannot be had, classes that are not distinct or do not exist, sizes that are negative or more
            than there are.
    """
    wanted = entry(name)
    chosen = list(range(len(wanted.classes))) if classes is None else list(classes)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise DataError(f"classes must be at least two different ones, got {chosen}")
    if not set(chosen) <= set(range(len(wanted.classes))):
        raise DataError(f"data set {name!r} has the classes 0 to {len(wanted.classes) - 1}, got {chosen}")
    if not wanted.embedded:
        fetch(name)
    reader = {"mnist": _read_mnist, "digits": _read_digits}[name]
    splits = []
    for split, size in (("train", train_size), ("test", test_size)):
        images, labels = reader(wanted, split)
        splits += _draw(name, split, images, labels, chosen, size, seed)
    digest = hashlib.sha256("".join(f["sha256"] for f in wanted.files.values()).encode()).hexdigest()
    return Images(name, [wanted.classes[c] for c in chosen], *splits, wanted.sha256 or digest)


def _draw(name, split, images, labels, chosen, size, seed) -> tuple[Tensor, Tensor]:
    """Keep the chosen classes, relabel them, and draw `size` images in equal class shares."""
    from sklearn.model_selection import train_test_split

    relabelled = torch.full_like(labels, -1)
    for new, old in enumerate(chosen):
        relabelled[labels == old] = new
    kept = (relabelled >= 0).nonzero().squeeze(1)
    if size < 0 or size > len(kept):
        raise DataError(f"{split} size must be 0 (all) to {len(kept)}, what {name!r} holds of these classes, got {size}")
    if 0 < size < len(chosen):
        raise DataError(f"{split} size {size} cannot hold an image of each of the {len(chosen)} classes")
    if 0 < size < len(kept):
        kept, _ = train_test_split(kept, train_size=size, stratify=relabelled[kept], random_state=seed)
    return images[kept], relabelled[kept]


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


def _digits_sha256() -> str:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return hashlib.sha256(digits.images.astype("uint8").tobytes() + digits.target.astype("uint8").tobytes()).hexdigest()
