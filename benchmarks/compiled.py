"""What `torch.compile` makes of a network with a quantum layer, and of its classical twin: `python benchmarks/compiled.py`.

A step is one forward and backward pass. Networks, compiled and not, take turns in random order in one process of one thread;
a number is the median over the rounds of the processor time of that thread, which other processes do not lengthen by waiting.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import thread_time

import click
import torch
from torch import nn

from hqnn_utils.quantum.layers import QuantumLayer

MIDDLES: dict[str, Callable[[], nn.Module]] = {"quantum": lambda: QuantumLayer(4, 2), "classical": lambda: nn.Linear(4, 4)}
BATCHES = 4, 1024
BURST = 5
"""Steps of one turn."""


def steps(middle: str, batch: int, backend: str) -> dict[str, Callable[[], torch.Tensor]]:
    """The step of one network, eager and compiled: functions that return the gradient of its input."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), MIDDLES[middle](), nn.Linear(4, 2))
    x = torch.randn(batch, 8, requires_grad=True)
    ways = {"eager": network, "compiled": torch.compile(network, backend=backend, dynamic=False)}
    return {way: lambda run=run: torch.autograd.grad(run(x).sum(), (x, *network.parameters()))[0] for way, run in ways.items()}


def measure(rounds: int, backend: str) -> list[dict]:
    """Microseconds of every network at every batch, and how many times as long the compiled one takes."""
    rows = []
    for batch in BATCHES:
        every = {(middle, way): step for middle in MIDDLES for way, step in steps(middle, batch, backend).items()}
        for middle in MIDDLES:
            torch.testing.assert_close(every[middle, "compiled"](), every[middle, "eager"]())
        seconds: dict[tuple[str, str], list[float]] = {name: [] for name in every}
        for _ in range(rounds):
            for name in random.sample(list(every), len(every)):
                every[name]()  # the others have had the caches meanwhile
                start = thread_time()
                for _ in range(BURST):
                    every[name]()
                seconds[name].append((thread_time() - start) / BURST)
        for middle in MIDDLES:
            eager, compiled = (1e6 * median(seconds[middle, way]) for way in ("eager", "compiled"))
            rows.append(
                {"middle": middle, "batch": batch, "eager_us": eager, "compiled_us": compiled, "ratio": compiled / eager}
            )
    return rows


@click.command()
@click.option("--rounds", default=200, show_default=True, help="How often every network has its turn.")
@click.option("--backend", default="inductor", show_default=True, help="Of torch.compile; inductor needs a C++ compiler.")
def main(rounds: int, backend: str) -> None:
    """Time the networks, print the table and write compiled.json."""
    torch.set_num_threads(1)
    rows = measure(rounds, backend)
    for row in rows:
        click.echo(
            f"{row['middle']:>9}, batch {row['batch']:>4}: {row['eager_us']:.0f} µs eager, {row['compiled_us']:.0f} µs "
            f"compiled, {row['ratio']:.2f} times as long"
        )
    results = {"torch": torch.__version__, "backend": backend, "rounds": rounds, "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
