"""Train the networks of Experiment 2 to the end, and keep what they had right: the table that its chapter reads.

A part of `make results`. The chapter does the training (`long_seeds`); this runs it and writes `data/results/activations.csv`,
one row a network and mark. `right` counts held-out training images; `tested` says in hexadecimal, one bit an image, which test
images were right, after the first epochs at the first rate and at the end with the rate that did best on held-out images.
"""

import tempfile
from pathlib import Path

import pandas as pd

from hqnn_utils import files
from hqnn_utils.notebooks import results, runs

NETWORKS = 5
SETTINGS = {"dataset": "dataset", "n_small": "small_size", "long_epochs": "long_epochs"}
"""Result of the chapter → the column of the table, by which the chapter knows whether the table fits its parameters."""


def rows(notebook: dict) -> pd.DataFrame:
    """What an executed chapter recorded of each seed, a row a network and mark."""
    found: dict[tuple, dict] = {}
    for name, of_seed in results.of_seeds_in(notebook).items():
        quantity, activation, rate, epoch = name.split("_")
        for seed, result in of_seed.items():
            key = dict(activation=activation, rate=float(rate), seed=seed, epoch=int(epoch))
            found.setdefault(tuple(key.values()), key | {"tested": ""})[quantity] = result.value
    return pd.DataFrame([found[key] for key in sorted(found)])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "quantum_activation.ipynb"
        runs.run("quantum_activation", {"long_seeds": str(NETWORKS)}, output)
        notebook = files.read_notebook(output)
    recorded, given = results.in_notebook(notebook), results.run_in(notebook)["parameters"]
    table = rows(notebook).assign(**{column: recorded[name].value for name, column in SETTINGS.items()})
    table = table.assign(batch_size=given["batch_size"], optimizer=given["optimizer"])
    table.to_csv(files.place("data/results/activations.csv"), index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
