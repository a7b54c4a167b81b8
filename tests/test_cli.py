"""The console script, as a reader calls it: what it says, and its exit codes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from hqnn_utils import cli
from hqnn_utils.notebooks import runs
from hqnn_utils.notebooks.results import run_in

PARAMETERS = "epochs: int = 3  # passes over the images, in [1, 9]\ndataset: str = 'mnist'  # in {mnist, digits}"


@pytest.fixture
def chapter(write_notebook, tmp_path):
    check = "from hqnn_utils.notebooks.parameters import check_parameters\ncheck_parameters(globals())"
    glueing = "from hqnn_utils.notebooks.results import glue\nglue('epochs_seen', epochs, 'passes')"
    return write_notebook(tmp_path / "small.ipynb", check, glueing, parameters=PARAMETERS)


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "epochs", "0"], "parameter epochs = 0 refused: allowed is in [1, 9]"),
        (["-p", "epochs", "many"], "parameter epochs = 'many' refused: expected int"),
        (["-p", "epoch", "3"], "unknown parameter 'epoch': did you mean epochs?"),
        (["-p", "epochs", "3", "-p", "epochs", "4"], "parameter epochs is given more than once"),
        (["-p", "epochs", "3", "-o", "{chapter}"], "is a chapter itself"),
        (["-o", "{chapter}"], "there is such a file already, which --overwrite would replace"),
        (["-p", "dataset", "\udcff"], "refused: expected str"),
        (["-p", "epochs"], "requires 2 arguments"),
    ],
)
def test_a_bad_parameter_is_refused_in_one_sentence(hqnn, chapter, arguments, sentence):
    done = hqnn("run", chapter, *[argument.format(chapter=chapter) for argument in arguments])
    assert done.returncode == (1 if "-o" in arguments else 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert list(chapter.parent.iterdir()) == [chapter]


@pytest.mark.parametrize("ask", [[], ["--help"]])
def test_an_unknown_chapter_is_refused_with_its_near_misses(hqnn, ask):
    done = hqnn("run", *ask, "parameter_shifts")
    assert done.returncode == 1
    assert "unknown chapter 'parameter_shifts': did you mean parameter_shift?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_refused(hqnn, chapter, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = hqnn("run", chapter, "-o", tmp_path / "file" / "out.ipynb")
    assert done.returncode == 1
    assert "choose another place with --output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["data", "fetch", "cifar"], 1, "unknown data set 'cifar': the catalogue has mnist, digits"),
        (["data", "verify", "cifar"], 1, "unknown data set 'cifar': the catalogue has mnist, digits"),
        (["rum"], 2, "No such command 'rum'"),
    ],
)
def test_an_unknown_word_is_refused(hqnn, arguments, code, sentence):
    done = hqnn(*arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


# -- what it tells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [["--help", "{chapter}"], ["{chapter}", "--help"], ["-h", "{chapter}"]])
def test_help_with_a_chapter_lists_its_parameters(hqnn, chapter, ask):
    done = hqnn("run", *[word.format(chapter=chapter) for word in ask])
    assert done.returncode == 0
    assert "epochs: int = 3" in done.stdout
    assert "passes over the images, in [1, 9]" in done.stdout
    assert "Usage:" in done.stdout


def test_the_list_has_the_title_of_every_chapter_and_data_set(hqnn):
    done = hqnn("list")
    assert done.returncode == 0
    for name, path in runs.chapters().items():
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
        assert re.search(rf"{name} +{re.escape(title)}\n", done.stdout)
    assert "MNIST handwritten digits" in done.stdout


def test_copies_are_chapters_to_work_on_and_replace_nothing(hqnn, tmp_path):
    done = hqnn("copy", tmp_path / "mine")
    copies = sorted((tmp_path / "mine").rglob("*.ipynb"))
    assert done.returncode == 0 and all(f"written: {path}" in done.stdout for path in copies)
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in runs.chapters().values()]
    for path in copies[1:]:
        path.unlink()
    copies[0].write_text("my own")
    again = hqnn("copy", tmp_path / "mine")
    assert again.returncode == 1 and f"{copies[0]} is there already; choose another folder" in again.stderr
    assert copies[0].read_text() == "my own" and list((tmp_path / "mine").rglob("*.ipynb")) == [copies[0]]


@pytest.mark.parametrize(("ask", "code"), [([], 2), (["--help"], 0)])
def test_without_a_chapter_all_are_named(hqnn, ask, code):
    done = hqnn("run", *ask)
    assert done.returncode == code
    assert "Chapters: " in done.stdout
    assert "parameter_shift" in done.stdout


def test_the_version_is_the_packages():
    from importlib.metadata import version

    command = [Path(sys.executable).with_name("hqnn"), "--version"]  # as a reader calls it
    assert version("hqnn-utils") in subprocess.run(command, capture_output=True, text=True, check=True).stdout


# -- what it runs ------------------------------------------------------------------------------------------------------


def test_a_run_prints_its_results_and_where_it_was_written(hqnn, chapter, tmp_path):
    done = hqnn("run", chapter, "-p", "epochs", "7", "-o", tmp_path / "out.ipynb")
    assert done.returncode == 0, done.stderr
    name, value, unit = done.stdout.splitlines()[0].rsplit(maxsplit=2)
    assert (name, value, unit) == ("epochs_seen", "7", "passes")
    assert f"written: {tmp_path / 'out.ipynb'}" in done.stdout
    assert (tmp_path / "out.ipynb").exists()


FAILURES = {
    "an error of its own code": ("1 / 0", "ZeroDivisionError: division by zero", True),
    "a data set that is not there": (
        "from hqnn_utils.datasets.digits import load; load('cifar')",
        "DataError: unknown data set",
        False,
    ),
    "a refused parameter": (
        "epochs = 99\nfrom hqnn_utils.notebooks.parameters import check_parameters; check_parameters(globals())",
        "ParameterError: parameter epochs = 99 refused",
        False,
    ),
    "a dead kernel": (
        "import os; os._exit(1)",
        "the kernel died or never answered (Kernel died), perhaps for lack of memory",
        False,
    ),
    "too little memory": ("raise MemoryError('40 qubits')", "MemoryError: 40 qubits", False),
    "a full disk": ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device", False),
}


@pytest.mark.parametrize(("cell", "sentence", "traced"), FAILURES.values(), ids=FAILURES)
def test_a_failed_run_tells_its_cause_and_writes_nothing(hqnn, write_notebook, tmp_path, cell, sentence, traced):
    path = write_notebook(tmp_path / "small.ipynb", cell, parameters=PARAMETERS)
    done = hqnn("run", path, "-o", tmp_path / "runs" / "out.ipynb")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Nothing was written; --keep-failed keeps what ran." in done.stderr
    said = [line for line in done.stderr.splitlines() if line and "Executing: " not in line]
    assert traced or len(said) == 2, "the cause, and what is left"
    assert ("Traceback" in done.stderr) == traced  # a reader is shown the code only where it is theirs to mend
    assert list((tmp_path / "runs").iterdir()) == []


def test_standard_output_takes_the_notebook_and_nothing_else(hqnn, chapter):
    done = hqnn("run", chapter, "-p", "epochs", "7", "-o", "-")
    assert run_in(json.loads(done.stdout))["parameters"]["epochs"] == 7
    assert "written: -" in done.stderr


def test_numbers_are_written_into_the_sentences_of_a_notebook_that_something_else_ran(hqnn, chapter, tmp_path):
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("It saw 0<!--=epochs_seen--> passes."))
    NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, chapter)
    first, second = hqnn("numbers", chapter), hqnn("numbers", chapter)
    assert (first.returncode, first.stdout, second.stdout) == (0, f"written: {chapter}\n", "")
    assert "It saw 3<!--=epochs_seen--> passes." in chapter.read_text(encoding="utf-8")


# -- what it knows of the data -----------------------------------------------------------------------------------------


def test_the_list_names_every_set_its_size_its_licence_and_the_root(hqnn, tmp_path):
    done = hqnn("data", "list", HQNN_DATA=str(tmp_path))
    assert done.returncode == 0
    for said in ("mnist", "60,000 train + 10,000 test", "11.6 MB", "CC BY-SA", "digits", f"data root: {tmp_path}"):
        assert said in done.stdout


@pytest.mark.parametrize("present", [0, 1])
def test_the_list_counts_what_is_here(hqnn, tmp_path, present, request):
    if present:
        request.getfixturevalue("mnist")
    done = hqnn("data", "list", **({} if present else {"HQNN_DATA": str(tmp_path)}))
    assert f"{4 * present} of 4 files here and intact" in done.stdout
    assert "bundled with scikit-learn" in done.stdout


def test_verify_says_what_is_missing_or_altered(hqnn, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"bit rot")
    done = hqnn("data", "verify", "mnist", HQNN_DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.count("missing") == 3
    assert "altered  t10k-labels-idx1-ubyte.gz" in done.stdout
    assert "`hqnn data fetch mnist`" in done.stderr


@pytest.mark.parametrize("command", ["verify", "fetch"])
def test_what_is_bundled_is_always_intact(hqnn, command, tmp_path):
    done = hqnn("data", command, "digits", HQNN_DATA=str(tmp_path))
    assert done.returncode == 0
    assert "scikit-learn" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_verify_finds_the_real_files_intact(hqnn, mnist):
    done = hqnn("data", "verify", "mnist")
    assert (done.returncode, done.stdout.count("ok ")) == (0, 4)


def test_the_audit_finds_the_leak_of_the_brain_tumours(hqnn):
    done = hqnn("data", "audit", "brain_tumor")
    if done.returncode:
        pytest.skip("needs the photographs: " + done.stderr.strip().splitlines()[-1])
    assert "211 of 220 test images show a picture that is among the training images" in done.stdout
    assert "split without identical pictures on both sides, with 220 test images" in done.stdout


def test_the_audit_of_what_is_no_set_of_photographs_is_refused(hqnn):
    done = hqnn("data", "audit", "digits")
    assert done.returncode != 0 and "is a set of digits" in done.stderr


def test_verify_of_many_files_names_only_those_that_are_not_intact(hqnn, tmp_path):
    done = hqnn("data", "verify", "chessman", HQNN_DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.count("missing") == 163 and "0 of 163 files ok" in done.stdout


# -- sweeps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def toml(chapter, tmp_path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(f'chapter = "{chapter}"\noutput = "{tmp_path}/out"\n[grid]\nepochs = [1, 2]\n')
    return path


def test_a_dry_run_counts_the_runs_and_touches_nothing(hqnn, toml, tmp_path):
    done = hqnn("sweep", toml, "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "2 runs of small, 0 finished, 0 failed before; how long one takes is not known\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "code", "sentence"),
    [
        ("epochs = [1, 2]", "epoch = [1]", 2, "unknown parameter 'epoch': did you mean epochs?"),
        ("epochs = [1, 2]", "epochs = []", 1, "the grid is empty"),
        ("small.ipynb", "pcq.ipynb", 1, "unknown chapter"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_sentence(hqnn, toml, tmp_path, old, new, code, sentence):
    toml.write_text(toml.read_text().replace(old, new))
    done = hqnn("sweep", toml)
    assert done.returncode == code and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_results_are_one_table_its_means_and_their_picture(hqnn, chapter, tmp_path):
    for epochs in (2, 4):
        runs.run(str(chapter), {"epochs": str(epochs)}, tmp_path / "runs" / f"{epochs}.ipynb")
    done = hqnn("results", tmp_path / "runs")
    assert done.returncode == 0 and done.stdout.splitlines()[0].startswith("run,chapter,status,dataset,epochs,")
    assert len(done.stdout.splitlines()) == 3
    wide = hqnn("results", tmp_path / "runs", "--wide", "-o", tmp_path / "wide.csv")
    assert wide.stdout == f"written: {tmp_path}/wide.csv, 2 rows\n"
    asked = ["--metric", "epochs_seen", "--group-by", "dataset", "--plot", tmp_path / "p.svg"]
    means = hqnn("results", tmp_path / "runs", *asked)
    assert means.stdout.split()[-6:] == ["mnist", "3.0", "-9.706205", "15.706205", "2", "passes"]
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert hqnn("results", tmp_path / "runs", "--group-by", "dataset").returncode == 2
    assert "there are no runs in" in hqnn("results", tmp_path / "nothing").stderr


def test_a_kernel_that_has_just_ended_by_itself_does_not_keep_a_command_from_stopping(monkeypatch):
    class Gone:
        def kill(self):
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(cli.psutil.Process, "children", lambda self, recursive: [Gone()])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(cli.Stopped) as stopped:
        cli._stop(signal.SIGINT, None)
    assert stopped.value.code == 130
