"""A chapter's contract: what it declares, what it refuses, what a run leaves behind and what it never does."""

import json
import os
from datetime import datetime
from math import inf, isnan, nan
from pathlib import Path

import papermill
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hqnn_utils import parameters, results, runs
from hqnn_utils.parameters import ChapterError, Parameter, ParameterError, check_parameters, declarations, validated
from hqnn_utils.results import Result, scrap
from hqnn_utils.runs import find, run

CELL = """
# How long to train.
epochs: int = 3  # passes over the images, in [1, 1000]
rate: float = 1e-3  # step size, in (0, 1]
noise: float = 0.0  # spread, in [0, 1)
dataset: str = "mnist"  # which images, in {mnist, digits}
classes: list[int] = [0, 1]  # which digits, 2 distinct, in [0, 9]
heads: list[str] = ["sine"]  # which twins, in {quantum, sine, sigmoid}
spreads: list[float] = [0.1]  # initial weights, in (0, 2)
share: float = 0.5  # of the images, in {0.5, 1.0}
verbose: bool = False  # print more
title: str = "x"  # anything
plain = 3  # without an annotation no parameter
"""
DECLARED = declarations(CELL)


# -- what is declared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("epochs", Parameter("epochs", "int", 3, "passes over the images, in [1, 1000]")),
        ("rate", Parameter("rate", "float", 0.001, "step size, in (0, 1]")),
        ("classes", Parameter("classes", "list[int]", [0, 1], "which digits, 2 distinct, in [0, 9]")),
        ("dataset", Parameter("dataset", "str", "mnist", "which images, in {mnist, digits}")),
    ],
)
def test_a_line_declares_name_type_default_and_meaning(name, declared):
    assert DECLARED[name] == declared


def test_only_annotated_lines_declare():
    assert "plain" not in DECLARED


def test_a_line_without_a_comment_allows_all_of_its_type():
    assert declarations("depth: int = 2")["depth"].check(-99) == -99


def test_a_default_over_several_lines_takes_the_comment_of_its_last():
    source = "angles: list[float] = [\n    0.1,  # not this\n    0.2,\n]  # radians, in [0, 1]"
    assert declarations(source)["angles"] == Parameter("angles", "list[float]", [0.1, 0.2], "radians, in [0, 1]")


def test_a_hash_in_a_string_is_no_comment():
    assert declarations('name: str = "a # b"  # meaning')["name"] == Parameter("name", "str", "a # b", "meaning")


def test_a_chapter_declares_in_the_cell_that_is_tagged(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "other: int = 1", parameters="depth: int = 2  # layers")
    assert list(parameters.of(path)) == ["depth"]


def test_a_chapter_without_such_a_cell_declares_nothing(write_notebook, tmp_path):
    assert parameters.of(write_notebook(tmp_path / "a.ipynb", "depth: int = 2")) == {}


