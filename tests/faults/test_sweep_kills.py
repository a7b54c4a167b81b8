"""A sweep under kill -9 of itself, of its worker, of a kernel: nothing finished is lost or made again, no kernel stays.

`HQNN_KILLS` says how often; three by default, one of each kind, because each costs the start of a process that imports torch.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from running import is_alive, prepared, until

from hqnn_utils.sweeps import collected

KILLS = int(os.environ.get("HQNN_KILLS", "3"))
HQNN = Path(sys.executable).parent / "hqnn"
PARAMETERS = "where: str = ''  # in {*}\nx: int = 0  # in [0, 99]\nseed: int = 0  # in [0, 9]"
CELLS = (
    """import os, time
from pathlib import Path
from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import record
check_parameters(globals())
Path(where, f"{x}-{seed}-{os.getpid()}").touch()""",
    "time.sleep(0.3)",
    "record({'square': x**2 + seed}, unit='s', tolerance=0.1)",
)


@pytest.fixture
def book(write_notebook, tmp_path):
    """A chapter whose kernels leave their number in `marks/`, and the sweep over it."""
    path = write_notebook(tmp_path / "toy.ipynb", *CELLS, parameters=PARAMETERS)
    (tmp_path / "marks").mkdir()
    (tmp_path / "toy.toml").write_text(
        f'chapter = "{path}"\nseeds = 2\n[fixed]\nwhere = "{tmp_path}/marks"\n[grid]\nx = [1, 2, 3]\n'
    )
    return tmp_path


def start(book: Path, output: str, *options: str) -> subprocess.Popen:
    command = [HQNN, "sweep", book / "toy.toml", "--output", book / output, "--workers", "1", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=prepared)


def kernels(book: Path) -> set[int]:
    """Every kernel that has begun a run, alive or not."""
    return {int(mark.name.rsplit("-", 1)[1]) for mark in (book / "marks").iterdir()}


def victim(kind: str, sweep: subprocess.Popen, book: Path) -> int | None:
    if kind == "sweep":
        return sweep.pid
    if kind == "kernel":
        return next(filter(is_alive, kernels(book)), None)
    children = psutil.Process(sweep.pid).children()
    return next((child.pid for child in children if "workers import serve" in " ".join(child.cmdline())), None)


def finished(book: Path) -> dict[str, int]:
    """The notebooks that count, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (book / "out").glob("[!.]*.ipynb") if ".failed" not in path.name}


def table(folder: Path) -> list:
    found = collected.long(str(folder))
    return found[["run", "status", "x", "seed", "result", "value", "unit", "tolerance"]].values.tolist()


def test_a_sweep_that_is_killed_gives_the_table_of_an_undisturbed_one(book):
    undisturbed = start(book, "undisturbed")
    said = undisturbed.communicate(timeout=300)[0]
    assert undisturbed.returncode == 0, said
    moments, sweep, kept = random.Random(0), None, dict[str, int]()
    killed, again = Counter[str](), 0
    while killed.total() < KILLS:
        kind = ("kernel", "worker", "sweep")[killed.total() % 3]
        if len(finished(book)) >= 5:  # too little is left to be disturbed: from the start again
            if sweep:
                sweep.communicate(timeout=300)
            for path in (book / "out").glob("*.ipynb"):
                path.unlink()
            kept, sweep, again = {}, None, again + 1
        if sweep is None or sweep.poll() is not None:
            sweep = start(book, "out", "--retry-failed")
        before = kernels(book)
        assert until(lambda before=before, sweep=sweep: kernels(book) - before or sweep.poll() is not None)
        time.sleep(moments.random() * 0.5)
        if sweep.poll() is None and (pid := victim(kind, sweep, book)):
            doomed = set(filter(is_alive, kernels(book)))
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)
                killed[kind] += 1
            assert until(lambda doomed=doomed: not any(map(is_alive, doomed)), 10), "a kernel stays"
        now = finished(book)
        assert kept.items() <= now.items(), "what was finished is gone, or was made again"
        kept = now
        if kind == "sweep":
            sweep.communicate()
    if sweep:
        sweep.communicate(timeout=300)
    last = start(book, "out", "--retry-failed")
    said = last.communicate(timeout=300)[0]
    assert last.returncode == 0, said
    assert kept.items() <= finished(book).items()
    assert table(book / "out") == table(book / "undisturbed")
    assert until(lambda: not any(map(is_alive, kernels(book))), 10), "a kernel stays"
    assert not [path for path in (book / "out").iterdir() if path.name.startswith(".hqnn")]
    told = ", ".join(f"{kind} {times} times" for kind, times in killed.items())
    print(f"killed: {told}; {len(kernels(book))} kernels began a run, the folder was emptied {again} times; the tables agree")


def test_ctrl_c_ends_a_sweep_in_one_line_and_no_kernel_stays(book):
    sweep = start(book, "out")
    assert until(lambda: kernels(book)), sweep.communicate()[0]
    sweep.send_signal(signal.SIGINT)
    said = sweep.communicate(timeout=30)[0]
    assert sweep.returncode == 130
    assert said.splitlines()[-1] == "Stopped by SIGINT. What is finished is kept, and the same command goes on from there."
    assert until(lambda: not any(map(is_alive, kernels(book))), 10)
