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