# -- what a value may be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "1", 1),
        ("epochs", "1000", 1000),
        ("rate", "1", 1),
        ("rate", "1e-9", 1e-9),
        ("noise", "0", 0),
        ("dataset", "digits", "digits"),
        ("share", "0.5", 0.5),
        ("verbose", "true", True),
        ("verbose", "False", False),
        ("verbose", "TRUE", True),
        ("title", "3", "3"),
        ("title", "", ""),
        ("classes", "3,5", [3, 5]),
        ("classes", "3, 5", [3, 5]),
        ("classes", "[3, 5]", [3, 5]),
        ("spreads", "1", [1]),
        ("spreads", "0.5,1", [0.5, 1]),
        ("heads", "['sine', 'quantum']", ["sine", "quantum"]),
    ],
)
def test_a_text_is_read_as_the_declared_type(name, text, value):
    found = DECLARED[name].parse(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("epochs", "3.5", "expected int"),
        ("epochs", "1e2", "expected int"),
        ("epochs", "True", "expected int"),
        ("epochs", "many", "expected int"),
        ("epochs", "", "expected int"),
        ("epochs", "[3]", "expected int"),
        ("rate", "True", "expected float"),
        ("rate", "'0.1'", "expected float"),
        ("rate", "nan", "expected float"),
        ("verbose", "1", "expected bool"),
        ("verbose", "yes", "expected bool"),
        ("classes", "0.5,1", r"expected list\[int\]"),
        ("classes", "[[0, 1]]", r"expected list\[int\]"),
        ("classes", "True,False", r"expected list\[int\]"),
        ("epochs", "{[]: 1}", "expected int"),
        ("spreads", "[]", "expected at least one value"),
        ("heads", "[]", "expected at least one value"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name, text, expected):
    with pytest.raises(ParameterError, match=f"parameter {name} = .* refused: {expected}"):
        DECLARED[name].parse(text)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("epochs", "0", r"in \[1, 1000\]"),
        ("epochs", "1001", r"in \[1, 1000\]"),
        ("rate", "0", r"in \(0, 1\]"),
        ("rate", "1.001", r"in \(0, 1\]"),
        ("noise", "-0.001", r"in \[0, 1\)"),
        ("noise", "1", r"in \[0, 1\)"),
        ("noise", "1e999", r"in \[0, 1\)"),
        ("dataset", "cifar", "in {mnist, digits}"),
        ("dataset", "mnist, digits", "in {mnist, digits}"),
        ("classes", "0,10", r"in \[0, 9\]"),
        ("heads", "['sine', 'cosine']", "in {quantum, sine, sigmoid}"),
        ("spreads", "1,2", r"in \(0, 2\)"),
        ("share", "0.7", "in {0.5, 1.0}"),
    ],
)
def test_a_value_out_of_range_is_refused(name, text, allowed):
    with pytest.raises(ParameterError, match=f"parameter {name} = .* refused: allowed is {allowed}"):
        DECLARED[name].parse(text)


@pytest.mark.parametrize(("text", "allowed"), [("", True), ("a:b/c", True), ("a:/c", True), ("a:b/d", False), ("x", False)])
def test_a_star_in_a_set_stands_for_anything(text, allowed):
    pattern = Parameter("name", "str", "", "of a thing, in {, a:*/c}")
    if allowed:
        assert pattern.parse(text) == text
    else:
        with pytest.raises(ParameterError, match=r"allowed is in \{, a:\*/c\}"):
            pattern.parse(text)


@pytest.mark.parametrize("text", ["3,3", "3", "1,2,3", "3,3,5", "[]"])
def test_a_list_must_have_as_many_different_values_as_declared(text):
    with pytest.raises(ParameterError, match=r"parameter classes = .* expected 2 different values"):
        DECLARED["classes"].parse(text)


@given(st.sampled_from(list(DECLARED)), st.one_of(st.text(max_size=12), st.text("[](){}0123456789.,:-'eja", max_size=12)))
@example("epochs", "{{}}")
@example("epochs", "\0")
def test_any_text_is_either_read_or_refused_with_the_parameters_name(name, text):
    try:
        value = DECLARED[name].parse(text)
    except ParameterError as refusal:
        assert f"parameter {name} = " in str(refusal)
    else:
        assert DECLARED[name].check(value) == value


@given(st.integers(-2000, 2000))
def test_an_interval_allows_exactly_what_lies_in_it(value):
    def allows(text):
        try:
            return bool(Parameter("x", "int", 0, f"in {text}").check(value) == value)
        except ParameterError:
            return False

    assert [allows(text) for text in ("[-5, 9]", "(-5, 9]", "[-5, 9)", "(-5, 9)")] == [
        -5 <= value <= 9,
        -5 < value <= 9,
        -5 <= value < 9,
        -5 < value < 9,
    ]


def test_all_given_values_are_checked_and_no_others_made_up():
    assert validated(DECLARED, {"epochs": "7", "classes": "3,5"}) == {"epochs": 7, "classes": [3, 5]}


def test_words_of_a_list_need_no_quotes():
    heads = Parameter("heads", "list[str]", ["sine"], "which twins, in {quantum, sine, sigmoid}")
    assert heads.parse("quantum, sine") == heads.parse("['quantum', 'sine']") == ["quantum", "sine"]
    with pytest.raises(ParameterError, match=r"allowed is in \{quantum, sine, sigmoid\}"):
        heads.parse("quantum,swish")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("clases", "did you mean classes?"),
        ("qqq", "this chapter declares " + ", ".join(DECLARED)),
    ],
)
def test_an_unknown_parameter_is_refused_with_its_near_misses(name, hint):
    with pytest.raises(ParameterError) as refusal:
        validated(DECLARED, {"epochs": "3", name: "3"})
    assert str(refusal.value) == f"unknown parameter {name!r}: {hint}"


