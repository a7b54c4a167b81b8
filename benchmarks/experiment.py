"""Time the third experiment: features of all photographs, the table of twelve, and all seeds at once against a plain loop.

`make bench-experiment`. What and how: benchmarks/README.md.
"""

import json
import os
import tempfile
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from statistics import median
from time import perf_counter

import click
import pennylane as qml
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hqnn_utils.datasets import backbone, photos
from hqnn_utils.learning import tasks, trained
from hqnn_utils.learning.methods import network, title
from hqnn_utils.quantum.circuits import expval_z, layered

HERE = Path(__file__).parent
PHOTOGRAPHS = ("hymenoptera", "brain_tumor", "chessman")
DIGITS = trained.Settings(epochs=10, batch_size=16, learning_rate=0.003)
PHOTOS = trained.Settings(epochs=10, batch_size=4, learning_rate=0.001)
"""Those of book/experiments/quantum_entanglement."""
METHODS = ("classical", "-Q", "-Q-Ent")


def timed(work) -> float:
    """Seconds that `work()` takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def textbook(n_qubits: int = 4, depth: int = 2) -> nn.Module:
    """The head of ResNet18-Q-Ent with the circuit as a TorchLayer on default.qubit: backpropagation, broadcast."""

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def node(inputs, theta):
        layered(inputs, theta)
        return expval_z(n_qubits)

    model = network("ResNet18", "-Q-Ent", 2, n_qubits, depth)
    model.head.middle = qml.qnn.TorchLayer(node, {"theta": (depth, n_qubits)})
    return model


def loop(task: tasks.Task, steps: int):
    """So many steps of one network, as in any tutorial: batches of four, cross-entropy, Adam."""
    torch.manual_seed(0)
    model = textbook()
    optimiser = torch.optim.Adam(model.parameters(), lr=PHOTOS.learning_rate)

    def run():
        for rows in torch.randperm(len(task.train_labels))[: 4 * steps].split(4):
            optimiser.zero_grad()
            cross_entropy(model(task.train_inputs[rows]), task.train_labels[rows]).backward()
            optimiser.step()

    return run


def per_seed(task: tasks.Task, seeds: int, rounds: int, steps: int = 40) -> dict:
    """A training step of one seed, in seconds: all seeds at once and a plain loop, taking turns."""
    few = replace(task, train_inputs=task.train_inputs[: 4 * steps], train_labels=task.train_labels[: 4 * steps])
    one_epoch = replace(PHOTOS, epochs=1)
    plain = loop(task, steps)
    plain()
    seconds = {"at_once": [], "loop": []}
    for _ in range(rounds):
        took = timed(lambda: trained.train(few, "-Q-Ent", range(seeds), one_epoch))
        seconds["at_once"].append(took / steps / seeds)
        seconds["loop"].append(timed(plain) / steps)
    return {name: {"median_s": median(s), "low_s": min(s), "high_s": max(s)} for name, s in seconds.items()}


@click.command()
@click.option("--seeds", default=30, show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Turns of the comparison with a plain loop.")
@click.option("--threads", default=os.cpu_count(), show_default="all cores", help="Of the features; all else has one.")
def main(seeds: int, rounds: int, threads: int):
    """Time the third experiment, and write experiment.json and experiment.md."""
    torch.set_num_threads(threads)
    sets = [photos.published(name) for name in PHOTOGRAPHS]
    with tempfile.TemporaryDirectory() as folder:
        features_s = timed(lambda: [backbone.features(photographs, cache=Path(folder)) for photographs in sets])
    torch.set_num_threads(1)  # the operations are small: a second thread would mostly wait
    here = [tasks.task("mnist", train_size=1000, test_size=400), *map(tasks.task, PHOTOGRAPHS)]
    os.environ["HQNN_FRESH"] = "1"  # features may have been kept; networks are trained here
    table_s = {}
    for task in here:
        for method in METHODS:
            how = DIGITS if task.body == "LeNet" else PHOTOS
            took = timed(lambda: task.accuracy(trained.train(task, method, range(seeds), how)[0]))  # noqa: B023
            table_s[f"{task.name}: {title(task.body, method)}"] = took
    steps = per_seed(here[1], seeds, rounds)
    ratio = steps["loop"]["median_s"] / steps["at_once"]["median_s"]
    results = {
        "meta": {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "threads": threads,
            "versions": {"python": python_version()} | {name: version(name) for name in ("torch", "pennylane", "hqnn-utils")},
        },
        "photographs": sum(map(len, sets)),
        "features_s": features_s,
        "seeds": seeds,
        "table_s": table_s,
        "step_of_a_seed": steps,
        "loop_over_at_once": ratio,
    }
    (HERE / "experiment.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "experiment.md").write_text(report(results))


def report(results: dict) -> str:
    """The results as a page of Markdown."""
    meta, steps = results["meta"], results["step_of_a_seed"]
    rows = [f"| {name} | {seconds:.1f} |" for name, seconds in results["table_s"].items()]
    return "\n".join(
        [
            "# The third experiment",
            "",
            f"Written by `make bench-experiment` on {meta['date']}: {meta['cores']} cores, {meta['threads']} "
            f"thread{'s' * (meta['threads'] > 1)} for the features and one for all else, "
            + ", ".join(f"{name} {v}" for name, v in meta["versions"].items())
            + ".",
            "",
            f"Features of all {results['photographs']:,} photographs, once: {results['features_s']:.0f} s.",
            "",
            f"| Twelve cells, {results['seeds']} seeds each, from kept features | seconds |",
            "|---|--:|",
            *rows,
            f"| all | {sum(results['table_s'].values()):.0f} |",
            "",
            "| A training step of ResNet18-Q-Ent, batch of 4, for one seed | milliseconds: median (range) |",
            "|---|--:|",
            *(
                f"| {title} | {1e3 * s['median_s']:.3g} ({1e3 * s['low_s']:.3g}–{1e3 * s['high_s']:.3g}) |"
                for title, s in (
                    (f"{results['seeds']} seeds at once", steps["at_once"]),
                    ("a loop over seeds, with TorchLayer", steps["loop"]),
                )
            ),
            f"| the loop takes … times as long | {results['loop_over_at_once']:.0f} |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
