"""Time a sweep of many small runs: against a plain loop with papermill, one worker against two, and the reading of its table.

`make bench-sweep`. What and how: benchmarks/README.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from time import perf_counter

import click

from hqnn_utils.sweeps import collected, engines
from hqnn_utils.sweeps.description import Run, Sweep
from hqnn_utils.sweeps.jobs import Outcome

HERE = Path(__file__).parent
CELLS = """theta: float = 0.1  # angle, in [0, 10]
seed: int = 0  # in [0, 100000]
---
import pennylane as qml
import torch

from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import record
from hqnn_utils.quantum.layers import QuantumLayer

check_parameters(globals())
---
torch.manual_seed(seed)
layer = QuantumLayer(4, 2)
x = torch.full((32, 4), theta)
loss = layer(x).sum()
loss.backward()
---
record({"loss": loss.item(), "theta": theta})
"""


def chapter(folder: Path) -> Path:
    """A small chapter as they are: it imports torch, PennyLane and the package, and takes one step of a quantum layer."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell(source.strip()) for source in CELLS.split("---")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "step.ipynb")
    return folder / "step.ipynb"


def swept(sweep: Sweep, workers: int) -> dict:
    """Seconds of a whole sweep, its start included, and of its runs between the first and the last."""
    ends: list[float] = []

    def report(ended: int, of: int, run: Run, outcome: Outcome) -> None:
        ends.append(perf_counter())

    started = perf_counter()
    summary = engines.run(sweep, workers=workers, report=report)
    whole = perf_counter() - started
    assert len(summary.finished) == summary.executed == len(ends)
    steady = (ends[-1] - ends[workers - 1]) / (len(ends) - workers)  # without the workers' start
    return {"workers": workers, "runs": len(ends), "seconds": whole, "seconds_a_run_when_started": steady}


def looped(path: Path, folder: Path, runs: int) -> float:
    """Seconds a run of papermill's own command, one after the other, as a shell loop has it."""
    started = perf_counter()
    for seed in range(runs):
        command = [sys.executable, "-m", "papermill", str(path), str(folder / f"{seed}.ipynb"), "-p", "seed", str(seed)]
        subprocess.run([*command, "--no-progress-bar"], check=True, capture_output=True)
    return (perf_counter() - started) / runs


def read(place: Path, runs: int) -> dict:
    """Seconds to read so many runs into a table, copies of those that are there."""
    with tempfile.TemporaryDirectory() as folder:
        known = [path for path in sorted(place.glob("*.ipynb"))]
        for number in range(runs):
            shutil.copy(known[number % len(known)], Path(folder) / f"{number:016x}.ipynb")
        started = perf_counter()
        table = collected.long(folder)
        seconds = perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        return {"runs": runs, "rows": len(table), "megabytes": size / 1e6, "seconds": seconds}


@click.command()
@click.option("--runs", default=200, help="Of the sweep.")
@click.option("--loop", default=10, help="Of papermill's loop, from which the time of as many as the sweep has is computed.")
@click.option("--table", default=1000, help="Runs that are read into a table.")
@click.option("--output", default=str(HERE / "sweeps.json"), help="Where to write the result.")
def main(runs: int, loop: int, table: int, output: str) -> None:
    """Time everything once, in one run on one machine."""
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        path = chapter(folder)
        sweep = Sweep(chapter=str(path), seeds=runs, output=str(folder / "two"))
        two = swept(sweep, 2)
        one = swept(replace(sweep, seeds=max(runs // 4, 2), output=str(folder / "one")), 1)
        a_run = looped(path, folder, loop)
        found = {
            "sweep": two,
            "one_worker": one,
            "papermill_loop": {"runs_measured": loop, "seconds_a_run": a_run, "seconds": a_run * runs},
            "times_faster_than_the_loop": a_run * runs / two["seconds"],
            "times_faster_with_two_workers": one["seconds_a_run_when_started"] / two["seconds_a_run_when_started"],
            "table": read(folder / "two", table),
        }
    versions = {"python": python_version()} | {name: version(name) for name in ("torch", "pennylane", "papermill", "pandas")}
    found |= {"date": f"{date.today()}", "cores": os.cpu_count(), "load_at_the_end": os.getloadavg()[0], "versions": versions}
    Path(output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
