"""What ends a run from outside: signals, closed pipes and full disks leave one sentence, no kernel, nothing half written."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from running import is_alive, prepared, until

from hqnn_utils.notebooks import results, runs

HQNN = Path(sys.executable).parent / "hqnn"
ASKED = ("SIGINT", "SIGTERM", "SIGHUP")
AT_ONCE = ("QUIT", "KILL", "ABRT", "SEGV", "BUS", "FPE", "ILL", "ALRM", "USR1", "USR2", "XCPU")
SIGNALS = [*ASKED, *(f"SIG{name}" for name in AT_ONCE)]
SLOW = "import os, pathlib, time\npathlib.Path(f'{where}/pid').write_text(f'{os.getpid()} ')\ntime.sleep(600)"


def start(*arguments, before=prepared, **environment) -> subprocess.Popen:
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([HQNN, "run", *map(str, arguments)], env=os.environ | environment, preexec_fn=before, **pipes)


@pytest.fixture(scope="module")
def slow(write_notebook, tmp_path_factory) -> Path:
    """A chapter that tells its kernel's number in the folder `where`, and then takes its time."""
    return write_notebook(tmp_path_factory.mktemp("chapter") / "slow.ipynb", SLOW, parameters="where: str = ''  # in {*}")


@pytest.fixture(scope="module")
def stopped(slow, tmp_path_factory) -> dict[str, tuple]:
    """Runs that were under way when a signal came, all at once: signal → (process, kernel, folder, what was said)."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SIGNALS}
    started = {
        name: start(slow, "-p", "where", f, "-o", f / "out" / "out.ipynb", TMPDIR=str(f)) for name, f in folders.items()
    }
    found = {}
    try:
        for name, process in started.items():
            told = folders[name] / "pid"
            assert until(lambda told=told: told.exists() and told.read_text().endswith(" "), 120), f"no kernel ran for {name}"
            process.send_signal(getattr(signal, name))
        for name, process in started.items():
            said = process.communicate(timeout=60)[1]
            found[name] = process, int((folders[name] / "pid").read_text()), folders[name], said
    finally:
        for process in started.values():
            process.kill()
    return found


@pytest.mark.parametrize("name", SIGNALS)
def test_after_any_signal_no_kernel_stays_and_nothing_is_written(stopped, name):
    process, kernel, folder, _ = stopped[name]
    number = getattr(signal, name)
    assert process.returncode == (128 + number if name in ASKED else -number)
    assert list((folder / "out").iterdir()) == []
    assert until(lambda: not is_alive(kernel), 30), "the kernel is still there"


@pytest.mark.parametrize("name", ASKED)
def test_whoever_asks_a_run_to_stop_reads_one_line(stopped, name):
    *_, said = stopped[name]
    (line,) = [line for line in said.splitlines() if line and "Executing: " not in line]
    assert line == f"Stopped by {name}. Nothing was written; --keep-failed keeps what ran."


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_the_next_run_removes_what_a_killed_one_left(stopped, name, monkeypatch):
    folder = stopped[name][2]
    assert len(list(folder.glob("hqnn-*"))) == (name == "SIGKILL")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with runs._sockets():
        pass
    assert list(folder.glob("hqnn-*")) == []


def test_a_second_ctrl_c_changes_nothing_and_what_ran_can_be_kept(slow, tmp_path):
    process = start(slow, "-p", "where", tmp_path, "-o", tmp_path / "out.ipynb", "--keep-failed")
    try:
        assert until(lambda: (tmp_path / "pid").exists())
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert (process.returncode, said.splitlines()[-1]) == (
        130,
        f"Stopped by SIGINT. What ran is kept in {tmp_path}/out.failed.ipynb.",
    )
    assert results.run_of(tmp_path / "out.failed.ipynb")["failed"]["error"] == "Stopped"


def test_a_run_under_nohup_outlives_the_terminal(write_notebook, tmp_path):
    cell = "import os, signal, time\nos.kill(os.getppid(), signal.SIGHUP)\ntime.sleep(0.5)"
    path = write_notebook(tmp_path / "small.ipynb", cell)
    process = start(path, "-o", tmp_path / "out.ipynb", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and (tmp_path / "out.ipynb").exists(), said


def test_runs_started_at_once_keep_a_file_each(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "small.ipynb", "1 + 1", parameters="x: int = 0  # in [0, 9]")
    started = [start(path, "-p", "x", x, "-o", tmp_path / "runs" / "out.ipynb") for x in range(3)]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    kept = sorted((tmp_path / "runs").iterdir())
    assert [path.name for path in kept] == ["out-2.ipynb", "out-3.ipynb", "out.ipynb"]
    assert sorted(results.run_of(path)["parameters"]["x"] for path in kept) == [0, 1, 2]


def test_a_full_disk_is_one_sentence(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "small.ipynb", "'x' * 100_000")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    process = start(path, "-o", tmp_path / "runs" / "out.ipynb", before=small, TMPDIR=str(tmp_path))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    (line,) = [line for line in said.splitlines() if line and "Executing: " not in line]
    assert "out.ipynb: File too large; neither can the temporary folder be written, so the run is lost: make room" in line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["runs", "small.ipynb"]
