"""The comparison of a fresh run with the committed one can fail: where it should, and only there."""

import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCE = "from hqnn_utils.notebooks.results import glue\nglue('x', 1.0 + {}, tolerance=0.1)\nprint('y = {}')"
PLOT = "import matplotlib.pyplot as plt\nplt.plot({})\nplt.show()"
COMMITTED = {SOURCE: (0.0, 1), PLOT: ("[1, 2, 4, 9]",)}
PAIRS = [
    (SOURCE, (0.0, 1), ""),
    (SOURCE, (0.05, 1), ""),  # within the tolerance
    (SOURCE, (0.2, 1), "x: committed 1.0 ± 0.1, found 1.2"),
    (SOURCE, (0.0, 2), "y = 2"),  # printed text is compared exactly
    (PLOT, ("[1, 2, 4, 9], lw=2",), ""),  # what fonts and clocks may move
    (PLOT, ("[9, 4, 2, 1]",), "their ink correlates by"),
    (PLOT, ("[1, 2, 4, 9], lw=0); plt.axis('off'",), "figure 1: committed with"),  # blank, and so cut smaller
    (PLOT, ("[1, 2, 4, 9]); plt.gcf().set_size_inches(3, 3",), "pixels, found with"),
    (PLOT, ("[1, 2, 4, 9]); plt.gca().set_facecolor('red'",), "their ink correlates by"),
    (PLOT, ("[1, 2, 4, 9]); plt.show(); plt.plot([1]",), "1 figures committed, 2 found"),
]
"""Code, what it was given when it was committed and what it is given now, and what is said of that."""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[int, str]:
    """What nbval says of each pair, by its number: empty if it passes. Each is a cell of one notebook."""
    folder = tmp_path_factory.mktemp("book")
    cells = [nbformat.v4.new_code_cell(source.format(*COMMITTED[source])) for source, _, _ in PAIRS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = NotebookClient(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})).execute()
    for cell, (source, fresh, _) in zip(notebook.cells, PAIRS, strict=True):
        cell.source = source.format(*fresh)
    nbformat.write(notebook, folder / "chapter.ipynb")
    shutil.copy(ROOT / "conftest.py", folder)
    helpers = ROOT / "tests" / "helpers"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "-o",
        f"pythonpath={helpers}",
    ]
    command += ["--rootdir", folder, folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240)
    parts = re.split(r"^_+ .*Cell (\d+) _+$", done.stdout, flags=re.MULTILINE)
    assert re.search(rf"{len(PAIRS) - len(parts) // 2} passed", parts[-1]), done.stdout + done.stderr
    return dict.fromkeys(range(len(PAIRS)), "") | {int(n): text for n, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[str(fresh) for _, fresh, _ in PAIRS])
def test_results_are_compared_by_tolerance_figures_by_look_and_text_exactly(said, number):
    expected = PAIRS[number][2]
    assert expected in said[number] if expected else not said[number]


def test_a_blank_figure_is_like_none(request):
    """Not even like another, with which its ink, without any spread, has no correlation."""
    checks = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    blank, drawn = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(blank, "png")
    Image.radial_gradient("L").resize((64, 64)).save(drawn, "png")
    blank, drawn = (base64.b64encode(picture.getvalue()).decode() for picture in (blank, drawn))
    assert checks.different(drawn, drawn) == ""
    assert checks.different(drawn, blank) == checks.different(blank, blank) == "one of them is blank"
