"""Time a suite of circuits as torch layers, by `CircuitLayer` and by other ways, in one process: `make bench-circuits`.

Each circuit is a list of gates, which every system runs in its own words. A *step* is one forward and backward pass of the sum
of the outputs ⟨Z_i⟩, with gradients to inputs and weights; the inputs are float32. What else: benchmarks/README.md.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import importlib.metadata
import json
import random
import warnings
from collections.abc import Callable
from datetime import date
from math import floor, log10
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import click
import numpy as np
import pennylane as qml
import torch
from bridge import bridged
from torch import nn

from hqnn_utils.quantum.layers import CircuitLayer

HERE = Path(__file__).parent
TOLERANCE = 1e-4
COMPILED_GATES = 120
"""Circuits of more gates are not handed to XLA, which compiled one of 200 gates for more than five minutes."""

BURST = 0.3
"""Seconds that a system is timed for in a round, or one step if that takes longer."""


# The circuits: generators of (gate, angle, wires).


def ring(n):
    return [("CNOT", None, (i, (i + 1) % n)) for i in range(n)]


def layered(x, theta):
    """The book's reference: H, R_Y(x), then layers of [ring, R_Y]."""
    n = theta.shape[1]
    for i in range(n):
        yield "H", None, (i,)
        yield "RY", x[..., i], (i,)
    for layer in range(theta.shape[0]):
        yield from ring(n)
        for i in range(n):
            yield "RY", theta[layer, i], (i,)


def basic(x, w):
    """Angle embedding, then basic entangling layers: R_X and a ring."""
    n = w.shape[1]
    for i in range(n):
        yield "RX", x[..., i], (i,)
    for layer in range(w.shape[0]):
        for i in range(n):
            yield "RX", w[layer, i], (i,)
        yield from ring(n)


def strong_layers(w):
    """Strongly entangling layers: three rotations a qubit, and CNOTs whose range grows (Schuld et al. 2020)."""
    n = w.shape[1]
    for layer in range(w.shape[0]):
        for i in range(n):
            for k, gate in enumerate(("RZ", "RY", "RZ")):
                yield gate, w[layer, i, k], (i,)
        for i in range(n):
            yield "CNOT", None, (i, (i + layer % (n - 1) + 1) % n)


def strong(x, w):
    """Angle embedding, then strongly entangling layers."""
    for i in range(w.shape[1]):
        yield "RX", x[..., i], (i,)
    yield from strong_layers(w)


def amplitude(x, w):
    """The input as amplitudes, then strongly entangling layers."""
    yield "STATE", x, tuple(range(w.shape[1]))
    yield from strong_layers(w)


def iqp(x, w):
    """An IQP embedding (Havlíček et al. 2019), then basic entangling layers."""
    n = w.shape[1]
    for i in range(n):
        yield "H", None, (i,)
        yield "RZ", x[..., i], (i,)
    for i in range(n):
        for j in range(i + 1, n):
            yield "ZZ", x[..., i] * x[..., j], (i, j)
    for layer in range(w.shape[0]):
        for i in range(n):
            yield "RX", w[layer, i], (i,)
        yield from ring(n)


def reuploading(x, scale, theta):
    """Data re-uploading (Pérez-Salinas et al. 2020) with trainable factors of the data."""
    n = theta.shape[1]
    for layer in range(theta.shape[0]):
        for i in range(n):
            yield "RZ", scale[layer, i] * x[..., i], (i,)
            yield "RY", theta[layer, i], (i,)
        yield from ring(n)


def brick(x, theta):
    """The dressed circuit of Mari et al. 2020: CNOTs in bricks."""
    n = theta.shape[1]
    for i in range(n):
        yield "H", None, (i,)
        yield "RY", x[..., i], (i,)
    for layer in range(theta.shape[0]):
        for i in (*range(0, n - 1, 2), *range(1, n - 1, 2)):
            yield "CNOT", None, (i, i + 1)
        for i in range(n):
            yield "RY", theta[layer, i], (i,)


def quanvolution(x, w):
    """A filter of 2×2 pixels, slid over all places of images (Henderson et al. 2020)."""
    for i in range(4):
        yield "RY", np.pi * x[..., i], (i,)
    for layer in range(w.shape[0]):
        for i in range(4):
            yield "RZ", w[layer, i, 0], (i,)
            yield "RY", w[layer, i, 1], (i,)
        yield from ring(4)