def test_a_chapter_that_declares_nothing_says_so():
    with pytest.raises(ParameterError, match="this chapter declares none"):
        validated({}, {"epochs": "3"})


# -- what a running notebook holds -------------------------------------------------------------------------------------


def running(*history: str) -> dict:
    """The `globals()` of a notebook that ran these cells."""
    namespace: dict = {}
    for source in history:
        exec(source, namespace)
    return namespace | {"In": ["", *history]}


def test_a_notebooks_own_defaults_pass():
    assert check_parameters(running("import math", CELL)) is None


@pytest.mark.parametrize(
    ("injected", "sentence"),
    [
        ("epochs = 0", "parameter epochs = 0 refused"),
        ("epochs = 2.5", "expected int"),
        ("epochs = True", "expected int"),
        ("rate = float('nan')", r"parameter rate = nan refused: allowed is in \(0, 1\]"),
        ("dataset = 'cifar'", "allowed is in {mnist, digits}"),
        ("classes = [3, 3]", "expected 2 different values"),
        ("spreads = 0.5", r"expected list\[float\]"),
        ("epochs = [3]", "expected int"),
        ("epoch = 3", "unknown parameter 'epoch': did you mean epochs?"),
        ("qqq = 3", "unknown parameter 'qqq': this chapter declares epochs"),
    ],
)
def test_what_papermill_injects_is_held_against_the_declarations(injected, sentence):
    with pytest.raises(ParameterError, match=sentence):
        check_parameters(running(CELL, f"# Parameters\n{injected}\n"))


def test_what_papermill_injects_may_be_good():
    assert check_parameters(running(CELL, "# Parameters\nepochs = 5\nrate = 1\nclasses = [3, 5]\n")) is None


def test_names_that_other_cells_make_are_none_of_its_business():
    assert check_parameters(running(CELL, "helper = 3")) is None


def test_a_parameter_that_was_changed_by_hand_is_checked_too():
    with pytest.raises(ParameterError, match="epochs = -1"):
        check_parameters(running(CELL) | {"epochs": -1})


def test_a_rerun_parameters_cell_counts_anew():
    assert check_parameters(running("epochs: int = 2  # in [1, 3]", "epochs: int = 7  # in [1, 9]")) is None


def test_a_notebook_that_declares_nothing_is_refused():
    with pytest.raises(ParameterError, match="no cell of this notebook declares parameters"):
        check_parameters(running("x = 1"))


@pytest.mark.parametrize("source", ["%matplotlib inline", "x: int = len('a')", "def f(:", "text = '''"])
def test_cells_that_declare_no_literals_are_passed_over(source):
    assert check_parameters({"In": ["", CELL, source]} | running(CELL) | {"In": ["", CELL, source]}) is None


# -- which chapter is meant --------------------------------------------------------------------------------------------


@pytest.fixture
def book(monkeypatch, tmp_path, write_notebook):
    """A book of two chapters, with a checkpoint and a run that is still going on lying about."""
    folder = tmp_path / "book"
    lying_about = ("foundations/.ipynb_checkpoints/pqc-checkpoint", "foundations/.pqc-x7w9", ".pqc-x7w9")
    for name in ("foundations/pqc", "experiments/device_timing", *lying_about):
        write_notebook(folder / f"{name}.ipynb")
    monkeypatch.setattr(runs, "BOOK", folder)
    return folder


def test_the_chapters_are_the_notebooks_of_the_book(book):
    assert runs.chapters() == {
        "device_timing": book / "experiments/device_timing.ipynb",
        "pqc": book / "foundations/pqc.ipynb",
    }


def test_the_book_may_itself_lie_in_a_hidden_folder(book, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "BOOK", tmp_path / ".hidden")
    book.rename(runs.BOOK)
    assert list(runs.chapters()) == ["device_timing", "pqc"]


