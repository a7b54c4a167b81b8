"""`hqnn examine`: from a table or a layer of one's own to a report that opens with the verdict, or a sentence."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import until

from hqnn_utils import files
from hqnn_utils.notebooks import kernels, results

QUICK = [
    word
    for pair in ("draws 2", "epochs 3", "seeds 2", "controls -linear", "learning_rates 0.01")
    for word in f"-p {pair}".split()
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
    assert "test rows; each draw has 24" in second and re.search(r"leave the interval at ±[\d.]+ points at least", second)
    assert page.index("<blockquote>") < page.index("<h2")
    assert "http" not in page and "check_parameters" not in page and "{doc}" not in page and "<!--" not in page
    found = results.of(tmp_path / "out" / "report.ipynb")
    assert (found["rows"].value, found["different"].value, found["classes"].value) == (80, 40, 2)
    assert found["accuracy_linear"].value > 60
    again = hqnn("examine", str(table), *given, "-o", str(tmp_path / "out" / "report.html"))
    assert again.returncode == 1 and "is there already" in again.stderr


def test_a_split_with_a_group_on_both_sides_is_told_of_and_not_used(hqnn, table, tmp_path):
    """The label can be learned from the patient alone, by heart: only on the given split does that help."""
    given = pd.read_csv(table)
    by_heart = {f"is {k}": (given["patient"] == k).astype(float) for k in range(40)}
    split = np.where(np.arange(80) % 2, "test", "train")  # one row of each patient on either side
    given[["patient", "diagnosis"]].assign(**by_heart, split=split).to_csv(table, index=False)
    words = [*QUICK, "-p", "epochs", "30", "-p", "label", "diagnosis", "-p", "group", "patient", "-p", "split", "split"]
    done = hqnn("examine", str(table), *[w for k, w in enumerate(words) if k not in (3, 4, 5)], "-o", str(tmp_path / "r.html"))
    assert done.returncode == 0, done.stderr
    found = results.of(tmp_path / "r.ipynb")
    assert found["leaks"].value == 80
    assert found["accuracy_linear"].value < 65


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


def test_a_killed_examination_leaves_no_report_and_goes_on_where_it_was(hqnn, table, tmp_path):
    (tmp_path / "mine.py").write_text("from torch import nn\n\ndef layer(n): return nn.Linear(n, n)\n")
    renamed = table.rename(tmp_path / f"patients{os.getpid()}.csv")
    given = [*QUICK, "-p", "label", "diagnosis", "-p", "head", f"{tmp_path / 'mine.py'}:layer"]
    report, kept = tmp_path / "report.html", files.cache() / "trained"

    def trained():
        return {path: path.stat().st_mtime_ns for path in kept.glob(f"{renamed.stem}-*.kept")}

    command = [str(Path(sys.executable).with_name("hqnn")), "examine", str(renamed), *given, "-o", str(report)]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(trained()) > 3)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        before = trained()
        assert not [path for path in tmp_path.iterdir() if path.suffix in (".html", ".ipynb")]
        done = hqnn("examine", str(renamed), *given, "-o", str(report))
        assert done.returncode == 0, done.stderr
        assert before.items() <= trained().items() and len(before) < len(trained())
        once = results.of(report.with_suffix(".ipynb"))
        before = trained()
        assert hqnn("examine", str(renamed), *given, "-o", str(report), "--overwrite").returncode == 0
        assert trained() == before, "what was trained, a layer of one's own too, is not trained again"
        assert {n: r.value for n, r in results.of(report.with_suffix(".ipynb")).items()} == {
            n: r.value for n, r in once.items()
        }
    finally:
        for path in kept.glob(f"{renamed.stem}-*"):
            path.unlink()


@pytest.mark.parametrize(
    ("place", "given", "said"),
    [
        ("nowhere", [], "there is no nowhere: expected a folder, a table"),
        ("{table}", [], "has no column 'label': it has a, b, c, patient, diagnosis"),
        ("{table}", ["-p", "label", "diagnosis", "-p", "head", "no.module:layer"], "can't be had (ModuleNotFoundError"),
        ("{table}", ["-p", "label", "diagnosis", "-p", "depth", "9"], "allowed is in [1, 8]"),
        ("{table}", ["-p", "depth", "1", "-p", "depth", "2"], "parameter depth is given more than once"),
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