def qcnn(x, w, p):
    """A quantum convolutional network (Cong et al. 2019): blocks of two qubits, shared weights, pooling by controlled R_X."""
    wires = list(range(8))
    for i in wires:
        yield "RY", x[..., i], (i,)
    for layer in range(w.shape[0]):
        for offset in (0, 1):
            for a, b in zip(wires[offset::2], wires[offset + 1 :: 2], strict=False):
                for wire, start in ((a, 0), (b, 3)):
                    for k, gate in enumerate(("RZ", "RY", "RZ")):
                        yield gate, w[layer, start + k], (wire,)
                for k, gate in enumerate(("XX", "YY", "ZZ")):
                    yield gate, w[layer, 6 + k], (a, b)
        for a, b in zip(wires[::2], wires[1::2], strict=False):
            yield "CRX", p[layer], (b, a)
        wires = wires[::2]


def qaoa(x, gamma, beta):
    """Alternating layers of a ring of ZZ and R_X, as in QAOA (Farhi et al. 2014), on encoded data."""
    n = 10
    for i in range(n):
        yield "H", None, (i,)
        yield "RZ", x[..., i], (i,)
    for layer in range(gamma.shape[0]):
        for i in range(n):
            yield "ZZ", gamma[layer], (i, (i + 1) % n)
        for i in range(n):
            yield "RX", beta[layer], (i,)


def efficient(x, theta):
    """Hardware-efficient layers (Kandala et al. 2017): R_Y, R_Z and a line of CZ."""
    n = theta.shape[1]
    for i in range(n):
        yield "RY", x[..., i], (i,)
    for layer in range(theta.shape[0]):
        for i in range(n):
            yield "RY", theta[layer, i, 0], (i,)
            yield "RZ", theta[layer, i, 1], (i,)
        for i in range(n - 1):
            yield "CZ", None, (i, i + 1)


class Circuit(NamedTuple):
    """A circuit of the suite: its gates, its size, and the batches at which it is timed."""

    label: str
    gates: Callable
    n_qubits: int
    n_inputs: int
    shapes: dict[str, tuple[int, ...]]
    batches: tuple[int, ...] = (4, 32, 1024)


SUITE = {
    "layered": Circuit("reference: R_Y encoding, ring, R_Y", layered, 4, 4, {"theta": (2, 4)}),
    "basic": Circuit("angle embedding, basic entangling", basic, 4, 4, {"w": (3, 4)}),
    "strong": Circuit("angle embedding, strongly entangling", strong, 4, 4, {"w": (3, 4, 3)}),
    "amplitude": Circuit("amplitude embedding, strongly entangling", amplitude, 4, 16, {"w": (3, 4, 3)}),
    "iqp": Circuit("IQP embedding, basic entangling", iqp, 4, 4, {"w": (3, 4)}),
    "reuploading": Circuit("data re-uploading", reuploading, 4, 4, {"scale": (4, 4), "theta": (4, 4)}),
    "brick": Circuit("Mari's brick, depth 6", brick, 4, 4, {"theta": (6, 4)}),
    "quanvolution": Circuit("quanvolution, 784 patches an image", quanvolution, 4, 4, {"w": (2, 4, 2)}, (784, 4 * 784)),
    "efficient": Circuit("hardware-efficient", efficient, 6, 6, {"theta": (3, 6, 2)}),
    "qcnn": Circuit("QCNN", qcnn, 8, 8, {"w": (3, 9), "p": (3,)}),
    "strong_10": Circuit("angle embedding, strongly entangling, wide", strong, 10, 10, {"w": (3, 10, 3)}, (4, 32, 256)),
    "qaoa": Circuit("QAOA-like", qaoa, 10, 10, {"gamma": (3,), "beta": (3,)}, (4, 32, 256)),
}


# The systems. Each maker takes a circuit and returns a torch module with the circuit's weights as parameters, in their order.

PENNYLANE = {
    "H": lambda _, wires: qml.Hadamard(wires),
    "CNOT": lambda _, wires: qml.CNOT(wires),
    "CZ": lambda _, wires: qml.CZ(wires),
    "RX": qml.RX,
    "RY": qml.RY,
    "RZ": qml.RZ,
    "XX": qml.IsingXX,
    "YY": qml.IsingYY,
    "ZZ": qml.IsingZZ,
    "CRX": qml.CRX,
    "STATE": lambda x, wires: qml.AmplitudeEmbedding(x, wires, normalize=True),
}


def node(circuit: Circuit, device: str = "default.qubit", diff_method: str = "backprop", interface: str = "torch"):
    """The QNode that a reader would write: inputs and weights by name."""

    def run(inputs, **weights):
        for gate, angle, wires in circuit.gates(inputs, *weights.values()):
            PENNYLANE[gate](angle, wires)
        return [qml.expval(qml.Z(i)) for i in range(circuit.n_qubits)]

    names = ", ".join(circuit.shapes)
    space = {"run": run}
    exec(f"def node(inputs, {names}): return run(inputs, {', '.join(f'{n}={n}' for n in circuit.shapes)})", space)
    return qml.QNode(space["node"], qml.device(device, wires=circuit.n_qubits), interface=interface, diff_method=diff_method)


