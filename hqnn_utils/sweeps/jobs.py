"""One run of a sweep, as an executor is given it: executed and kept, unless that was done before, by whoever it was."""

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from hqnn_utils.errors import ChapterError, SweepError
from hqnn_utils.notebooks import parameters, results, runs
from hqnn_utils.notebooks.limits import Limits
from hqnn_utils.sweeps import origins
from hqnn_utils.sweeps.description import Run
from hqnn_utils.sweeps.stores import Store


@dataclass(frozen=True)
class Job:
    """One run, where to keep it, and what is known of earlier attempts."""

    chapter: str
    run: Run
    place: str
    limits: Limits
    retry_failed: bool = False
    wait: bool = False  # for another sweep that executes this run now
    attempt: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    `status` is finished, failed, died (its kernel did), claimed (by another sweep), or stopped (there is no use in going on).
    """

    status: str
    reason: str = ""
    seconds: float = 0.0  # 0 if it was not executed now


def perform(job: Job) -> Outcome:
    """Execute one run and keep it, unless that was done before. This is what an executor calls, wherever it does.

    Raises:
        ChapterError: it cannot be executed or kept here.
    """
    store, name = Store(job.place), job.run.name
    with store.claim(name, job.wait) as mine:
        if not mine:
            return Outcome("claimed")
        if store.has(f"{name}.ipynb"):
            return Outcome("finished")
        if store.has(f"{name}.failed.ipynb"):
            if not job.retry_failed or job.wait:
                failed = json.loads(store.read(f"{name}.failed.ipynb"))["metadata"]["hqnn"]["failed"]
                return Outcome("failed", f"{failed['error']}: {failed['message']}")
            store.remove(f"{name}.failed.ipynb")
        return _executed(job, store)


def _executed(job: Job, store: Store) -> Outcome:
    _check_same(job)
    going, started = execution(job), time.monotonic()
    try:
        going.run(job.limits, progress=False)
    except Exception as error:
        from nbclient.exceptions import DeadKernelError

        seconds, reason = time.monotonic() - started, going.told(error)
        if isinstance(error, DeadKernelError) and job.attempt < 2:
            return Outcome("died", reason, seconds)
        store.write(f"{job.run.name}.failed.ipynb", going.text(error))
        return Outcome("failed", reason, seconds)
    with suppress(ChapterError):  # a sentence is no reason to lose a run
        results.put_numbers(going.notebook)
    store.write(f"{job.run.name}.ipynb", going.text())
    return Outcome("finished", "", time.monotonic() - started)


def _check_same(job: Job) -> None:
    """Raises a SweepError where code or data are not those that the run is named by."""
    if origins.name(_code(job.chapter), job.run.in_force) != job.run.name:
        raise SweepError(
            f"a worker, with {sys.executable}, has another code of {job.chapter} or of the package than the sweep, or other "
            "data: install the same everywhere, and start the sweep again if the code was changed meanwhile"
        )


@cache
def _code(chapter: str) -> str:
    return origins.code(runs.find(chapter))


def execution(job: Job) -> runs.Execution:
    """The run, ready to be executed."""
    path = runs.find(job.chapter)
    noted = {"name": job.run.name, "code": origins.package(), "data": origins.data(job.run.in_force)}
    return runs.Execution(path, parameters.of(path), dict(job.run.given), noted)
