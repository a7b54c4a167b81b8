"""Anyone's folder of pictures: what is in it, what is no picture, which pictures are the same, and in which split they are."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.datasets.photos import Photos, decode

LEAST = 5
"""Pictures that each class must have."""

NAMES = {
    "train": "train",
    "training": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}
"""Folders that are splits and no classes. Pictures for validation are trained on, since settings are chosen by a split of
ours; where there are no others for the test, they are the test."""

THUMBNAIL = 32
"""Pixels of a side of the grey picture by which near-identical ones are found."""


@dataclass(frozen=True)
class Folder:
    """Pictures of a folder, those whose file can be decoded."""

    photographs: Photos
    """All of them are `"train"` where the folder has no splits."""
    has_splits: bool
    refused: dict[str, str]
    """File, from the folder on → why it is no picture."""
    looks: pd.DataFrame
    """A row a picture: `width`, `height`, as they are shown; `mode` and `format` of the file; `turned`, by its EXIF data."""
    thumbnails: Float[ndarray, "pictures pixels"]
    """Each picture in grey, as small as `THUMBNAIL`, levels 0 to 255."""
    digests: list[str]
    """Equal for pictures that are the same in every pixel."""

    def same(self, near: float = 0.0) -> Int[ndarray, " pictures"]:
        """A number for each picture, equal for those that are the same, or nearly: that hang together by pairs which are.

        Args:
            near: two pictures are nearly the same if the root mean square of the difference of their thumbnails is less than
                so many of 255 levels; 0 finds identical pictures alone. A copy that was saved anew is within about 2.
        """
        groups = np.unique(self.digests, return_inverse=True)[1]
        number, firsts = len(groups), np.unique(groups, return_index=True)[1]
        links = [np.stack([np.arange(number), firsts[groups]])]
        small, most = self.thumbnails.astype(np.float32), near**2 * THUMBNAIL**2
        norms = (small**2).sum(axis=1)
        for rows in np.array_split(np.arange(number), -(-number // 512)) if near > 0 else ():
            squares = norms[rows, None] + norms - 2 * small[rows] @ small.T
            first, second = np.nonzero(squares < most)
            links.append(np.stack([rows[first], second]))
        first, second = np.concatenate(links, axis=1)
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(number, number))
        return connected_components(graph, directed=False)[1]


def read(folder: Path, unreadable: float = 0.1) -> Folder:
    """The pictures of a folder with one folder a class, or of a folder of such folders for training and test.

    Classes may have folders in them. Whatever is no picture is named, and left out; hidden files don't count.

    Args:
        unreadable: the greatest share of files that may be no pictures.

    Raises:
        DataError: no folder, no classes or one alone, a class without pictures in one of the splits or with fewer than
            `LEAST`, or too many files that are no pictures. The sentence says what was found and what was expected.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected one with a folder for each class in it")
    inside = _folders(folder)
    has_splits = len(inside) > 1 and all(part.name.lower() in NAMES for part in inside)
    names = {part: NAMES[part.name.lower()] if has_splits else "train" for part in inside}
    if has_splits and "test" not in names.values():
        names |= {part: "test" for part in inside if part.name.lower().startswith("val")}
    places = [(split, part) for part, split in names.items()]
    if has_splits and {split for split, _ in places} != {"train", "test"}:
        found = ", ".join(part.name for part in inside)
        raise DataError(f"{folder} has the folders {found}: expected train and test, or a folder for each class")
    of_class = [(split, c) for split, part in places for c in (_folders(part) if has_splits else [part])]
    classes = sorted({path.name for _, path in of_class})
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        raise DataError(f"two classes or more are needed, and {folder} has {found}: expected one folder for each class")
    rows: list[dict[str, Any]] = [
        {"split": split, "class": path.name, "path": file}
        for split, path in of_class
        for file in sorted(path.rglob("*"))
        if _is_shown(file, path)
    ]
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda row: _seen(row["path"]), rows))
    refused = {str(r["path"].relative_to(folder)): why for r, why in zip(rows, seen, strict=True) if isinstance(why, str)}
    _require_pictures(folder, refused, len(rows), unreadable)
    table = pd.DataFrame([row | found for row, found in zip(rows, seen, strict=True) if not isinstance(found, str)])
    _require_enough(folder, table, classes, ("train", "test") if has_splits else ("train",))
    labels = table["class"].map(classes.index).to_numpy(copy=True)
    sha256 = hashlib.sha256(table[["sha256", "class", "split"]].to_csv(index=False).encode()).hexdigest()
    splits, paths, hashes = table["split"].to_numpy(), table["path"].tolist(), table["sha256"].tolist()
    photographs = Photos(folder.resolve().name, classes, paths, labels, splits, sha256, hashes)
    looks = table[["width", "height", "mode", "format", "turned"]]
    return Folder(photographs, has_splits, refused, looks, np.stack(table["small"].tolist()), table["digest"].tolist())


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _is_shown(file: Path, folder: Path) -> bool:
    return file.is_file() and not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _seen(file: Path) -> dict | str:
    """What a picture looks like; or why a file is none."""
    try:
        image = decode(file)
        with Image.open(file) as raw:
            mode, kind, turned = raw.mode, raw.format, raw.getexif().get(0x0112, 1) not in (0, 1)
        content = file.read_bytes()
    except (DataError, OSError) as error:
        return str(error).partition(f"{file} ")[2].partition(":")[0] or str(error)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "digest": hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest(),
        "small": np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL)), dtype=float).ravel(),
        **{"width": image.width, "height": image.height, "mode": mode, "format": kind, "turned": turned},
    }


def _require_pictures(folder: Path, refused: dict[str, str], number: int, unreadable: float) -> None:
    if len(refused) > unreadable * number:
        first = "; ".join(f"{file} {why}" for file, why in [*refused.items()][:3])
        raise DataError(
            f"{len(refused)} of {number} files in {folder} are no pictures, more than {unreadable:.0%}: take them out, or "
            f"allow a larger share. The first: {first}"
        )


def _require_enough(folder: Path, table: pd.DataFrame, classes: Sequence[str], splits: Sequence[str]) -> None:
    counts = pd.DataFrame(0, index=list(classes), columns=list(splits))
    counts = counts.add(pd.crosstab(table["class"], table["split"]), fill_value=0) if len(table) else counts
    for name, split in product(classes, splits):
        if not counts.loc[name, split]:
            where = f" for {split}" if len(splits) > 1 else ""
            raise DataError(f"{folder} has no pictures of the class {name!r}{where}: each class needs some, in each split")
    total = counts.sum(axis=1)
    if total.min() < LEAST:
        name, least = total.idxmin(), int(total.min())
        raise DataError(f"class {name!r} in {folder} has {least} pictures: each class needs at least {LEAST}")