def circuit_layer(circuit: Circuit) -> nn.Module:
    return CircuitLayer.from_qnode(node(circuit), circuit.shapes)


def torch_layer(circuit: Circuit, device: str = "default.qubit", diff_method: str = "backprop") -> nn.Module:
    return qml.qnn.TorchLayer(node(circuit, device, diff_method), circuit.shapes)


class Function(nn.Module):
    """A function (x, *weights) → ⟨Z⟩ of torch tensors as a layer."""

    def __init__(self, function: Callable, circuit: Circuit):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.empty(shape) for shape in circuit.shapes.values())

    def forward(self, x):
        return self.function(x, *self.weights)


def pennylane_jax(circuit: Circuit) -> nn.Module:
    import jax.numpy as jnp

    run = node(circuit, interface="jax")
    return Function(bridged(lambda x, *weights: jnp.stack(run(x, *weights), axis=-1)), circuit)


def tensorcircuit(circuit: Circuit, backend: str = "jax") -> nn.Module:
    import tensorcircuit as tc

    def one(x, *weights):
        if tc.backend.name != backend:  # the choice is global, and two systems of one process make different ones
            tc.set_backend(backend)
        norm = tc.backend.norm(x) if circuit.gates is amplitude else None
        made = tc.Circuit(circuit.n_qubits, **({} if norm is None else {"inputs": x / norm}))
        for gate, angle, wires in circuit.gates(x, *weights):
            if gate in ("XX", "YY", "ZZ"):
                getattr(made, "r" + gate.lower())(*wires, theta=angle)
            elif angle is None:
                getattr(made, gate.lower())(*wires)
            elif gate != "STATE":
                getattr(made, gate.lower())(*wires, theta=angle)
        return tc.backend.real(tc.backend.stack([made.expectation_ps(z=[i]) for i in range(circuit.n_qubits)]))

    in_axes = 0, *[None] * len(circuit.shapes)
    if backend == "pytorch":
        return Function(torch.vmap(one, in_axes), circuit)
    import jax

    return Function(bridged(jax.vmap(one, in_axes)), circuit)


def deepquantum(circuit: Circuit) -> nn.Module:
    import deepquantum as dq

    made = dq.QubitCircuit(circuit.n_qubits)
    x, weights = arguments(circuit, 1)
    for gate, angle, wires in circuit.gates(x, *weights):
        if gate == "STATE":
            raise NotImplementedError("has no amplitudes of a batch among its encodings")
        encoded = {} if angle is None else {"encode": True}
        if gate in ("XX", "YY", "ZZ"):
            getattr(made, "r" + gate.lower())(list(wires), **encoded)
        elif gate == "CRX":
            made.rx(wires[1], controls=wires[0], **encoded)
        else:
            getattr(made, gate.lower())(*wires, **encoded)
    for i in range(circuit.n_qubits):
        made.observable(i)

    def run(x, *weights):
        angles = [angle.expand(len(x)) for _, angle, _ in circuit.gates(x, *weights) if angle is not None]
        made(torch.stack(angles, dim=-1))
        return made.expectation()

    return Function(run, circuit)


SYSTEMS = {
    "circuit_layer": ("CircuitLayer", circuit_layer),
    "torch_layer": ("PennyLane TorchLayer, default.qubit, backprop", torch_layer),
    "lightning": ("PennyLane TorchLayer, lightning.qubit, adjoint", lambda c: torch_layer(c, "lightning.qubit", "adjoint")),
    "tensorcircuit_torch": ("tensorcircuit-ng, torch", lambda c: tensorcircuit(c, "pytorch")),
    "deepquantum": ("DeepQuantum", deepquantum),
    "pennylane_jax": ("PennyLane under jax.jit, behind a torch function", pennylane_jax),
    "tensorcircuit": ("tensorcircuit-ng under jax.jit, behind a torch function", tensorcircuit),
}
OURS, COMPILED = "circuit_layer", ("pennylane_jax", "tensorcircuit")


# Timing


