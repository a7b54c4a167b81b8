"""How far a sweep is: a bar with the time left in a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm

from hqnn_utils.sweeps.description import Run, told
from hqnn_utils.sweeps.jobs import Outcome


class Progress:
    """Tells of each run of a sweep when it has ended; see `engines.Report`.

    Args:
        stream: a file to write to, by default standard error.
    """

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._started, self._before = time.monotonic(), 0

    def __call__(self, ended: int, of: int, run: Run, outcome: Outcome) -> None:
        """One run has ended: the `ended`th of `of`."""
        self._before += not outcome.seconds  # finished before: says nothing of the time left
        if not self._stream.isatty():
            if outcome.seconds or ended == of:
                self._stream.write(self._line(ended, of, run, outcome))
                self._stream.flush()
            return
        self._bar = self._bar or tqdm(total=of, unit="run", file=self._stream)
        if outcome.status != "finished" and outcome.seconds:
            self._bar.write(f"failed: {told(run.own)}: {_last(outcome.reason)}", file=self._stream)
        self._bar.update(ended - self._bar.n)
        if ended == of:
            self._bar.close()

    def _line(self, ended: int, of: int, run: Run, outcome: Outcome) -> str:
        took = f" in {outcome.seconds:.1f} s" if outcome.seconds else " before"
        why = f": {_last(outcome.reason)}" if outcome.reason else ""
        left = (time.monotonic() - self._started) / max(ended - self._before, 1) * (of - ended)
        return f"{ended} of {of}: {run.name} {outcome.status}{took}, {told(run.own)}{why}; {duration(left)} left\n"


def _last(reason: str) -> str:
    return reason.strip().rpartition("\n")[2]


def duration(seconds: float | int) -> str:
    """A time as a reader wants it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
