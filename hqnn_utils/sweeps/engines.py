"""Executes a sweep: by processes of this machine, or by any `concurrent.futures.Executor`, which may be a cluster's.

On this machine, on a cluster with SLURM (`sweeps.slurm`), and where Dask runs: on Kubernetes, or in a cloud::

    engines.run(Sweep.read(Path("depth.toml")))
    engines.run(sweep, Slurm(partition="all"))
    engines.run(sweep, dask.distributed.Client("tcp://…").get_executor())

A run is finished when its executed notebook is in its place, `NAME.ipynb`; it is never executed again. What failed is kept as
`NAME.failed.ipynb`. Whatever ends a sweep, the same call goes on where it stopped.
"""

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from hqnn_utils.errors import ChapterError, SweepError
from hqnn_utils.notebooks import runs
from hqnn_utils.notebooks.limits import Limits
from hqnn_utils.sweeps import origins
from hqnn_utils.sweeps.description import Run, Sweep, expected_seconds
from hqnn_utils.sweeps.jobs import Job, Outcome, execution, perform
from hqnn_utils.sweeps.progress import Progress, duration
from hqnn_utils.sweeps.stores import INDEX, Store
from hqnn_utils.sweeps.workers import Workers


@dataclass
class Summary:
    """How a sweep ended: the names of finished runs, why others failed, and how many were executed now."""

    place: str
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    executed: int = 0

    def __str__(self) -> str:
        return f"{len(self.finished)} finished, {len(self.failed)} failed, {self.executed} executed now, in {self.place}"


Report = Callable[[int, int, Run, Outcome], None]
"""Told after each run: how many have ended, of how many, which one, and how."""


def run(
    sweep: Sweep,
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    retry_failed: bool = False,
    report: Report | None = None,
) -> Summary:
    """Execute every run of a sweep that is not finished yet.

    A run whose worker or kernel dies is tried once more; after that it has failed. The sweep goes on after a failed run.

    Args:
        executor: runs the jobs; by default processes of this machine, which end with the sweep.
        workers: how many of these, by default one a core.
        limits: of a run.
        retry_failed: try again what failed before.
        report: as `Report`, by default a `Progress`.

    Raises:
        ChapterError, ParameterError: as `Sweep.runs`, before anything starts.
        SweepError: the folder is another sweep's; or a run could not be kept, or not be executed anywhere.
    """
    wanted = sweep.runs()
    store = Store(sweep.place)
    with store.claim("sweep", wait=True):  # of two that start at once, one writes the index
        check(store, there := store.names(), index := _index(sweep, wanted))
        if INDEX not in there:
            store.write(INDEX, json.dumps(index, indent=1) + "\n")
    shared = (_portable(sweep.path), store.place, limits, retry_failed)
    jobs = [Job(shared[0], run, *shared[1:]) for run in wanted]
    own = executor is None
    engine = Workers(min(workers or cores(), len(jobs))) if executor is None else executor
    waiting: dict[Future, Job] = {}
    try:
        summary = _ended(engine, jobs, waiting, store, report or Progress())
    except BaseException as error:
        error.add_note("What is finished is kept, and the same command goes on from there.")
        for future in waiting:
            future.cancel()
        if isinstance(engine, Workers) and own:
            engine.kill()
        raise
    if own:
        engine.shutdown()
    if not summary.failed:
        store.clear_claims()
    return summary


def plan(sweep: Sweep, workers: int | None = None) -> str:
    """What a sweep would do, in a sentence: how many runs, and how long they take as far as that is known.

    Raises:
        ChapterError, ParameterError, SweepError: as `run` would before it starts.
    """
    wanted, store = sweep.runs(), Store(sweep.place)
    there = store.names()
    check(store, there, _index(sweep, wanted))
    finished = [run.name for run in wanted if f"{run.name}.ipynb" in there]
    failed = sum(f"{run.name}.failed.ipynb" in there for run in wanted)
    known = [_seconds(store, name) for name in finished]
    seconds, left = expected_seconds(sweep, known), len(wanted) - len(finished)
    told = f"{len(wanted)} runs of {sweep.path.stem}, {len(finished)} finished, {failed} failed before"
    if not left or seconds is None:
        return f"{told}; how long one takes is not known" if left else told
    at_once = min(workers or cores(), left)
    source = "as the finished ones took" if known else "as the chapter's own run took, with its own parameters"
    takes = f"the rest takes about {duration(left * seconds / at_once)}, {at_once} at a time"
    return f"{told}; {takes} ({seconds:.1f} s a run, {source})"


