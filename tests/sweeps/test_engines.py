"""A sweep that is executed: each run once, what failed is kept, and it goes on where it stopped; here and on other engines."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from running import Inline, is_alive, until

from hqnn_utils import files
from hqnn_utils.errors import SweepError
from hqnn_utils.notebooks import kernels, results
from hqnn_utils.notebooks.limits import Limits
from hqnn_utils.sweeps import collected, engines, jobs
from hqnn_utils.sweeps.description import Sweep
from hqnn_utils.sweeps.progress import Progress, duration
from hqnn_utils.sweeps.stores import Store
from hqnn_utils.sweeps.workers import WorkerDied, Workers

PARAMETERS = """
where: str = ""  # folder in which each execution leaves a mark, in {*}
x: int = 0  # in [0, 9]
seed: int = 0  # in [0, 99]
act: str = ""  # what goes wrong, in {*}
"""
BEGIN = """
import os, signal, time
from pathlib import Path
from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import record, record_seeds
check_parameters(globals())
marks = len(list(Path(where).glob(f"{x}-{seed}-*")))
Path(where, f"{x}-{seed}-{marks}-{os.getpid()}").touch()
"""
ACT = """
if act == "raise" or (act == "once" and marks == 0):
    raise ValueError("this went wrong")
if act == "die" or (act == "die once" and marks == 0):
    os.kill(os.getpid(), signal.SIGKILL)
if act == "sleep":
    time.sleep(60)
if act == "eat":
    eaten = bytearray(20 * 10**9)
if act == "fill":
    eaten, size = [], 10**8
    while size > 1000:
        try:
            eaten.append(bytearray(size))
        except MemoryError:
            size //= 10
    time.sleep(60)
