"""Which chapters there are, what a run leaves behind, and what it never does."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from datetime import datetime
from math import isnan
from pathlib import Path

import pytest

from hqnn_utils import files
from hqnn_utils.notebooks import results, runs
from hqnn_utils.notebooks.parameters import ChapterError, ParameterError
from hqnn_utils.notebooks.runs import RunError, find, run

# -- which chapter is meant --------------------------------------------------------------------------------------------


@pytest.fixture
def book(monkeypatch, tmp_path, write_notebook):
    """A book of two chapters, with a checkpoint, hidden files and a failed run lying about."""
    folder = tmp_path / "book"
    lying_about = (
        "foundations/.ipynb_checkpoints/pqc-checkpoint",
        "foundations/.pqc-x7w9",
        ".pqc-x7w9",
        "foundations/pqc.failed",
    )
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
        (".ipynb" * 99, "the book has device_timing, pqc"),
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
    "of_numpy": (0.5, "", 0.0),
    "of_torch": (2.0, "1/rad", 0.0),
    "epochs": (5, "", 0.0),
}
GLUING = """
import sys
import numpy as np, torch
from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import glue
check_parameters(globals())
glue("number", 0.1 + 0.2, "s", tolerance=0.01)
glue("count", 7)
glue("word", "it's above")
glue("of_numpy", np.float64(0.5))
glue("of_torch", torch.tensor(2.0), "1/rad")
glue("epochs", epochs)
print("a bar \\r moves", file=sys.stderr, flush=True)
"""
TOLD = "import sys; from ipykernel.kernelapp import IPKernelApp; print(sys.executable, IPKernelApp.instance().transport)"
PLAIN = "print('kept', file=sys.stderr)\n'shown'"
FEW = "epochs: int = 3  # in [1, 9]\nrate: float = 0.1  # in (0, 1]"


@pytest.fixture(scope="module")
def executed(write_notebook, tmp_path_factory):
    """A notebook that was really run with one parameter given, alone in a folder that did not exist before."""
    folder = tmp_path_factory.mktemp("runs")
    chapter = write_notebook(folder / "small.ipynb", GLUING, TOLD, PLAIN, parameters=FEW)
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
    record = results.run_of(executed)
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


def test_a_run_uses_this_python_and_no_port(executed):
    said = json.loads(executed.read_text())["cells"][3]["outputs"][0]["text"]
    assert said == [f"{sys.executable} ipc\n"]


@pytest.mark.parametrize("name", ["conda-env-elsewhere-py", "python3"])
def test_a_notebook_of_another_kernel_and_a_stale_kernel_run_in_this_python(write_notebook, tmp_path, monkeypatch, name):
    stale = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    files.write(tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(stale))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = write_notebook(tmp_path / "small.ipynb", "import sys; print(sys.executable)")
    path.write_text(path.read_text().replace('"name": "python3"', f'"name": "{name}"'))
    written = json.loads(run(str(path), {}, tmp_path / "out.ipynb").read_text())
    assert written["cells"][0]["outputs"][0]["text"] == [f"{sys.executable}\n"]
    assert written["metadata"]["kernelspec"]["name"] == "python3"


def test_where_no_socket_fits_the_kernel_is_reached_by_tcp(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.tempfile, "tempdir", str(tmp_path))
    (tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setattr(runs.tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    with runs._sockets() as connection:
        assert connection["transport"] == "tcp"


def test_what_a_killed_run_left_of_its_kernel_is_removed_by_the_next_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.tempfile, "tempdir", str(tmp_path))
    with runs._sockets() as living, runs._sockets():
        mine = Path(living["connection_file"]).parent
        ended = subprocess.Popen(["true"])
        ended.wait()
        dead = mine.with_name(mine.name.replace(str(os.getpid()), str(ended.pid)))
        (dead / "sub").mkdir(parents=True)
        (tmp_path / "hqnn-notes").mkdir()
        with runs._sockets():
            assert len(list(tmp_path.iterdir())) == 4
        assert mine.stat().st_mode & 0o777 == 0o700 and not dead.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["hqnn-notes"]


# -- a run's output is a chapter ---------------------------------------------------------------------------------------


def test_a_runs_output_is_run_again_with_its_own_parameters(executed, tmp_path):
    again = run(str(executed), {"rate": "0.5"}, tmp_path / "again.ipynb")
    assert results.of(again)["epochs"].value == 5
    assert results.run_of(again)["parameters"] == {"epochs": 5, "rate": 0.5}
    tags = [cell["metadata"].get("tags") for cell in json.loads(again.read_text())["cells"]]
    assert tags.count(["injected-parameters"]) == 1


def test_a_runs_output_cannot_replace_a_chapter_of_the_book(no_kernel, book, executed):
    before = (book / "foundations/pqc.ipynb").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ChapterError, match="is a chapter itself, which is renewed only by its own run with default"):
            run(str(executed), {}, book / "foundations/pqc.ipynb", overwrite=overwrite)
    assert (book / "foundations/pqc.ipynb").read_bytes() == before


# -- what a run never does ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_kernel(monkeypatch):
    """A refusal comes before a kernel starts: here starting one is a failure."""
    monkeypatch.setattr(runs, "_execute", lambda *_: pytest.fail("a kernel was started"))


@pytest.fixture
def imitated(monkeypatch):
    """Runs without a kernel, at once."""
    monkeypatch.setattr(runs, "_execute", lambda *_: None)


@pytest.fixture
def chapter(write_notebook, tmp_path):
    return write_notebook(tmp_path / "small.ipynb", "1 + 1", parameters=FEW)


@pytest.mark.parametrize("given", [{"epoch": "3"}, {"epochs": "many"}, {"epochs": "10"}])
def test_a_refused_parameter_starts_no_kernel_and_makes_no_folder(no_kernel, chapter, given):
    with pytest.raises(ParameterError):
        run(str(chapter), given, chapter.parent / "new" / "out.ipynb")
    assert list(chapter.parent.iterdir()) == [chapter]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_with_parameters_never_replaces_its_own_chapter(no_kernel, chapter, overwrite):
    before = chapter.read_bytes()
    with pytest.raises(ChapterError, match="is a chapter itself"):
        run(str(chapter), {"epochs": "5"}, chapter.parent / "elsewhere" / ".." / chapter.name, overwrite=overwrite)
    assert chapter.read_bytes() == before


def in_the_way(folder: Path) -> None:
    """What may stand where a run is to be written."""
    (folder / "file").write_text("a reader's own")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "circle").symlink_to("circle")
    (folder / "hard").hardlink_to(folder / "file")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file/out.ipynb", "File exists|Not a directory"),
        ("file/deeper/out.ipynb", "Not a directory"),
        ("folder", "it is a folder"),
        ("", "it is a folder"),
        ("file", "there is such a file already, which --overwrite would replace"),
        ("link", "there is such a file already"),
        ("hard", "there is such a file already"),
        ("circle", "symbolic links|Symlink loop"),
        ("socket", "it is no file"),
        ("a" * 300 + ".ipynb", "File name too long"),
        ("new/" + "a" * 300 + ".ipynb", "File name too long"),
        ("a\0b.ipynb", "null"),
        ("/proc/out.ipynb", "No such file|not permitted|denied"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_run(no_kernel, chapter, place, why):
    in_the_way(chapter.parent)
    with pytest.raises(ChapterError, match=rf"(?s)cannot write .*: .*({why}).*; choose another place with --output"):
        run(str(chapter), {}, chapter.parent / place)
    assert (chapter.parent / "file").read_text() == "a reader's own"
    assert (chapter.parent / "link").readlink() == Path("file")


def test_a_read_only_file_is_refused_even_where_overwriting_is_asked_for(no_kernel, chapter):
    (chapter.parent / "out.ipynb").touch(0o444)
    with pytest.raises(ChapterError, match="it is read-only"):
        run(str(chapter), {}, chapter.parent / "out.ipynb", overwrite=True)


def test_overwriting_replaces_a_file_and_follows_a_link(imitated, chapter):
    in_the_way(chapter.parent)
    run(str(chapter), {}, chapter.parent / "link", overwrite=True)
    assert (chapter.parent / "link").readlink() == Path("file")
    assert results.run_of(chapter.parent / "file")["chapter"] == "small"


def test_a_link_to_nothing_is_followed(imitated, chapter):
    (chapter.parent / "latest.ipynb").symlink_to("first.ipynb")
    assert run(str(chapter), {}, chapter.parent / "latest.ipynb") == chapter.parent / "first.ipynb"
    assert (chapter.parent / "latest.ipynb").is_symlink()


def test_a_device_and_a_pipe_are_written_to_and_stay_what_they_are(imitated, chapter):
    assert run(str(chapter), {}, Path(os.devnull)) == Path(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe, read = chapter.parent / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(json.loads(pipe.read_text())))
    reader.start()
    run(str(chapter), {}, pipe)
    reader.join()
    assert read[0]["metadata"]["hqnn"]["chapter"] == "small" and pipe.is_fifo()


def test_a_minus_is_standard_output(imitated, chapter, capsys, monkeypatch):
    monkeypatch.chdir(chapter.parent)
    run(str(chapter), {}, Path("-"))
    assert json.loads(capsys.readouterr().out)["metadata"]["hqnn"]["chapter"] == "small"
    assert list(chapter.parent.iterdir()) == [chapter]


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("e{epochs}_r{rate}.ipynb", "e5_r0.1.ipynb"),
        ("{epochs}/out.ipynb", "5/out.ipynb"),
        ("{1}/{other}.ipynb", "{1}/{other}.ipynb"),
        ("{}{{epochs}}{.ipynb", "{}{5}{.ipynb"),
    ],
)
def test_braces_stand_for_a_parameter_or_for_themselves(imitated, chapter, place, written):
    assert run(str(chapter), {"epochs": "5"}, chapter.parent / place) == chapter.parent / written
    assert (chapter.parent / written).is_file()


def test_runs_that_want_one_name_get_one_each(imitated, chapter, monkeypatch):
    monkeypatch.chdir(chapter.parent)
    monkeypatch.setattr(runs, "_place", lambda output, *_: (Path("runs").mkdir(exist_ok=True), output)[1])  # all start at once
    written = [run(str(chapter), {"epochs": epochs}, Path("runs/out.ipynb")) for epochs in "123"]
    assert [path.name for path in written] == ["out.ipynb", "out-2.ipynb", "out-3.ipynb"]
    assert [results.run_of(path)["parameters"]["epochs"] for path in written] == [1, 2, 3]


def test_without_an_output_a_run_goes_to_runs_under_the_chapters_name_and_the_time(imitated, chapter, monkeypatch):
    monkeypatch.chdir(chapter.parent)
    written = run(str(chapter), {})
    assert written.parent == Path("runs")
    assert datetime.strptime(written.name, "small-%Y%m%d-%H%M%S.ipynb")
    again = run(str(written), {}, overwrite=True)
    assert again != written and datetime.strptime(again.stem[:21], "small-%Y%m%d-%H%M%S"), "one time is enough in a name"


def test_a_notebook_that_was_not_run_has_no_record(chapter):
    assert results.run_of(chapter) == {}


def test_a_chapter_may_renew_its_own_outputs_with_its_defaults_if_asked(imitated, chapter):
    with pytest.raises(ChapterError, match="--overwrite"):
        run(str(chapter), {}, chapter)
    assert run(str(chapter), {}, chapter, overwrite=True) == chapter
    assert results.run_of(chapter)["parameters"] == {"epochs": 3, "rate": 0.1}


def test_a_kernel_in_another_folder_sees_the_same_data_root(write_notebook, monkeypatch, tmp_path):
    path = write_notebook(tmp_path / "small.ipynb", "import os; print(os.environ['HQNN_DATA'])")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HQNN_DATA", "sets")
    assert str(tmp_path / "sets") in run(str(path), {}).read_text()


# -- a run that fails --------------------------------------------------------------------------------------------------


def test_a_failing_cell_leaves_no_file_and_an_older_run_untouched(write_notebook, tmp_path):
    chapter = write_notebook(tmp_path / "small.ipynb", "1 / 0")
    older = tmp_path / "runs" / "out.ipynb"
    older.parent.mkdir()
    older.write_text("an older run")
    with pytest.raises(RunError, match=r"ZeroDivisionError: .*\nNothing was written; --keep-failed keeps what ran"):
        run(str(chapter), {}, older, overwrite=True)
    assert {path.name: path.read_text() for path in older.parent.iterdir()} == {"out.ipynb": "an older run"}


ENDS = {
    "an error": ("1 / 0", {"error": "ZeroDivisionError", "message": "division by zero", "cell": 3}),
    "a dead kernel": ("import os; os._exit(1)", {"error": "DeadKernelError", "message": "Kernel died"}),
}


@pytest.mark.parametrize(("cell", "failed"), ENDS.values(), ids=ENDS)
def test_a_failed_run_can_be_kept_to_look_into(write_notebook, tmp_path, cell, failed):
    chapter = write_notebook(tmp_path / "small.ipynb", cell, parameters=FEW + "\nprint('seen')")
    kept = tmp_path / "runs" / "out.failed.ipynb"
    with pytest.raises(RunError, match=r"What ran is kept in .*out\.failed\.ipynb"):
        run(str(chapter), {"epochs": "5"}, tmp_path / "runs" / "out.ipynb", keep_failed=True)
    assert list(kept.parent.iterdir()) == [kept]
    record = results.run_of(kept)
    assert (record["failed"], record["parameters"]["epochs"]) == (failed, 5)
    assert "seen" in kept.read_text() and ("Traceback" in kept.read_text()) == ("cell" in failed)


def test_an_interrupted_run_can_be_kept_too(chapter, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_execute", interrupted)
    for name in ("small.failed.ipynb", "small.failed-2.ipynb"):
        with pytest.raises(KeyboardInterrupt) as stop:
            run(str(chapter), {}, chapter.parent / "runs" / "small.ipynb", keep_failed=True)
        assert stop.value.__notes__ == [f"What ran is kept in {chapter.parent / 'runs' / name}."]
        assert results.run_of(chapter.parent / "runs" / name)["failed"]["error"] == "KeyboardInterrupt"


def test_a_run_that_cannot_be_written_where_it_should_is_kept_elsewhere(imitated, chapter, monkeypatch, tmp_path):
    write = files.write

    def full(path, text):
        if path.is_relative_to(tmp_path / "runs"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(runs.tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(
        RunError, match=r"cannot write .*: No space left on device; the run is kept in .*out\.ipynb"
    ) as refusal:
        run(str(chapter), {}, tmp_path / "runs" / "out.ipynb")
    assert list((tmp_path / "runs").iterdir()) == []
    (kept,) = (tmp_path / "tmp").rglob("out.ipynb")
    assert str(kept) in str(refusal.value) and results.run_of(kept)["chapter"] == "small"
