"""How long a cell and a run may take, and how much memory a run may have."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

try:
    import resource
except ImportError:  # not on every system
    resource = None  # type: ignore[assignment]

FULL_S = 10.0
"""Seconds that a kernel may go on with no memory left. What has none for its own messages may never answer again."""
ROOM = 16e6
"""Bytes: whoever has fewer left cannot start a thread or import a module."""


@dataclass(frozen=True)
class Limits:
    """What a run may use; 0 is as much as it wants.

    Args:
        cell_s: seconds for one cell.
        run_s: seconds for all cells together.
        memory_gb: GB (10⁹ bytes) of data of its kernel, on Linux; at its start it has about one. What is too much is refused
            to the cell that asks for it, and a kernel that stays full is ended.

    A number that is negative or not finite is a ValueError.
    """

    cell_s: float | int = 0
    run_s: float | int = 0
    memory_gb: float | int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the limit {name} must be a positive number, or 0 for none, got {value}")

    def __str__(self) -> str:
        parts = [f"{self.cell_s:g} s a cell"] * bool(self.cell_s) + [f"{self.run_s:g} s a run"] * bool(self.run_s)
        return " and ".join(parts + [f"{self.memory_gb:g} GB"] * bool(self.memory_gb)) or "none"

    def clock(self) -> Callable[[object], float | None]:
        """A function that says before each cell how many seconds it may take; the run begins now."""
        end = time.monotonic() + (self.run_s or math.inf)

        def left(cell: object) -> float | None:
            seconds = float(min(self.cell_s or math.inf, max(end - time.monotonic(), 0.01)))
            return seconds if math.isfinite(seconds) else None

        return left

    def hold(self, process: int) -> None:
        """Limit the memory of a process, by its number; does nothing without a limit, and where a system has none."""
        # Not the address space, most of which a kernel never touches.
        if self.memory_gb and hasattr(resource, "prlimit"):
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                resource.prlimit(process, resource.RLIMIT_DATA, (int(self.memory_gb * 1e9),) * 2)
                if (held := psutil.Process(process)).memory_info().data > self.memory_gb * 1e9 + 4 * ROOM:
                    return held.kill()  # now, since a fork may finish before it asks for more
                threading.Thread(target=self._end_when_full, args=[process], daemon=True).start()

    def _end_when_full(self, number: int) -> None:
        """Kill a process whose memory has been full for a while; returns when it is gone."""
        with suppress(psutil.NoSuchProcess):
            process, since = psutil.Process(number), time.monotonic()
            while time.monotonic() - since < FULL_S:
                if process.memory_info().data < self.memory_gb * 1e9 - ROOM:
                    since = time.monotonic()
                time.sleep(FULL_S / 20)
            process.kill()