def _seconds(store: Store, name: str) -> float:
    return json.loads(store.read(f"{name}.ipynb"))["metadata"]["hqnn"]["wall_time_s"]


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check(store: Store, there: set[str], index: dict) -> None:
    """Make sure that a folder is nobody's, or this sweep's.

    Raises:
        SweepError: it is another's, or holds other notebooks.
    """
    if INDEX in there:
        other = json.loads(store.read(INDEX))
        if other["runs"].keys() != index["runs"].keys():
            same = other["chapter"] == index["chapter"] and _parameters(other) == _parameters(index)
            why = "this sweep with another code of chapter or package, or other data" if same else "another sweep"
            raise SweepError(f"{store.place} holds the runs of {why}: choose another output, or remove it")
    elif any(name.endswith(".ipynb") for name in there):
        raise SweepError(f"{store.place} holds notebooks that are of no sweep: choose another output")


def _index(sweep: Sweep, wanted: list[Run]) -> dict:
    """What a sweep writes into its folder, to be known by."""
    return {
        "chapter": sweep.path.stem,
        "versions": {"hqnn-utils": version("hqnn-utils"), "code": origins.package()},
        "runs": {run.name: {"parameters": dict(run.in_force), "data": origins.data(run.in_force)} for run in wanted},
    }


def _parameters(index: Mapping) -> list[str]:
    return sorted(json.dumps(run["parameters"], sort_keys=True) for run in index["runs"].values())


def _portable(path: Path) -> str:
    """A chapter as another machine finds it."""
    return path.relative_to(runs.BOOK).as_posix() if path.is_relative_to(runs.BOOK) else str(path.absolute())


def _ended(engine: Executor, jobs: list[Job], waiting: dict[Future, Job], store: Store, report: Report) -> Summary:
    """Submit all jobs, those that must be tried again, and at last those that another sweep had claimed."""
    summary, claimed = Summary(store.place), list[Job]()
    waiting |= {_submit(engine, job): job for job in jobs}
    while waiting:
        done = wait(waiting, return_when=FIRST_COMPLETED).done
        for future in [future for future in waiting if future in done]:  # in the order of the runs
            job = waiting.pop(future)
            outcome = _outcome(future)
            if outcome.status == "claimed":
                claimed.append(replace(job, wait=True))
                continue
            if outcome.status == "stopped":
                ready = f"{len(summary.finished)} runs are finished and kept in {store.place}"
                raise SweepError(f"{outcome.reason}\nThe sweep ends here; {ready}. Start it again to go on.")
            if outcome.status == "died" and job.attempt < 2:
                again = replace(job, attempt=job.attempt + 1)
                waiting[_submit(engine, again)] = again
                continue
            if outcome.status == "died":  # and with it whatever would have kept a notebook
                outcome = _give_up(job, store, outcome)
            _count(summary, job.run, outcome)
            report(len(summary.finished) + len(summary.failed), len(jobs), job.run, outcome)
        if not waiting:
            waiting |= {_submit(engine, job): job for job in claimed}
            claimed = []
    return summary


def _submit(engine: Executor, job: Job) -> Future:
    try:
        return engine.submit(perform, job)
    except BrokenExecutor as error:
        raise SweepError(f"the executor is broken ({error}); what is finished is kept: start the sweep again") from None


def _outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except (ChapterError, CancelledError) as error:
        return Outcome("stopped", str(error) or "the executor was closed")
    except Exception as error:  # a worker that died, by whatever name its engine has for it
        return Outcome("died", f"{type(error).__name__}: {error}")


def _give_up(job: Job, store: Store, outcome: Outcome) -> Outcome:
    """Keep a run that ended twice without leaving a notebook."""
    reason = f"{Path(job.chapter).stem}: tried {job.attempt} times: {outcome.reason}"
    with store.claim(job.run.name, wait=True):
        if store.has(f"{job.run.name}.ipynb"):
            return Outcome("finished")
        store.write(f"{job.run.name}.failed.ipynb", execution(job).text(SweepError(reason)))
    return Outcome("failed", reason)


def _count(summary: Summary, run: Run, outcome: Outcome) -> None:
    summary.executed += outcome.seconds > 0
    if outcome.status == "finished":
        summary.finished.append(run.name)
    else:
        summary.failed[run.name] = outcome.reason
