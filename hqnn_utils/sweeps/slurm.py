"""A cluster with SLURM as an `Executor`, by submitit; needs the extra `[cluster]`::

    engines.run(sweep, Slurm(partition="all", time=60, mem="8G"))

Each run is a job of SLURM's; what is submitted together is one array. Jobs that were submitted go on if the sweep is killed,
and the next one finds what they have finished. Folder of the runs, package and data must be the same on all nodes.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from hqnn_utils.errors import SweepError
from hqnn_utils.sweeps.workers import WorkerDied

PATIENCE = 5.0
"""Seconds for the scheduler's answer."""
LOST = 4
"""So many looks at a job that is gone and has left no answer are enough."""
POLL = 0.5
"""Seconds between two looks at the jobs."""


class Slurm(Executor):
    """Jobs of a SLURM cluster, one for each call.

    Args:
        folder: for submitit's files, which all nodes can read and write.
        time: minutes for a job.
        options: of `sbatch`, by their long names with underscores, e.g. `partition="all", mem="8G", cpus_per_task=2`.

    Raises:
        SweepError: submitit is not installed, there is no SLURM here, or its scheduler does not answer within seconds or takes
            no job with such options.
    """

    def __init__(self, folder: str | Path = "runs/slurm", time: int | str = 60, **options: Any) -> None:
        try:
            import submitit
        except ImportError:
            raise SweepError("SLURM needs submitit, which the extra [cluster] installs") from None
        check_reachable()
        if not str(time).isdigit():  # by which submitit tells a job that took too long from one that made room
            raise SweepError(f"the time of a job is a number of minutes, got {time!r}")
        check_options({"time": time} | options)
        self._slurm = submitit.SlurmExecutor(folder=Path(folder).absolute())
        self._slurm.update_parameters(time=int(time), additional_parameters=options)
        self._calls: SimpleQueue = SimpleQueue()
        self._jobs: dict[Future, Any] = {}
        self._lost: dict[Future, int] = {}
        self._closed = False
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As of any executor. A future may raise `workers.WorkerDied`, if a job was killed or its node was lost."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future = Future()
        self._calls.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more, and wait for what was submitted, or cancel it."""
        self._closed = True
        for future, job in list(self._jobs.items()) if cancel_futures else ():
            job.cancel()
            future.cancel()
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        """Submit what is waiting, and tell of what has ended."""
        while not self._closed or self._jobs or not self._calls.empty():
            self._submit_waiting()
            queued = _queued()  # first, so that a job which ends meanwhile has left its answer
            for future, job in list(self._jobs.items()):
                if future.cancelled():
                    job.cancel()
                elif job.paths.result_pickle.exists():
                    _settle(future, job)
                elif queued is not None and job.job_id not in queued:
                    self._lost[future] = self._lost.get(future, 0) + 1
                    if self._lost[future] < LOST:  # a shared file system may be late
                        continue
                    future.set_exception(WorkerDied(f"SLURM's job {job.job_id} ended without an answer"))
                else:
                    continue
                del self._jobs[future]
            time.sleep(POLL)

    def _submit_waiting(self) -> None:
        calls = []
        while True:
            try:
                calls.append(self._calls.get_nowait())
            except Empty:
                break
        calls = [call for call in calls if not call[0].cancelled()]
        if not calls:
            return
        try:
            with self._slurm.batch():  # one array
                submitted = {future: self._slurm.submit(fn, *args, **kwargs) for future, fn, args, kwargs in calls}
            self._jobs |= submitted
        except Exception as error:  # of submitit, and of sbatch
            for future, *_ in calls:
                future.set_exception(SweepError(f"SLURM took no job: {error}"))


def check_reachable() -> None:
    """Raises a SweepError where no SLURM answers within `PATIENCE` seconds."""
    if not (ask := shutil.which("sinfo")) or not shutil.which("sbatch"):
        raise SweepError("there is no SLURM here: sbatch and sinfo are not found; leave --on out to run on this machine")
    try:
        done = subprocess.run([ask, "--noheader"], capture_output=True, text=True, timeout=PATIENCE)
        why = "" if done.returncode == 0 else done.stderr.strip()
    except subprocess.TimeoutExpired:
        why = f"no answer within {PATIENCE:g} s"
    if why:
        raise SweepError(f"the scheduler of SLURM cannot be reached: {why}; nothing was submitted")


def check_options(options: Mapping[str, object]) -> None:
    """Raises a SweepError where SLURM would take no job with these options."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    try:
        test = ["sbatch", "--test-only", *given, "--wrap", "true"]
        done = subprocess.run(test, capture_output=True, text=True, timeout=6 * PATIENCE)
    except subprocess.TimeoutExpired:
        raise SweepError("the scheduler of SLURM does not answer; nothing was submitted") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[0].removeprefix("sbatch: ")
        raise SweepError(f"SLURM takes no job with {' '.join(given)}: {why}; nothing was submitted")


def _queued() -> set[str] | None:
    """The jobs that SLURM still has, as `17` or, of an array, `17_3`; `None` if it does not say.

    Not `sacct`, which many clusters lack, and without which submitit waits for a lost job for ever.
    """
    try:
        done = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


def _settle(future: Future, job: Any) -> None:
    try:
        error = job.exception()
        answer = job.result() if error is None else None
    except Exception as lost:  # submitit cannot say how it ended
        error, answer = lost, None
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
