"""The comparison of a fresh run with the committed one can fail: where it should, and only there."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hqnn_utils.notebooks import runs

REPOSITORY = Path(__file__).parents[2]
SOURCE = (
    "from hqnn_utils.notebooks.results import glue\nimport random\nglue('x', 1.0 + {step}, tolerance=0.1)\nprint('y = {y}')"
)


def check(folder: Path, committed: dict, fresh: dict) -> subprocess.CompletedProcess:
    """nbval on a notebook that was executed with some numbers and whose code now gives others."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE.format(**committed))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "chapter.ipynb"
    nbformat.write(notebook, path)
    runs.run(str(path), {}, path, overwrite=True)
    executed = nbformat.read(path, as_version=4)
    executed.cells[0].source = SOURCE.format(**fresh)
    nbformat.write(executed, path)
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    conftest = folder / "conftest.py"
    conftest.write_text((REPOSITORY / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    return subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.mark.parametrize(
    ("fresh", "passes"),
    [
        ({"step": 0.0, "y": 1}, True),
        ({"step": 0.05, "y": 1}, True),  # within the tolerance
        ({"step": 0.2, "y": 1}, False),  # beyond it
        ({"step": 0.0, "y": 2}, False),  # printed text is compared exactly
    ],
)
def test_results_are_compared_by_tolerance_and_text_exactly(fresh, passes, tmp_path):
    done = check(tmp_path, {"step": 0.0, "y": 1}, fresh)
    assert (done.returncode == 0) == passes, done.stdout
    if fresh["step"] == 0.2:
        assert "x: committed 1.0 ± 0.1, found 1.2" in done.stdout


PLOT = "import matplotlib.pyplot as plt\nplt.plot({y})\nplt.show()"


@pytest.mark.parametrize(
    ("fresh", "passes"),
    [
        ("[1, 2, 4, 9], lw=2", True),  # what fonts and clocks may move
        ("[9, 4, 2, 1]", False),
        ("[1, 2, 4, 9], lw=0); plt.axis('off'", False),  # blank
        ("[1, 2, 4, 9]); plt.gcf().set_size_inches(3, 3", False),
        ("[1, 2, 4, 9]); plt.gca().set_facecolor('red'", False),
    ],
)
def test_figures_are_compared_by_look(fresh, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", PLOT)
    done = check(tmp_path, {"y": "[1, 2, 4, 9]"}, {"y": fresh})
    assert (done.returncode == 0) == passes, done.stdout
