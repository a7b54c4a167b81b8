"""Time the quantum layer against everything else, all in one run: `make bench`. What and how: benchmarks/README.md."""

import json
import os
import random
import subprocess
import sys
from datetime import date
from math import floor, log10
from pathlib import Path
from statistics import median

import click
from systems import FLOOR, MODELS, SYSTEMS, TEXTBOOK

HERE = Path(__file__).parent
PYTHONS = {"main": Path(sys.executable), "peers": HERE.parent / ".venv-peers" / "bin" / "python"}

BURST = 0.04
"""Seconds that a system is timed for in a round, or one step if that takes longer."""
LIMIT = 20.0
"""A system whose step takes more seconds than this, or would by how it grew, is left out of a setting."""
PATIENCE = 6.0
"""A system that has been timed for so many seconds in a setting is done with it, even if rounds are left."""

LEFT_OUT = [
    (
        "TorchQuantum",
        "0.1.8 needs qiskit < 1, and as installed does not import: it wants qiskit_ibm_runtime without requiring it",
    ),
]

SETTINGS = [
    *(("batch", "layer", {"n": 4, "depth": 2, "batch": batch}) for batch in (1, 4, 32, 256, 1024)),
    *(("width", "layer", {"n": n, "depth": 2, "batch": 32}) for n in (2, 4, 6, 8, 10, 12, 14)),
    *(("depth", "layer", {"n": 4, "depth": depth, "batch": 32}) for depth in (1, 2, 4, 8, 16)),
    ("head", "head", {"n": 4, "depth": 2, "batch": 4}),
    ("models", "models", {"n": 4, "depth": 2, "batch": 4}),
]
"""Case in the results, kind of step, size."""
QUICK = [setting for setting in SETTINGS if setting[0] in ("head", "models") or setting[2]["batch"] in (4, 32)]
QUICK = [setting for setting in QUICK if setting[2]["n"] in (2, 4, 8) and setting[2]["depth"] == 2]

CHOICES = [
    *(("WHOLE_WIRES", (0, 99), {"n": n, "depth": 2, "batch": 32}) for n in (6, 7, 8)),
    *(("BLOCK_WIRES", range(1, 9), {"n": n, "depth": 2, "batch": 32}) for n in (8, 12, 14)),
    *(("TABLE_ANGLES", (5, 8, 10), {"n": n, "depth": depth, "batch": 32}) for n, depth in ((2, 3), (4, 2), (3, 3), (5, 2))),
    *(("TABLE_ENTRIES", (2**12, 2**14, 2**16, 2**18), {"n": n, "depth": depth, "batch": 32}) for n, depth in ((5, 4), (6, 4))),
]
"""Constant of `hqnn_utils.quantum.fusion`, the values it is timed at, size."""

CAPTIONS = {
    "batch": ("Batch, with n = 4 and depth 2", "batch"),
    "width": ("Width n, with depth 2 and a batch of 32", "n"),
    "depth": ("Depth, with n = 4 and a batch of 32", "depth"),
    "head": ("A training step of the head: Linear 512 → 4, tanh·π/2, layer, Linear 4 → 2, cross-entropy, Adam", "batch"),
    "models": (f"{MODELS} QuantumLayers at once, time for each of them, against one call of one of the others", "batch"),
}


