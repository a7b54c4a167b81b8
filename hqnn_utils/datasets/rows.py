"""Anyone's table: numbers that describe something, a row each, with labels, and groups or a split if it has them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.datasets.folders import LEAST

ARRAYS = {
    "features": ("features", "x", "X"),
    "labels": ("labels", "y", "Y"),
    "group": ("group", "groups"),
    "split": ("split",),
}
"""What the arrays of an `.npz` may be called."""


@dataclass(frozen=True)
class Rows:
    """Features with labels; `labels` index `classes`, rows of one group are never on both sides of a split."""

    name: str
    classes: list[str]
    features: Float[ndarray, "rows features"]
    labels: Int[ndarray, " rows"]
    groups: Int[ndarray, " rows"]
    splits: Shaped[ndarray, " rows"] | None
    """`"train"` or `"test"`, if the table says so."""
    sha256: str


def bundled(name: str) -> Rows:
    """A table that scikit-learn brings: `"breast_cancer"` or `"wine"`."""
    from sklearn import datasets

    found = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]()
    content = found.data.tobytes() + found.target.tobytes()
    features, groups = found.data.astype(np.float32), np.arange(len(found.target))
    sha256 = hashlib.sha256(content).hexdigest()
    return Rows(name, [str(title) for title in found.target_names], features, found.target, groups, None, sha256)


def read(path: Path, label: str = "label", group: str = "", split: str = "") -> Rows:
    """A table of features: `.csv`, `.parquet`, or an `.npz` of arrays.

    Args:
        path: of the file. An `.npz` has the arrays `features`, `(rows, n)`, and `labels`, and may have `group` and `split`.
        label, group, split: columns of a `.csv` or `.parquet`; all others are features. Of a split `test` is for the test, all
            else for training.

    Raises:
        DataError: a file that can't be read, lacks a column, or has features that are no finite numbers; labels that are
            missing, of one class, or not as many as rows; a class with fewer than `folders.LEAST` rows, or without any on one
            side of the split. The sentence names column and row.
    """
    path = Path(path).expanduser()
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".npz": lambda: _of_arrays(path),
        ".csv": lambda: pd.read_csv(path),
        ".parquet": lambda: pd.read_parquet(path),
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is no table that can be read: expected {', '.join(readers)}")
    try:
        table = readers[path.suffix.lower()]()
    except DataError:
        raise
    except Exception as error:  # readers fail in any way
        raise DataError(f"{path} can't be read ({type(error).__name__}: {error})") from None
    if path.suffix.lower() == ".npz":
        label, group, split = "label", *(name if name in table else "" for name in ("group", "split"))
    for what in filter(None, (label, group, split)):
        if what not in table:
            raise DataError(f"{path} has no column {what!r}: it has {', '.join(map(str, table.columns[:20]))}")
    return _rows(path, table, label, group, split)


def _of_arrays(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        found = {what: next((arrays[name] for name in names if name in arrays), None) for what, names in ARRAYS.items()}
    features, labels = found["features"], found["labels"]
    if features is None or labels is None:
        raise DataError(f"{path} needs the arrays features and labels")
    if features.ndim != 2 or any(len(array) != len(features) for array in found.values() if array is not None):
        shapes = ", ".join(f"{what} {array.shape}" for what, array in found.items() if array is not None)
        raise DataError(f"{path} needs features of the shape (rows, n) and as many labels as rows, got {shapes}")
    columns = pd.DataFrame(features, columns=[f"feature {k}" for k in range(features.shape[1])])
    others = {"label": labels, "group": found["group"], "split": found["split"]}
    return columns.assign(**{what: array for what, array in others.items() if array is not None})


def _rows(path: Path, table: pd.DataFrame, label: str, group: str, split: str) -> Rows:
    features = table.drop(columns=[column for column in (label, group, split) if column])
    if features.empty:
        raise DataError(f"{path} has no features beside {label!r}")
    for column in features:
        numbers = pd.to_numeric(features[column], errors="coerce").to_numpy(dtype=float)
        if not np.isfinite(numbers).all():
            row = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise DataError(
                f"{path}, column {column!r}, row {row + 1}: features are finite numbers, got {features[column].iloc[row]!r}"
            )
    if table[label].isna().any():
        row = int(np.flatnonzero(table[label].isna())[0])
        raise DataError(f"{path}, column {label!r}, row {row + 1}: every row needs a label")
    names = table[label].astype(str)
    classes, counts = sorted(set(names)), names.value_counts()
    if len(classes) < 2 or counts.min() < LEAST:
        found = ", ".join(f"{name} ({counts[name]})" for name in classes[:10])
        raise DataError(f"{path} needs two classes or more with at least {LEAST} rows each, got {found}")
    if group and table[group].isna().any():
        row = int(np.flatnonzero(table[group].isna())[0])
        raise DataError(f"{path}, column {group!r}, row {row + 1}: every row needs a group")
    splits = None
    if split:
        splits = np.where(table[split].astype(str).str.lower().isin(["test", "testing"]), "test", "train")
        for name in classes:
            if missing := {"train", "test"} - set(splits[names == name]):
                raise DataError(f"{path} has no rows of the class {name!r} for {missing.pop()}: each class needs some in each")
    groups = pd.factorize(table[group])[0] if group else np.arange(len(table))
    labels = names.map(classes.index).to_numpy(copy=True)
    sha256 = hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()
    return Rows(path.stem, classes, features.to_numpy(dtype=np.float32), labels, groups, splits, sha256)
