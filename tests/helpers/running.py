"""What tests of processes and of sweeps share."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

import psutil


def until(condition: Callable[[], object], seconds: float = 120) -> bool:
    """Whether the condition comes true in this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.02)
    return bool(condition())


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only until its parent takes notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Inline(Executor):
    """Does what is submitted at once."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future
