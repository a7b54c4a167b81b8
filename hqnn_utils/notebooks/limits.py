"""How long a cell and a run may take, and how much memory a run may have."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

try:
    import resource
except ImportError:  # not on every system
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Limits:
    """What a run may use; 0 is as much as it wants.

    Args:
        cell_s: seconds for one cell.
        run_s: seconds for all cells together.
        memory_gb: GB (10⁹ bytes) of data of its kernel, on Linux. What is too much is refused to the cell that asks for it.

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
            with suppress(ProcessLookupError):
                resource.prlimit(process, resource.RLIMIT_DATA, (int(self.memory_gb * 1e9),) * 2)