@pytest.mark.parametrize("wanted", ["pqc", "foundations/pqc", "pqc.ipynb"])
def test_a_chapter_is_found_by_name_with_or_without_its_part(book, wanted):
    assert find(wanted) == book / "foundations/pqc.ipynb"


def test_a_path_to_a_notebook_is_taken_as_it_is(book, tmp_path, write_notebook):
    mine = write_notebook(tmp_path / "mine" / "pqc.ipynb")
    assert find(str(mine)) == mine


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("device_timming", "did you mean device_timing?"),
        ("qqq", "the book has device_timing, pqc"),
        ("experiments/pqc", "did you mean pqc?"),
        ("elsewhere/pqc.ipynb", "did you mean pqc?"),
    ],
)
def test_an_unknown_chapter_is_refused_with_its_near_misses(book, wanted, hint):
    with pytest.raises(ChapterError) as refusal:
        find(wanted)
    assert str(refusal.value) == f"unknown chapter {wanted!r}: {hint}"


# -- what a result is --------------------------------------------------------------------------------------------------


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
    assert scrap({"output_type": "stream", "text": "1.0"}) is None


# -- what a run leaves behind: one real run, several questions ---------------------------------------------------------

GLUED = {
    "number": (0.1 + 0.2, "s", 0.01),
    "count": (7, "", 0.0),
    "word": ("it's above", "", 0.0),
    "of numpy": (0.5, "", 0.0),
    "of torch": (2.0, "1/rad", 0.0),
    "not a number": (nan, "", 0.0),
    "endless": (-inf, "", 0.0),
    "epochs": (5, "", 0.0),
}
GLUING = """
import sys
import numpy as np, torch
from hqnn_utils.parameters import check_parameters
from hqnn_utils.results import glue
check_parameters(globals())
glue("number", 0.1 + 0.2, "s", tolerance=0.01)
glue("count", 7)
glue("word", "it's above")
glue("of numpy", np.float64(0.5))
glue("of torch", torch.tensor(2.0), "1/rad")
glue("not a number", float("nan"))
glue("endless", np.float32("-inf"))
glue("epochs", epochs)
print("a bar \\r moves", file=sys.stderr, flush=True)
"""
PLAIN = "print('kept', file=sys.stderr)\n'shown'"
FEW = "epochs: int = 3  # in [1, 9]\nrate: float = 0.1  # in (0, 1]"


@pytest.fixture(scope="module")
def executed(write_notebook, tmp_path_factory):
    """A notebook that was really run with one parameter given, alone in a folder that did not exist before."""
    folder = tmp_path_factory.mktemp("runs")
    chapter = write_notebook(folder / "small.ipynb", GLUING, PLAIN, parameters=FEW)
    return run(str(chapter), {"epochs": "5"}, folder / "new" / "folder" / "out.ipynb")


@pytest.mark.parametrize("name", GLUED)
def test_a_glued_result_is_read_back_with_unit_and_tolerance(executed, name):
    found, (value, unit, tolerance) = results.of(executed)[name], GLUED[name]
    assert (found.unit, found.tolerance, type(found.value)) == (unit, tolerance, type(value))
    assert found.value == value or (isnan(found.value) and isnan(value))


def test_results_come_in_the_order_in_which_they_were_glued(executed):
    assert list(results.of(executed)) == list(GLUED)


def test_a_run_writes_one_file_and_nothing_else(executed):
    assert [path.name for path in executed.parent.iterdir()] == ["out.ipynb"]


def test_a_run_can_be_read_by_everyone(executed):
    assert executed.stat().st_mode & 0o777 == 0o644


def test_a_run_keeps_its_record(executed):
    record = results.record(executed)
    assert (record["chapter"], record["parameters"]) == ("small", {"epochs": 5, "rate": 0.1})
    assert datetime.strptime(record["date"], "%Y-%m-%d")
    assert 0 < record["wall_time_s"] < 600
    assert record["cores"] == os.cpu_count()
    assert record["versions"].keys() == {"python", "hqnn-utils", "pennylane", "torch", "numpy"}


