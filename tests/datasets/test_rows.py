"""Tables of anyone: read as they are meant, or refused with the column and the row."""

import re

import numpy as np
import pandas as pd
import pytest

from hqnn_utils.datasets import rows
from hqnn_utils.datasets.catalogue import DataError


def table(number: int = 12) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(number, 2))
    return pd.DataFrame({"a": values[:, 0], "b": values[:, 1], "label": ["x", "y"] * (number // 2)})


def written(table: pd.DataFrame, path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, features=table[["a", "b"]].to_numpy(), labels=table["label"].to_numpy(dtype=str), **arrays)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False, engine="fastparquet")
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_a_table_is_the_same_in_every_form(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("fastparquet")
    found = rows.read(written(table(), tmp_path / f"mine.{ending}"))
    assert found.name == "mine" and found.classes == ["x", "y"] and found.labels.tolist() == [0, 1] * 6
    np.testing.assert_allclose(found.features, table()[["a", "b"]], rtol=1e-6)
    assert found.splits is None and len(set(found.groups)) == 12


def test_groups_and_a_split_are_no_features(tmp_path):
    more = table().assign(patient=[1, 1, 2, 2] * 3, part=["train", "train", "train", "val", "Test", "test"] * 2)
    found = rows.read(written(more, tmp_path / "t.csv"), group="patient", split="part")
    assert found.features.shape == (12, 2) and found.groups.tolist() == [0, 0, 1, 1] * 3
    assert found.splits.tolist() == (["train"] * 4 + ["test"] * 2) * 2
    arrays = dict(group=np.arange(12) // 2, split=np.array(["train", "train", "test", "test"] * 3))
    found = rows.read(written(table(), tmp_path / "t.npz", **arrays))
    assert found.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] and (found.splits == "test").sum() == 6


def test_other_content_has_another_checksum(tmp_path):
    first, again = (rows.read(written(table(), tmp_path / f"{name}.csv")).sha256 for name in "ab")
    assert first == again != rows.read(written(table().assign(b=1.0), tmp_path / "c.csv")).sha256


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"a": [1.0] * 11 + [np.nan]}, {}, "column 'a', row 12: features are finite numbers, got"),
        ({"a": [1.0] * 11 + [np.inf]}, {}, "column 'a', row 12"),
        ({"a": ["1"] * 11 + ["red"]}, {}, "column 'a', row 12: features are finite numbers, got 'red'"),
        ({"label": ["x"] * 11 + [None]}, {}, "column 'label', row 12: every row needs a label"),
        ({"label": ["x"] * 12}, {}, "two classes or more with at least 5 rows each, got x (12)"),
        ({"label": ["x"] * 8 + ["y"] * 4}, {}, "got x (8), y (4)"),
        ({}, {"label": "kind"}, "has no column 'kind': it has a, b, label"),
        ({}, {"group": "patient"}, "has no column 'patient'"),
        ({"patient": [1.0] * 11 + [np.nan]}, {"group": "patient"}, "column 'patient', row 12: every row needs a group"),
        ({"part": ["train", "test"] * 6}, {"split": "part"}, "has no rows of the class 'x' for test"),
    ],
)
def test_a_table_that_can_not_be_used_is_refused_with_column_and_row(tmp_path, change, options, said):
    with pytest.raises(DataError, match=re.escape(said)):
        rows.read(written(table().assign(**change), tmp_path / "t.csv"), **options)


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\x00\xff")
    np.savez(tmp_path / "t.npz", features=np.zeros((3, 2)), labels=np.zeros(4))
    np.savez(tmp_path / "u.npz", images=np.zeros(3))
    np.savez(tmp_path / "v.npz", features=np.zeros((3, 2)), labels=np.array([{}, 1, 2], dtype=object))
    for name, said in {
        "t.csv": "can't be read",
        "t.npz": "got features (3, 2), labels (4,)",
        "u.npz": "needs the arrays features and labels",
        "v.npz": "can't be read",
        "none.csv": "can't be read (FileNotFoundError",
        "t.xlsx": "expected .npz, .csv, .parquet",
    }.items():
        with pytest.raises(DataError, match=re.escape(said)):
            rows.read(tmp_path / name)
    pd.DataFrame({"label": ["x", "y"] * 6}).to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(DataError, match="has no features beside 'label'"):
        rows.read(tmp_path / "bare.csv")
