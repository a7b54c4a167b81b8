"""What tests of processes and of sweeps share."""

import resource
import signal
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


def prepared() -> None:
    """Before a command is executed: a shell's background jobs ignore Ctrl-C, and so would their children; no core dumps."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Inline(Executor):
    """Does what is submitted at once."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future