def test_a_run_keeps_none_of_papermills_paths_and_clocks(executed):
    notebook = json.loads(executed.read_text())
    assert not [part for part in [notebook, *notebook["cells"]] if "papermill" in part["metadata"]]
    assert str(executed.parent.parent) not in executed.read_text()


def test_a_run_keeps_what_was_shown_but_no_moving_bars(executed):
    outputs = [output for cell in json.loads(executed.read_text())["cells"] for output in cell["outputs"]]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == [["kept\n"]]
    assert outputs[-1]["data"]["text/plain"] == ["'shown'"]


# -- what a run never does ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_kernel(monkeypatch):
    """A refusal comes before a kernel starts: here starting one is a failure."""
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))


@pytest.fixture
def chapter(write_notebook, tmp_path):
    return write_notebook(tmp_path / "small.ipynb", "1 + 1", parameters=FEW)


@pytest.mark.parametrize("given", [{"epoch": "3"}, {"epochs": "many"}, {"epochs": "10"}])
def test_a_refused_parameter_starts_no_kernel_and_makes_no_folder(no_kernel, chapter, given):
    with pytest.raises(ParameterError):
        run(str(chapter), given, chapter.parent / "new" / "out.ipynb")
    assert list(chapter.parent.iterdir()) == [chapter]


def test_a_run_with_parameters_never_replaces_its_own_chapter(no_kernel, chapter):
    before = chapter.read_bytes()
    with pytest.raises(ChapterError, match="is the chapter itself, which keeps its default parameters"):
        run(str(chapter), {"epochs": "5"}, chapter.parent / "elsewhere" / ".." / chapter.name)
    assert chapter.read_bytes() == before


@pytest.mark.parametrize("place", ["file/out.ipynb", "file/deeper/out.ipynb", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_the_run(no_kernel, chapter, place):
    (chapter.parent / "file").write_text("in the way")
    (chapter.parent / "folder").mkdir()
    with pytest.raises(ChapterError, match=r"cannot write .*; choose another place with --output"):
        run(str(chapter), {}, chapter.parent / place)
    assert list((chapter.parent / "folder").iterdir()) == []


@pytest.mark.parametrize("content", ["not a notebook", "[]", "{}"])
def test_a_file_that_is_no_notebook_is_refused(no_kernel, tmp_path, content):
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    with pytest.raises(ChapterError, match=r"broken\.ipynb"):
        run(str(path), {}, tmp_path / "out.ipynb")


def test_a_failing_cell_leaves_no_file_and_an_older_run_untouched(write_notebook, tmp_path):
    chapter = write_notebook(tmp_path / "small.ipynb", "1 / 0")
    older = tmp_path / "runs" / "out.ipynb"
    older.parent.mkdir()
    older.write_text("an older run")
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        run(str(chapter), {}, older)
    assert {path.name: path.read_text() for path in older.parent.iterdir()} == {"out.ipynb": "an older run"}


def imitated(path, target, *_, **__):
    """Papermill's part without a kernel."""
    Path(target).write_bytes(Path(path).read_bytes())


def test_without_an_output_a_run_goes_to_runs_under_the_chapters_name_and_the_time(chapter, monkeypatch, tmp_path):
    monkeypatch.setattr(papermill, "execute_notebook", imitated)
    monkeypatch.chdir(tmp_path)
    written = run(str(chapter), {})
    assert written.parent == Path("runs")
    assert datetime.strptime(written.name, "small-%Y%m%d-%H%M%S.ipynb")


def test_a_notebook_that_was_not_run_has_no_record(chapter):
    assert results.record(chapter) == {}


def test_a_chapter_may_renew_its_own_outputs_with_its_defaults(chapter, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", imitated)
    assert run(str(chapter), {}, chapter) == chapter
    assert results.record(chapter)["parameters"] == {"epochs": 3, "rate": 0.1}


def test_a_kernel_in_another_folder_sees_the_same_data_root(chapter, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *args, **_: (seen.append(os.environ["HQNN_DATA"]), imitated(*args))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HQNN_DATA", "sets")
    run(str(chapter), {})
    assert seen == [str(tmp_path / "sets")]