class Worker:
    """A process of one environment that times its systems; see worker.py."""

    def __init__(self, python: Path):
        self.python = python
        self.start()

    def start(self):
        command = [self.python, HERE / "worker.py"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if not (line := self.process.stdout.readline()):
            raise click.ClickException("a worker does not start; see why: " + " ".join(map(str, command)))
        self.about = json.loads(line)

    def seconds(self, **request) -> list[float]:
        """Times of the repetitions of a step. Raises RuntimeError with the reason if there are none."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.start()
            raise RuntimeError("its process ended, perhaps for want of memory")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def runs(kind: str) -> dict[str, tuple[str, int]]:
    """The systems that can take a kind of step, the step each is timed in, and among how many models its time is shared."""
    if kind == "models":
        return {FLOOR: ("layer", 1), "statevector": ("models", MODELS), TEXTBOOK: ("layer", 1)}
    return {name: (kind, 1) for name, system in SYSTEMS.items() if kind == "layer" or system.torch}


def measure(workers: dict, kind: str, size: dict, rounds: int, skip: set, dropped: dict) -> dict[str, list[float]]:
    """Median seconds of a step in each round, for each system that can take it; all of them take turns in every round."""

    def burst(name: str, repeats: int) -> list[float]:
        step, models = runs(kind)[name]
        seconds = workers[SYSTEMS[name].environment].seconds(system=name, case=step, **size, repeats=repeats)
        return [second / models for second in seconds]

    repeats, medians, spent = {}, {}, {}
    for name in runs(kind):
        if SYSTEMS[name].environment in workers and name not in skip:
            try:
                (first,) = burst(name, 1)
            except RuntimeError as error:
                dropped[name, str(error)] = None
                continue
            if first < LIMIT:
                repeats[name] = max(1, min(100, int(BURST / first)))
                # A step longer than a burst is a round already.
                medians[name], spent[name] = [first] if first > BURST else [], first
    for _ in range(rounds):
        for name in random.sample(list(repeats), len(repeats)):
            if spent[name] < PATIENCE:
                seconds = burst(name, repeats[name])
                spent[name] += sum(seconds)
                medians[name].append(median(seconds))
    return medians


def summary(seconds: list[float]) -> dict:
    """What the results say of the medians of the rounds."""
    return {
        "median_s": median(seconds),
        "low_s": min(seconds),
        "high_s": max(seconds),
        "rounds": len(seconds),
        "seconds": seconds,
    }


def choices(worker: Worker, rounds: int) -> list[dict]:
    """Our engine with its constants at other values; the values of one constant take turns."""
    rows = []
    for constant, values, size in CHOICES:
        click.echo(f"{constant}: " + ", ".join(f"{k} = {v}" for k, v in size.items()), err=True)

        def burst(value: int, repeats: int, constant=constant, size=size) -> list[float]:
            chosen = {"constant": constant, "value": value}
            return worker.seconds(system="statevector", case="choice", **size, **chosen, repeats=repeats)

        repeats = {value: max(1, min(100, int(BURST / burst(value, 2)[1]))) for value in values}
        medians = {value: [] for value in values}
        for _ in range(rounds):
            for value in random.sample(list(values), len(values)):
                medians[value].append(median(burst(value, repeats[value])))
        rows += [{"constant": constant, "value": value, **size, **summary(medians[value])} for value in values]
    return rows


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 2 - floor(log10(value)))}f}"


def tables(rows: list[dict], case: str) -> str:
    """One case in Markdown: milliseconds, and the two ratios."""
    caption, key = CAPTIONS[case]
    cells = {(row["system"], row[key]): row for row in rows if row["case"] == case}
    sizes = sorted({size for _, size in cells})

    def ratio(name, to, size):
        return cells[name, size]["median_s"] / cells[to, size]["median_s"]

    def milliseconds(name, size):
        low, mid, high = (number(1e3 * cells[name, size][which]) for which in ("low_s", "median_s", "high_s"))
        return f"{mid} ({low}–{high})"

    lines = [f"## {caption}"]
    for title, cell in (
        ("Milliseconds: median (range over the rounds)", milliseconds),
        ("Times as long as nn.Linear", lambda name, size: number(ratio(name, FLOOR, size))),
        ("TorchLayer takes … times as long", lambda name, size: number(ratio(TEXTBOOK, name, size))),
    ):
        lines += [
            "",
            " | ".join([f"| {title}", *(f"{key} = {size}" for size in sizes)]) + " |",
            "|---" + "|--:" * len(sizes) + "|",
        ]
        for name in dict.fromkeys(name for name, _ in cells):
            shown = [cell(name, size) if (name, size) in cells else "–" for size in sizes]
            lines.append(" | ".join([f"| {SYSTEMS[name].label}", *shown]) + " |")
    return "\n".join(lines)


def choices_table(rows: list[dict]) -> str:
    """The constants of our engine in Markdown."""
    lines = ["## Our engine with its constants at other values", ""]
    lines += ["| constant | n | depth | value: milliseconds, median |", "|---|--:|--:|---|"]
    groups = {}
    for row in rows:
        shown = f"{row['value']}: {number(1e3 * row['median_s'])}"
        groups.setdefault((row["constant"], row["n"], row["depth"]), []).append(shown)
    lines += [f"| {constant} | {n} | {depth} | {', '.join(shown)} |" for (constant, n, depth), shown in groups.items()]
    return "\n".join(lines)


def report(results: dict) -> str:
    """The results as a page of Markdown."""
    meta = results["meta"]
    said = (
        f"Written by `make bench` on {meta['date']}: {meta['cores']} cores, one thread, Python {meta['python']}.\n"
        "The times hold for that machine and hour; the ratios are what to quote.\n"
        f"–: not run, as a step would take over {LIMIT:.0f} s, or for a reason given at the end."
    )
    cases = dict.fromkeys(row["case"] for row in results["rows"])
    versions = (f"- {where}: " + ", ".join(f"{k} {v}" for k, v in about.items()) for where, about in meta["versions"].items())
    dropped = (f"- {drop['system']}: {drop['why']}" for drop in results["dropped"])
    parts = ["# Results", said, *(tables(results["rows"], case) for case in cases)]
    parts += [choices_table(results["choices"])] if results["choices"] else []
    parts += ["## Versions", "\n".join(versions), "## Left out", "\n".join(dropped)]
    return "\n\n".join(parts) + "\n"


@click.command()
@click.option("--rounds", default=15, show_default=True, help="How often every system has its turn in each case.")
@click.option("--quick", is_flag=True, help="A few cases and rounds; prints the tables and writes nothing.")
def main(rounds: int, quick: bool):
    """Time the quantum layer against everything else, and write results.json and results.md."""
    rounds, settings = (3, QUICK) if quick else (rounds, SETTINGS)
    dropped = dict.fromkeys(LEFT_OUT)
    workers = {where: Worker(python) for where, python in PYTHONS.items() if python.exists()}
    if "peers" not in workers:
        click.echo("The peers' environment is not there, so only our own is timed: make peers", err=True)
        dropped |= {(name, "make peers was not run"): None for name in SYSTEMS if SYSTEMS[name].environment == "peers"}
    measured, rows = {}, []
    for case, kind, size in settings:
        key = (kind, *size.values())
        if key not in measured:  # three cases meet in one setting
            click.echo(f"{case}: " + ", ".join(f"{k} = {v}" for k, v in size.items()), err=True)
            # Sizes grow fourfold: what is near the limit now would be over it next.
            skip = {row["system"] for row in rows if row["case"] == case and row["median_s"] > LIMIT / 4}
            measured[key] = measure(workers, kind, size, rounds, skip, dropped)
        for name, seconds in measured[key].items():
            rows.append({"case": case, "system": name, **size, **summary(seconds)})
    chosen = [] if quick else choices(workers["main"], rounds)
    for worker in workers.values():
        worker.stop()
    abouts = {where: worker.about for where, worker in workers.items()}
    results = {
        "meta": {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "threads": abouts["main"]["threads"],
            "python": abouts["main"]["python"],
            "burst_s": BURST,
            "labels": {name: system.label for name, system in SYSTEMS.items()},
            "versions": {where: about["versions"] for where, about in abouts.items()},
        },
        "rows": rows,
        "choices": chosen,
        "dropped": [{"system": name, "why": why} for name, why in dropped],
        "usable_from_torch": {name: system.torch for name, system in SYSTEMS.items()},
    }
    if quick:
        click.echo(report(results))
    else:
        (HERE / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        (HERE / "results.md").write_text(report(results))


if __name__ == "__main__":
    main()