"""
END = "record({'sum': x + seed / 10, 'digits_x': x}, unit='s'); record_seeds({'each': [x, x + 1]}, [0, 1])"


@pytest.fixture(scope="module")
def chapter(write_notebook, tmp_path_factory) -> Path:
    kernels.start()
    return write_notebook(tmp_path_factory.mktemp("book") / "toy.ipynb", BEGIN, ACT, END, parameters=PARAMETERS)


@pytest.fixture
def sweep(chapter, tmp_path):
    (tmp_path / "marks").mkdir()
    return lambda **parts: Sweep(
        chapter=str(chapter), fixed={"where": str(tmp_path / "marks")}, output=str(tmp_path / "out"), **parts
    )


def executed(tmp_path: Path) -> dict[str, int]:
    """How often each run was executed."""
    return dict(Counter(mark.name.rsplit("-", 2)[0] for mark in (tmp_path / "marks").iterdir()))


def run(sweep: Sweep, executor: Executor | None = None, **options) -> engines.Summary:
    return engines.run(sweep, executor or Inline(), report=lambda *told: None, **options)


# -- on this machine: one sweep, several questions -------------------------------------------------------------------


def test_a_sweep_is_executed_once_keeps_failures_and_is_retried_when_asked(sweep, tmp_path):
    described = sweep(rows=[{"x": 1}, {"x": 2}, {"x": 3, "act": "once"}, {"x": 4, "act": "once"}])
    told = []
    first = engines.run(described, Inline(), report=lambda *each: told.append(each[:2]))
    assert (len(first.finished), len(first.failed), first.executed) == (2, 2, 4)
    assert set(told) == {(1, 4), (2, 4), (3, 4), (4, 4)}
    assert all("ValueError: this went wrong" in reason for reason in first.failed.values())
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*.ipynb")} == {f"{name}.ipynb" for name in first.finished} | {
        f"{name}.failed.ipynb" for name in first.failed
    }
    failed = json.loads((out / f"{next(iter(first.failed))}.failed.ipynb").read_text())
    assert any(output["output_type"] == "error" for cell in failed["cells"] for output in cell.get("outputs", []))
    status = collected.long(str(out)).drop_duplicates("run")["status"].value_counts().to_dict()
    assert status == {"finished": 2, "failed": 2}

    again = run(described)
    assert (again.finished, again.failed.keys(), again.executed) == (first.finished, first.failed.keys(), 0)
    assert "4 runs of toy, 2 finished, 2 failed before; the rest takes about" in engines.plan(described)
    retried = run(described, retry_failed=True)
    assert (len(retried.finished), retried.failed, retried.executed) == (4, {}, 2)
    assert not list(out.glob("*.failed.ipynb")) and not list((out / ".claims").iterdir())

    table = collected.long(str(out))
    assert table["value"][(table["result"] == "sum") & (table["x"] == 2)].tolist() == [2.0]
    assert table["value"][(table["result"] == "each") & (table["of_seed"] == 1) & (table["x"] == 2)].tolist() == [3.0]
    assert set(table["unit"][table["result"] == "sum"]) == {"s"}
    origin = json.loads((out / f"{first.finished[0]}.ipynb").read_text())["metadata"]["hqnn"]
    assert origin["name"] == first.finished[0] and origin["code"] and origin["data"] == ""


def test_a_kernel_that_dies_is_tried_once_more_and_no_more(sweep, tmp_path):
    done = run(sweep(rows=[{"x": 1, "act": "die once"}, {"x": 2, "act": "die"}]))
    assert len(done.finished) == 1 and executed(tmp_path) == {"1-0": 2, "2-0": 2}
    (reason,) = done.failed.values()
    assert "the kernel died" in reason and len(list((tmp_path / "out").glob("*.failed.ipynb"))) == 1


def test_limits_end_a_run_and_the_sweep_goes_on(sweep, tmp_path):
    described = sweep(rows=[{"x": 1, "act": "sleep"}, {"x": 2, "act": "eat"}, {"x": 3}])
    started = time.monotonic()
    done = run(described, limits=Limits(run_s=20, cell_s=2, memory_gb=15))
    assert time.monotonic() - started < 40 and len(done.finished) == 1
    timed, eaten = done.failed.values()
    assert "took longer than the limit, 2 s a cell and 20 s a run" in timed and "MemoryError" in eaten
    pids = [int(mark.name.rsplit("-", 1)[1]) for mark in (tmp_path / "marks").iterdir()]
    assert not any(map(is_alive, pids))


def test_a_run_with_no_memory_left_has_failed_and_the_sweep_goes_on(sweep, monkeypatch):
    """Its kernel has none for a message either, so nobody can wait for one."""
    monkeypatch.setattr("hqnn_utils.notebooks.limits.FULL_S", 1.0)
    described = sweep(rows=[{"x": 1, "act": "fill"}, {"x": 2}])
    started = time.monotonic()
    done = run(described, limits=Limits(memory_gb=1.5))
    assert time.monotonic() - started < 40 and len(done.finished) == 1
    (reason,) = done.failed.values()
    assert reason.endswith("perhaps for lack of memory, of which it may have 1.5 GB.")


def test_a_limit_that_is_too_low_for_any_kernel_is_a_failed_run(sweep):
    done = run(sweep(grid={"x": [1]}), limits=Limits(memory_gb=0.05))  # a cold one may do with 0.2
    (reason,) = done.failed.values()
    assert reason.endswith("perhaps for lack of memory, of which it may have 0.05 GB.")


def test_a_run_has_no_more_time_than_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    left = Limits(cell_s=5, run_s=8).clock()
    assert left(None) == 5
    now[0] = 6.0
    assert left(None) == 2
    now[0] = 9.0
    assert 0 < left(None) <= 0.01
    assert Limits().clock()(None) is None
    with pytest.raises(ValueError, match="cell_s must be a positive number"):
        Limits(cell_s=-1)


# -- whose folder it is ----------------------------------------------------------------------------------------------


def planned(sweep: Sweep) -> None:
    """Claim the folder without running anything."""
    wanted = sweep.runs()
    Store(sweep.place).write(engines.INDEX, json.dumps(engines._index(sweep, wanted)))


def test_a_folder_of_another_sweep_is_refused(sweep, tmp_path):
    planned(sweep(grid={"x": [1, 2]}))
    with pytest.raises(SweepError, match="holds the runs of another sweep: choose another output"):
        run(sweep(grid={"x": [1, 3]}))
    with pytest.raises(SweepError, match="another sweep"):
        engines.plan(sweep(grid={"x": [1, 3]}))
    assert executed(tmp_path) == {}


def test_a_folder_of_another_code_is_refused(sweep, monkeypatch):
    planned(sweep(grid={"x": [1, 2]}))
    monkeypatch.setattr(engines.origins, "package", lambda: "edited")
    with pytest.raises(SweepError, match="this sweep with another code of chapter or package, or other data"):
        run(sweep(grid={"x": [1, 2]}))


def test_a_folder_with_other_notebooks_is_refused(sweep, write_notebook, tmp_path):
    write_notebook(tmp_path / "out" / "mine.ipynb")
    with pytest.raises(SweepError, match="holds notebooks that are of no sweep"):
        run(sweep(grid={"x": [1, 2]}))


def test_a_worker_with_another_code_is_refused(sweep, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "_code", lambda chapter: "another")
    with pytest.raises(SweepError, match="has another code of") as refusal:
        run(sweep(grid={"x": [1, 2]}))
    assert "0 runs are finished" in str(refusal.value) and executed(tmp_path) == {}


def test_a_full_disk_ends_the_sweep_and_nothing_half_written_counts(sweep, monkeypatch, tmp_path):
    write = files.write

    def full(path, text):
        if path.suffix == ".ipynb":
            raise OSError(28, os.strerror(28))
        write(path, text)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(
        SweepError, match=r"cannot write .*: No space left on device\nThe sweep ends here; 0 runs are finished"
    ):
        run(sweep(grid={"x": [1, 2]}))
    monkeypatch.undo()
    assert not list((tmp_path / "out").glob("*.ipynb"))
    assert len(run(sweep(grid={"x": [1, 2]})).finished) == 2


def test_two_sweeps_on_one_folder_execute_each_run_once(sweep, tmp_path):
    described = sweep(grid={"x": [1, 2, 3]})
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda _: run(replace(described), Inline()), range(2)))
    assert executed(tmp_path) == {"1-0": 1, "2-0": 1, "3-0": 1}
    assert [len(each.finished) for each in done] == [3, 3] and sum(each.executed for each in done) == 3


# -- URLs ------------------------------------------------------------------------------------------------------------


def test_runs_can_be_kept_below_a_url(chapter, tmp_path):
    (tmp_path / "marks").mkdir()
    fixed = {"where": str(tmp_path / "marks")}
    described = Sweep(chapter=str(chapter), fixed=fixed, grid={"x": [4]}, output=f"memory://{tmp_path.name}/runs")
    assert (run(described).executed, run(described).executed) == (1, 0)
    table = collected.long(described.place)
    assert table["value"][table["result"] == "sum"].tolist() == [4.0]


def test_a_url_that_nothing_can_write_is_refused(sweep):
    with pytest.raises(SweepError.__base__, match=r"cannot write to gopher://x: "):
        run(replace(sweep(), output="gopher://x"))


def test_a_store_reads_lists_and_removes_what_it_wrote(tmp_path):
    for store in (Store(str(tmp_path / "a")), Store(f"memory://{tmp_path.name}/a")):
        assert store.names() == set() and not store.has("x.ipynb")
        store.write("x.ipynb", "ψ")
        assert (store.names(), store.has("x.ipynb"), store.read("x.ipynb")) == ({"x.ipynb"}, True, "ψ")
        with store.claim("x") as first, store.claim("x") as second:
            assert first and not second
        store.remove("x.ipynb")
        store.remove("x.ipynb")
        assert store.names() == set()


# -- processes of this machine ---------------------------------------------------------------------------------------


def test_workers_answer_raise_die_and_go_on():
    with Workers(1) as engine:
        first = engine.submit(os.getpid).result(60)
        assert first != os.getpid() and engine.submit(os.getpid).result(60) == first
        with pytest.raises(ZeroDivisionError):
            engine.submit(divmod, 1, 0).result(60)
        with pytest.raises(WorkerDied, match="exit code 3"):
            engine.submit(os._exit, 3).result(60)
        with pytest.raises(Exception, match=r"pickle|local object"):
            engine.submit(lambda: 0).result(60)
        dying = engine.submit(time.sleep, 60)
        second = None
        while not second:
            second = next((child.pid for child in psutil.Process().children() if "serve" in " ".join(child.cmdline())), None)
        time.sleep(0.3)
        os.kill(second, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            dying.result(60)
        assert engine.submit(os.getenv, "OMP_NUM_THREADS").result(60) == os.environ.get("OMP_NUM_THREADS", "1")
    with pytest.raises(RuntimeError, match="shutdown"):
        engine.submit(os.getpid)
    with pytest.raises(ValueError, match="at least 1 worker"):
        Workers(0)


def test_a_worker_that_is_killed_at_work_ends_at_once():
    engine = Workers(1)
    sleeping = engine.submit(time.sleep, 60)
    time.sleep(0.5)
    engine.kill()
    with pytest.raises(WorkerDied):
        sleeping.result(10)


def test_no_worker_outlives_a_killed_sweep():
    program = "import time; from hqnn_utils.sweeps.workers import Workers; import os; e = Workers(1); " + (
        "print(e.submit(os.getpid).result(), flush=True); e.submit(time.sleep, 60); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        process.kill()
    assert until(lambda: not is_alive(worker), 10)


class Dying(Executor):
    """An engine whose workers die of a run."""

    def __init__(self, times: int) -> None:
        self.times = Counter()
        self.most = times

    def submit(self, fn, job, /):
        self.times[job.run.name] += 1
        if job.run.in_force["x"] == 1 and self.times[job.run.name] <= self.most:
            future = Future()
            future.set_exception(WorkerDied("its process ended with SIGKILL"))
            return future
        return Inline().submit(fn, job)


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_kills_its_worker_twice_has_failed(sweep, tmp_path, times):
    done = run(sweep(grid={"x": [1, 2]}), Dying(times))
    assert len(done.finished) == (2 if times == 1 else 1)
    if times == 2:
        ((name, reason),) = done.failed.items()
        assert "tried 2 times: WorkerDied: its process ended with SIGKILL" in reason
        assert results.run_of(tmp_path / "out" / f"{name}.failed.ipynb")["failed"]["error"] == "SweepError"


# -- progress --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


@pytest.mark.parametrize("is_one", [True, False])
def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(sweep, is_one):
    terminal, (first, second) = Terminal(is_one), sweep(grid={"x": [1, 2]}).runs()
    progress = Progress(terminal)
    progress(1, 2, first, jobs.Outcome("finished", "", 1.5))
    progress(2, 2, second, jobs.Outcome("failed", "a trace\ntoy, cell 2: ValueError: no", 0.5))
    said = terminal.getvalue()
    assert ("\r" in said) is is_one and "cell 2: ValueError: no" in said and "x = 2" in said
    assert ("1 of 2" in said) is not is_one and ("2/2" in said) is is_one


def test_durations_are_read_at_a_glance():
    assert [duration(seconds) for seconds in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]
