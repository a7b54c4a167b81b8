"""Processes of this machine as an `Executor`: each does one thing at a time, with warm kernels and one thread.

Unlike the pool of the standard library, this one knows what a process was doing when it died: that alone fails, and a new
process goes on with the rest. No process outlives the one that started it, however that ends.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import IO, Any

from hqnn_utils.notebooks import kernels

# As in `kernels`: its folder is no place to import from.
PROGRAM = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import serve; serve(int(sys.argv[1]))"


class WorkerDied(BrokenExecutor):
    """A process ended before it had done what it was given; nothing else is lost."""


class Workers(Executor):
    """So many processes, each started when it is first needed.

    Args:
        number: of processes, at least 1, else a ValueError.
    """

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"at least 1 worker is needed, got {number}")
        self._tasks: SimpleQueue = SimpleQueue()
        self._running: set[subprocess.Popen] = set()
        self._closed, self._killed, self._lock = False, False, Lock()
        self._threads = [Thread(target=self._hand_out, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As of any executor; function and arguments are pickled. A future may raise `WorkerDied`."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future = Future()
        self._tasks.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when they have done what was submitted; with `cancel_futures` only what they are doing now."""
        self._closed = True
        while cancel_futures and not self._tasks.empty():
            if task := self._tasks.get():
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def kill(self) -> None:
        """End the processes and their kernels now; what they were doing fails."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._killed = True
            for process in self._running:
                process.kill()

    def _hand_out(self) -> None:
        """One process after another does what is submitted. Each thread does this for one process."""
        process = None
        while task := self._tasks.get():
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                process = process or self._start()
                succeeded, answer = _asked(process, call)
            except (EOFError, OSError):
                succeeded, answer = False, WorkerDied(f"its process ended with {_ending(self._end(process))}")
                process = None
            except BaseException as error:  # what cannot be pickled
                succeeded, answer = False, error
            (future.set_result if succeeded else future.set_exception)(answer)
        if process:
            self._end(process)

    def _start(self) -> subprocess.Popen:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with self._lock:
            if self._killed:
                raise EOFError
            # Ctrl-C in a terminal is for who started it.
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(os.getpid())], **pipes, start_new_session=True)  # type: ignore[call-overload]
            self._running.add(process)
        return process

    def _end(self, process: Any) -> int | None:
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()
        self._running.discard(process)
        return process.wait()


def _asked(process: Any, call: tuple) -> tuple[bool, Any]:
    """What a process answers: whether it could do it, and what it returned or raised."""
    process.stdin.write(pickle.dumps(call))
    process.stdin.flush()
    return pickle.load(process.stdout)


def _ending(code: int | None) -> str:
    with suppress(ValueError, TypeError):
        return signal.Signals(-code).name  # type: ignore[operator]
    return f"exit code {code}"


def serve(parent: int) -> None:
    """Do what comes through standard input, one after the other, in a process that `Workers` started; ends with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            return
    answers: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a kernel or a library prints is no answer
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a second thread would wait for the other workers
    kernels.start()
    while True:
        try:
            fn, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, fn(*args, **kwargs)
        except Exception as error:
            answer = False, error
        answers.write(pickle.dumps(answer))
        answers.flush()
