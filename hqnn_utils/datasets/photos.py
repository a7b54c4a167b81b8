"""The photographs of Experiment 3: which files, in which class and split, and which of them are the same picture.

A data set of photographs is what its manifest lists. Extensions are not believed: a file is what it decodes to.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from hqnn_utils import files
from hqnn_utils.datasets.catalogue import DataError, content, entry
from hqnn_utils.kept import Kept

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Photos:
    """Photographs by file; `labels` index `classes`, `splits` say `"train"` or `"test"`, all of the same length.

    `sha256` is that of the set; `hashes` those of the files, which their bytes are held to when they are decoded. Files that
    no manifest lists have none.
    """

    name: str
    classes: list[str]
    paths: list[Path]
    labels: np.ndarray
    splits: np.ndarray
    sha256: str
    hashes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, split: str) -> np.ndarray:
        """The rows of a split, ascending."""
        return np.flatnonzero(self.splits == split)


def published(name: str) -> Photos:
    """The photographs of a data set in their published split, fetched first if need be and checked against their SHA-256.

    A set that is published without a split gets a fixed one of ours, with the class shares of the whole.

    Raises:
        DataError: not a set of photographs, data that cannot be had, or a split without images of a class.
    """
    wanted = entry(name, "photographs")
    wanted.fetch()
    folders = {folder: split for split, folder in wanted.splits.items()}
    names = sorted(wanted.files)
    labels = np.array([wanted.classes.index(Path(file).parent.name) for file in names])
    if folders:
        splits = np.array([folders[Path(file).parts[0]] for file in names])
    else:
        splits = drawn(labels, np.arange(len(names)), wanted.counts["test"])
    hashes = [wanted.files[file]["sha256"] for file in names]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return _complete(Photos(name, wanted.classes, [wanted.folder / file for file in names], labels, splits, digest, hashes))


def decode(path: Path, sha256: str = "") -> Image.Image:
    """An image file in RGB as a person sees it, whatever its extension and colour mode.

    It is turned as its EXIF data say; what is transparent shows white; of 16 bits a level the upper 8 count, and of several
    pictures in a file the first.

    Args:
        sha256: what the file's must be, if it was checked before.

    Raises:
        DataError: it does not decode, was altered, or is of a kind whose black and white no one can tell; names the file.
    """
    try:
        with Image.open(io.BytesIO(content(path, sha256) if sha256 else path.read_bytes())) as image:
            return _seen(image)
    except DataError:
        raise
    except Exception as error:  # a decoder may fail in any way, with RuntimeError, MemoryError, struct.error …
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} does not decode as an image ({reason}): replace it, or take it out of the data set") from None


def _seen(image: ImageFile) -> Image.Image:
    bits, inverted = _depth(image)
    turned = ImageOps.exif_transpose(image)
    if bits > 8:
        levels = (np.asarray(turned) >> (bits - 8)).astype("uint8")
        turned = Image.fromarray(255 - levels if inverted else levels)
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    return turned.convert("RGB")


def _depth(image: ImageFile) -> tuple[int, bool]:
    """Bits of a level as Pillow hands it out, and whether 0 is white.

    Raises:
        ValueError: a depth that this format leaves undefined, or at which Pillow mistakes what is transparent.
    """
    name = f"{image.format} of mode {image.mode}"
    keyed = image.format == "PNG" and image.mode != "P" and "transparency" in image.info
    if keyed and image.tile[0].args not in ("1", "L", "RGB"):
        raise ValueError(f"{name} has a transparent colour and other than 8 bits; save it with 8, or with an alpha channel")
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return 8, False
    bits = {"PNG": 16, "JPEG2000": 16, "PPM": 16}.get(image.format or "", 0)  # the last two as stretched by Pillow
    if isinstance(image, TiffImageFile) and image.mode != "I":
        bits = image.tag_v2[BITSPERSAMPLE][0]
    if image.mode == "F" or not 8 < bits <= 16:
        raise ValueError(f"{name} does not say which values are black and white; save it with 8 or 16 bits")
    return bits, isinstance(image, TiffImageFile) and image.tag_v2[PHOTOMETRIC_INTERPRETATION] == 0


def pictures(paths: Sequence[Path], hashes: Sequence[str] = ()) -> np.ndarray:
    """A number for each file, equal for files that show the same picture: the same RGB value, as seen, in every pixel.

    Args:
        hashes: what the files' SHA-256 must be, if they were checked before.
    """

    def digest(path: Path, sha256: str) -> bytes:
        image = decode(path, sha256)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()

    with ThreadPoolExecutor() as pool:
        return np.unique(list(pool.map(digest, paths, hashes or [""] * len(paths))), return_inverse=True)[1]


def _pictures_of(photographs: Photos) -> np.ndarray:
    """`pictures` of a set, computed once, which takes seconds, and kept; those of files without a hash are not kept."""
    if not photographs.hashes:
        return pictures(photographs.paths)
    origin = "\n".join(["pictures by their pixels in RGB", *photographs.hashes])
    kept = Kept(files.cache() / "pictures", photographs.name, origin)
    return np.frombuffer(kept.once(lambda: pictures(photographs.paths, photographs.hashes).astype("<i8").tobytes()), "<i8")


def clean(photographs: Photos, same: np.ndarray | None = None, seed: int = 0, test_size: int = 0) -> Photos:
    """The same photographs in a split without identical pictures on both sides: all files of a picture are on one.

    As many test pictures of each class are drawn as the published split has test files, or as near as whole pictures allow.

    Args:
        photographs: in any split.
        same: of `pictures`, if it is known already.
        seed: of the draw.
        test_size: files for the test, by default as many as there are now.
    """
    same = _pictures_of(photographs) if same is None else same
    return _complete(
        replace(photographs, splits=drawn(photographs.labels, same, test_size or len(photographs.of("test")), seed))
    )


def audit(photographs: Photos, same: np.ndarray | None = None) -> pd.DataFrame:
    """Where a picture stands more than once: one row for each class of each split.

    Returns:
        Columns: `files`; `pictures`, the distinct ones; `in other split`, files whose picture is also in the other split;
        `in other class`, files whose picture also stands under another label, in any split.
    """
    same = _pictures_of(photographs) if same is None else same
    table = pd.DataFrame({"picture": same, "class": photographs.labels, "split": photographs.splits})
    by_picture = table.groupby("picture")
    table["in other split"] = by_picture["split"].transform("nunique") > 1
    table["in other class"] = by_picture["class"].transform("nunique") > 1
    table["class"] = [photographs.classes[label] for label in photographs.labels]
    grouped = table.groupby(["split", "class"], sort=False)
    columns = {
        "files": grouped.size(),
        "pictures": grouped["picture"].nunique(),
        "in other split": grouped["in other split"].sum(),
        "in other class": grouped["in other class"].sum(),
    }
    return pd.DataFrame(columns).sort_index(level="split", ascending=False, sort_remaining=True)


def drawn(labels: np.ndarray, groups: np.ndarray, test_size: int, seed: int = 0) -> np.ndarray:
    """`"train"` or `"test"` for each row: groups stay together, and each class gives its share of the test rows."""
    splits = np.full(len(labels), "train", dtype="<U5")
    generator = np.random.default_rng(seed)
    wanted = np.rint(test_size * np.bincount(labels) / len(labels)).astype(int)  # of each class
    for group in generator.permutation(np.unique(groups)):
        members = groups == group
        number = np.bincount(labels[members], minlength=len(wanted))
        if (number <= wanted).all():
            splits[members] = "test"
            wanted -= number
    return splits


def _complete(photographs: Photos) -> Photos:
    """The same, if every class has images in both splits."""
    for split in SPLITS:
        for label, title in enumerate(photographs.classes):
            if not ((photographs.splits == split) & (photographs.labels == label)).any():
                raise DataError(
                    f"data set {photographs.name!r} has no {split} images of class {title!r}: a class needs images in both "
                    "the train and the test split"
                )
    return photographs
