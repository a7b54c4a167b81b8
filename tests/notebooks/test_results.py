"""What is on record is what was computed, whoever executes a notebook, and sentences quote it."""

import json
import subprocess
import sys
from math import nan
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from hqnn_utils import files
from hqnn_utils.notebooks import results, runs
from hqnn_utils.notebooks.parameters import ChapterError
from hqnn_utils.notebooks.results import Result, filled, glue, of, record, run_of, write_numbers

CHECK = """from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import glue
check_parameters(globals())"""
PROSE = "The double is 0.0<!--=double:.1f-->, and *nothing* else (see <!--=word-->, or 0<!--=unknown:d-->)."


@pytest.fixture
def chapter(write_notebook, tmp_path) -> Path:
    """A chapter that doubles a number, and says so."""
    cells = CHECK, "glue('double', 2 * x, 's', 0.1); glue('word', 'above')", "glue('half', x / 2)"
    path = write_notebook(tmp_path / "book" / "toy.ipynb", *cells, parameters="x: float = 1.5  # a number, in [0, 9]")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(PROSE))
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def default(chapter, tmp_path) -> Path:
    """The chapter, executed with its default."""
    return runs.run(str(chapter), {}, tmp_path / "default.ipynb")


def sentence(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[-1].source


def shown(path: Path) -> str:
    """Everything that Jupyter shows of the outputs."""
    data = [o["data"] for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", []) if "data" in o]
    return "\n".join(text for bundle in data for kind, text in bundle.items() if kind.startswith("text/"))


def test_hqnn_run_writes_a_runs_own_numbers_into_its_sentences(chapter, tmp_path):
    output = runs.run(str(chapter), {"x": "3"}, tmp_path / "out.ipynb")
    assert "double is 6.0<!--=double:.1f-->" in sentence(output)
    assert "see above<!--=word-->" in sentence(output)


def test_a_number_that_a_run_has_not_computed_is_not_left_standing(default):
    assert "—<!--=unknown:d-->" in sentence(default)


def test_jupyter_shows_the_results_of_a_cell_as_a_table(default):
    assert "<th scope='row'>double</th><td>3 s</td>" in shown(default)


def test_plain_papermill_on_an_executed_chapter_records_what_it_computed(default, tmp_path):
    output = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-p", "x", "4.0", str(default), str(output)]
    subprocess.run(command, check=True, capture_output=True)
    assert run_of(output)["parameters"] == {"x": 4.0} and run_of(output)["finished"]
    assert "wall_time_s" in run_of(default) and "wall_time_s" not in run_of(output)  # that was another run's
    assert of(output)["double"].value == 8.0
    assert "This run has x = 4.0 (not 1.5)" in shown(output)  # the sentences still have the default's numbers …
    assert write_numbers(output) and "double is 8.0" in sentence(output)  # … until they are written
    assert "This run has" not in shown(output) and not write_numbers(output)


def test_a_run_that_was_stopped_does_not_look_finished(default):
    notebook = nbformat.read(default, as_version=4)
    assert run_of(default)["finished"]
    notebook.cells[-2].update(execution_count=None, outputs=[])  # as papermill leaves a cell that it did not reach
    nbformat.write(notebook, default)
    assert not run_of(default)["finished"]


def test_a_run_with_an_error_does_not_look_finished(default):
    notebook = nbformat.read(default, as_version=4)
    notebook.cells[-2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))
    nbformat.write(notebook, default)
    assert not run_of(default)["finished"]


def test_cells_of_an_earlier_run_are_no_results_of_this_one(default):
    """In JupyterLab: another value, and only the first cells run again."""
    notebook = nbformat.read(default, as_version=4)
    again = nbformat.v4.new_notebook(cells=notebook.cells[:3], metadata=notebook.metadata)
    again.cells[0].source = again.cells[0].source.replace("1.5", "4.0")
    NotebookClient(again, kernel_name="python3").execute()
    nbformat.write(notebook, default)
    assert run_of(default)["parameters"] == {"x": 4.0} and not run_of(default)["finished"]
    assert of(default).keys() == {"double", "word"}  # half is the first run's


@pytest.mark.parametrize("value", [nan, float("inf"), float("-inf")])
def test_what_is_no_number_and_no_text_is_not_recorded(value):
    with pytest.raises(ValueError, match=r"result 'loss' is .*: look at how"):
        glue("loss", value)


def test_a_name_that_no_sentence_could_quote_is_refused():
    with pytest.raises(ValueError, match="without spaces"):
        glue("a b", 1)


@pytest.mark.parametrize(
    ("value", "form", "written"),
    [
        (0.8, ":.2f", "0.80"),
        (-0.125, ":.2f", "−0.12"),
        (-0.001, ":.2f", "0.00"),
        (1234, ":,", "1,234"),
        (0.999, ":.1%", "99.9%"),
        (2e-15, ":.0e", "2×10⁻¹⁵"),
        (-3.2e4, ":.1e", "−3.2×10⁴"),
        (0.0, ":.1e", "0"),
        ("ResNet18-Q-Ent", "", "ResNet18-Q-Ent"),
    ],
)
def test_a_number_is_written_as_a_sentence_has_it_and_only_once(value, form, written):
    def of_chapter(chapter):
        assert chapter == "part/one"
        return {"x": Result(value, "", 0.0)}

    once = filled(f"**<!--=part/one::x{form}-->**", of_chapter)
    assert once == f"**{written}<!--=part/one::x{form}-->**" == filled(once, of_chapter)


def test_other_comments_are_left_alone():
    assert filled("1 <!-- a note -->, 2<!--x-->", dict) == "1 <!-- a note -->, 2<!--x-->"


def test_a_page_that_quotes_no_chapter_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("1<!--=foundations/nowhere::x-->")
    with pytest.raises(ChapterError, match="foundations/nowhere"):
        write_numbers(page)


def test_a_format_that_does_not_fit_is_refused_and_nothing_is_written(default):
    notebook = json.loads(default.read_text())
    notebook["cells"][-1]["source"] = ["0<!--=word:.2f-->"]
    before = json.dumps(notebook)
    default.write_text(before)
    with pytest.raises(ChapterError, match="quoted with a format that does not fit"):
        write_numbers(default)
    assert default.read_text() == before


@pytest.mark.parametrize("quote", ["<!--=double:s-->", "<!--=foundations/nowhere::x-->"], ids=["format", "chapter"])
def test_a_sentence_that_cannot_be_written_loses_no_run(chapter, tmp_path, quote):
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells[-1].source = quote
    nbformat.write(notebook, chapter)
    with pytest.raises(runs.RunError, match=r"The run itself is whole and written: .*out\.ipynb"):
        runs.run(str(chapter), {"x": "4"}, tmp_path / "out.ipynb")
    assert of(tmp_path / "out.ipynb")["double"].value == 8.0 and run_of(tmp_path / "out.ipynb")["finished"]
    assert "This run has x = 4 " in shown(tmp_path / "out.ipynb")


def test_a_notebook_without_a_record_has_none(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "1 + 1")
    assert run_of(path) == {} and of(path) == {}


@pytest.mark.parametrize(
    ("mine", "theirs", "tolerance", "agree"),
    [
        (1.0, 1.05, 0.1, True),
        (1.0, 1.15, 0.1, False),
        (1, 1, 0.0, True),
        (1, 2, 0.0, False),
        ("inside", "inside", 0.0, True),
        ("inside", "above", 9.0, False),
        ("inside", 1.0, 9.0, False),
        (1.0, "inside", 9.0, False),
        (nan, 1.0, 9.0, False),
    ],
)
def test_results_agree_within_the_tolerance_that_they_declare(mine, theirs, tolerance, agree):
    assert Result(mine, "s", tolerance).agrees(Result(theirs, "s", 0.0)) is agree


def test_an_output_that_was_not_glued_is_no_result():
    assert results.in_outputs([{"output_type": "stream", "text": "1.0"}]) == {}


FACTS = """
import pandas as pd
from hqnn_utils.evidence.statistics import Interval
from hqnn_utils.notebooks.results import record
record(
    {"gain": Interval(1.5, 1.0, 2.0), "of": {"a": 1, 4: "text"}, "table": pd.DataFrame({"mean": [0.5]}, index=["row"])},
    unit={"gain*": "pp"},
    tolerance={"*_low": 0.25, "gain*": 0.1},
)
record(Interval(7, 6, 8), "alone", "s")
"""


def test_a_section_is_recorded_in_one_call(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "book" / "facts.ipynb", CHECK, FACTS, parameters="x: float = 1.5  # a number, in [0, 9]")
    assert of(runs.run(str(path), {}, tmp_path / "out.ipynb")) == {
        "gain": Result(1.5, "pp", 0.1),
        "gain_low": Result(1.0, "pp", 0.25),
        "gain_high": Result(2.0, "pp", 0.1),
        "of_a": Result(1, "", 0.0),
        "of_4": Result("text", "", 0.0),
        "table_row_mean": Result(0.5, "", 0.0),
        "alone": Result(7, "s", 0.0),
        "alone_low": Result(6, "s", 0.0),
        "alone_high": Result(8, "s", 0.0),
    }


def test_two_results_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two results of one name: a_b"):
        record({"a": {"b": 1}, "a_b": 2})


def test_what_is_no_number_is_refused_by_its_full_name():
    with pytest.raises(ValueError, match="result 'a_b' is nan"):
        record({"a": {"b": float("nan")}})


SEEDS = """from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import record, record_seeds
import numpy as np
check_parameters(globals())"""


def test_values_of_seeds_are_on_record_and_nobody_reads_them(write_notebook, tmp_path):
    cells = SEEDS, "record({'mean': 2}); record_seeds({'loss': {'q': np.array([1.0, 3.0])}}, [5, 6], 'toy', 's', 0.1)", "1"
    path = write_notebook(tmp_path / "toy.ipynb", *cells, parameters="x: float = 1.5  # a number, in [0, 9]")
    output = runs.run(str(path), {}, tmp_path / "out.ipynb")
    notebook = files.read_notebook(output)
    assert results.of_seeds_in(notebook) == {"toy_loss_q": {5: Result(1.0, "s", 0.1), 6: Result(3.0, "s", 0.1)}}
    assert of(output).keys() == {"mean"} and "toy_loss_q" not in shown(output)
    again = nbformat.read(output, as_version=4)
    again.cells[0].outputs = []  # of another run, there is nothing
    again.cells[2].outputs[0]["data"][results.FOUND]["run"] = "another"
    assert results.of_seeds_in(json.loads(nbformat.writes(again))) == {}


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"loss": [1.0]}, "result 'loss' has 1 values for 2 seeds"),
        ({"loss": [1.0, nan]}, "result 'loss' is nan"),
        ({"a b": [1.0, 2.0]}, "without spaces"),
        ({"a": {"b": [1.0, 2.0]}, "a_b": [1.0, 2.0]}, "two results of one name"),
    ],
)
def test_what_is_no_value_of_each_seed_is_not_recorded(facts, sentence):
    with pytest.raises(ValueError, match=sentence):
        results.record_seeds(facts, [0, 1])
