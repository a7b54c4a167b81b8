"""`hqnn examine`: from a table or a layer of one's own to a report that opens with the verdict, or a sentence."""

import re

import numpy as np
import pandas as pd
import pytest

from hqnn_utils.notebooks import kernels, results

QUICK = [
    "-p",
    "draws",
    "2",
    "-p",
    "epochs",
    "3",
    "-p",
    "seeds",
    "2",
    "-p",
    "controls",
    "-linear",
    "-p",
    "learning_rates",
    "0.01",
]


@pytest.fixture(autouse=True, scope="module")
def warm():
    kernels.start()


@pytest.fixture
def table(tmp_path):
    """Forty patients, two rows each: the first measurement tells the diagnosis."""
    random = np.random.default_rng(0)
    diagnosis = np.arange(80) // 2 % 2
    columns = {"a": diagnosis + 0.1 * random.normal(size=80), "b": random.normal(size=80), "c": random.normal(size=80)}
    path = tmp_path / "patients.csv"
    pd.DataFrame(columns | {"patient": np.arange(80) // 2, "diagnosis": np.where(diagnosis, "ill", "well")}).to_csv(
        path, index=False
    )
    return path


def test_a_table_becomes_a_report_that_opens_with_the_verdict(hqnn, table, tmp_path):
    given = [*QUICK, "-p", "label", "diagnosis", "-p", "group", "patient"]
    done = hqnn("examine", str(table), *given, "-o", str(tmp_path / "out" / "report.html"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    first, second = re.findall(r"<blockquote>\s*<p>(.*?)</p>", page, re.DOTALL)
    assert "On patients a head with an entangling circuit" in first and "points" in first
    assert "test rows; each draw has 24" in second
    assert page.index("<blockquote>") < page.index("<h2")
    assert "http" not in page and "check_parameters" not in page and "{doc}" not in page and "<!--" not in page
    found = results.of(tmp_path / "out" / "report.ipynb")
    assert (found["rows"].value, found["different"].value, found["classes"].value) == (80, 40, 2)
    assert found["accuracy_linear"].value > 60
    again = hqnn("examine", str(table), *given, "-o", str(tmp_path / "out" / "report.html"))
    assert again.returncode == 1 and "is there already" in again.stderr


def test_a_layer_of_ones_own_is_examined(hqnn, table, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef layer(n): return nn.Sequential(nn.Linear(n, n), nn.Tanh())\n"
    )
    monkeypatch.chdir(tmp_path)
    given = [*QUICK, "-p", "label", "diagnosis", "-p", "head", "mine.py:layer"]
    done = hqnn("examine", "patients.csv", *given, "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert "your layer layer" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "accuracy_yours" in done.stdout


@pytest.mark.parametrize(
    ("place", "given", "said"),
    [
        ("nowhere", [], "there is no nowhere: expected a folder, a table"),
        ("{table}", [], "has no column 'label': it has a, b, c, patient, diagnosis"),
        ("{table}", ["-p", "label", "diagnosis", "-p", "head", "no.module:layer"], "can't be had (ModuleNotFoundError"),
        ("{table}", ["-p", "label", "diagnosis", "-p", "depth", "9"], "allowed is in [1, 8]"),
        ("{folder}", [], "two classes or more are needed"),
        ("wine", ["-o", "report.ipynb"], "expected a name that ends in .html, got report.ipynb"),
    ],
)
def test_what_can_not_be_examined_is_refused_and_nothing_is_written(hqnn, table, tmp_path, place, given, said):
    (tmp_path / "empty").mkdir()
    place = place.format(table=table, folder=tmp_path / "empty")
    done = hqnn("examine", place, "-o", str(tmp_path / "report.html"), *given)
    assert done.returncode != 0 and said in done.stderr, done.stderr
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".html", ".ipynb")]