def arguments(circuit: Circuit, batch: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same inputs and weights for every system, float32."""
    numbers = np.random.default_rng(0)
    x = numbers.uniform(0.1, 1, size=(batch, circuit.n_inputs)).astype("float32")
    return x, [numbers.normal(size=shape).astype("float32") for shape in circuit.shapes.values()]


def step_of(module: nn.Module, circuit: Circuit, batch: int) -> Callable:
    x, weights = arguments(circuit, batch)
    inputs = torch.tensor(x, requires_grad=True)
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        parameter.data = torch.tensor(weight)
    leaves = [inputs, *module.parameters()]

    def step():
        values = module(inputs)
        return values.detach(), *torch.autograd.grad(values.sum(), leaves)

    return step


def off(found, expected) -> float:
    """The largest difference, in units of the largest entry (and of 1)."""
    return max(float((a - b).abs().max() / max(1, b.abs().max())) for a, b in zip(found, expected, strict=True))


def measure(name: str, batch: int, rounds: int, limit: float, dropped: dict) -> dict[str, list[float]]:
    """Median seconds of a step in each round; all systems take turns in every round."""
    circuit = SUITE[name]
    expected = step_of(torch_layer(circuit), circuit, batch)() if batch < 2000 else None
    steps, repeats, medians = {}, {}, {}
    x, weights = arguments(circuit, 1)
    gates = len(list(circuit.gates(x, *weights)))
    for system, (_, make) in SYSTEMS.items():
        if system in COMPILED and gates > COMPILED_GATES:
            dropped[system, f"{name}: of its {gates} gates XLA compiles for minutes"] = None
            continue
        try:
            step = step_of(make(circuit), circuit, batch)
            found = step()
            start = perf_counter()
            step()
            took = perf_counter() - start
        except ImportError:
            dropped[system, "make peers was not run"] = None
            continue
        except Exception as error:  # whatever goes wrong in a system is the reason why it has no time
            dropped[system, f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}"] = None
            continue
        if expected is not None and not off(found, expected) < TOLERANCE:
            dropped[system, f"{name}: deviates from the definition by {off(found, expected):.1e}"] = None
        elif took > limit:
            medians[system] = [took]
        else:
            steps[system], repeats[system], medians[system] = step, max(1, min(200, int(BURST / took))), []
    for _ in range(rounds):
        for system in random.sample(list(steps), len(steps)):
            seconds = []
            for _ in range(repeats[system]):
                start = perf_counter()
                steps[system]()
                seconds.append(perf_counter() - start)
            medians[system].append(median(seconds))
    return medians


def shown(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 2 - floor(log10(value)))}f}"


def table(rows: list[dict]) -> str:
    """Milliseconds of our layer, and how many times as long the others take."""
    cells = {(row["circuit"], row["batch"], row["system"]): row["median_s"] for row in rows}
    others = [system for system in SYSTEMS if system != OURS]
    lines = ["| circuit | qubits | batch | CircuitLayer, ms | " + " | ".join(SYSTEMS[s][0] for s in others) + " |"]
    lines += ["|---" + "|--:" * (3 + len(others)) + "|"]
    for name, batch in dict.fromkeys((row["circuit"], row["batch"]) for row in rows):
        ours = cells[name, batch, OURS]
        ratios = [shown(cells[name, batch, s] / ours) + " ×" if (name, batch, s) in cells else "–" for s in others]
        lines.append(
            f"| {SUITE[name].label} | {SUITE[name].n_qubits} | {batch} | {shown(1e3 * ours)} | " + " | ".join(ratios) + " |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--rounds", default=7, show_default=True, help="How often every system has its turn.")
@click.option("--limit", default=5.0, show_default=True, help="A step longer than so many seconds is timed once.")
@click.option("--only", multiple=True, type=click.Choice(list(SUITE)), help="Some circuits; prints and writes nothing.")
def main(rounds: int, limit: float, only: tuple[str, ...]):
    """Time the suite, and write circuits.json and circuits.md."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dropped, rows = {}, []
    for name in only or SUITE:
        for batch in SUITE[name].batches:
            click.echo(f"{name}, batch {batch}", err=True)
            for system, seconds in measure(name, batch, rounds, limit, dropped).items():
                rows.append(
                    {"circuit": name, "batch": batch, "system": system, "median_s": median(seconds), "seconds": seconds}
                )
    packages = ("torch", "pennylane", "pennylane-lightning", "jax", "tensorcircuit-ng", "deepquantum")
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    versions = {package: found[package] for package in packages if package in found}
    said = (
        f"Written by `make bench-circuits` on {date.today().isoformat()}: one thread, "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + ".\nA column says how many times as long as CircuitLayer a system takes for a step, forward and backward; "
        "all took turns in one process.\n–: not run, for a reason given at the end."
    )
    why = "\n".join(f"- {SYSTEMS[system][0]}: {reason}" for system, reason in dropped)
    page = "\n\n".join(["# A suite of circuits", said, table(rows), "## Left out", why or "Nothing."]) + "\n"
    if only:
        click.echo(page)
        return
    labels = {name: circuit.label for name, circuit in SUITE.items()}
    results = {"meta": {"date": date.today().isoformat(), "versions": versions, "circuits": labels}, "rows": rows}
    results["dropped"] = [{"system": system, "why": reason} for system, reason in dropped]
    (HERE / "circuits.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (HERE / "circuits.md").write_text(page)


if __name__ == "__main__":
    main()
