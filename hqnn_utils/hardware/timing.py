"""What a training step takes on a device, and where its time goes: circuits × (latency + simulation), and the rest.

Used in book/experiments/device_timing and remote_devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pennylane as qml
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from pennylane.devices import Device
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hqnn_utils.learning.models import Dressed, dressed
from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.layers import QuantumLayer


class Timing(NamedTuple):
    """Times of a step, in seconds.

    `seconds`: one each; `inside`: the part of each that was spent in the device; `circuits`: that the device ran in a step, 0
    where it does not count.
    """

    seconds: Float[np.ndarray, " steps"]
    inside: Float[np.ndarray, " steps"]
    circuits: int

    @property
    def median(self) -> float:
        """Of a step."""
        return float(np.median(self.seconds))

    @property
    def per_circuit(self) -> float:
        """Of a step, divided among its circuits."""
        return self.median / self.circuits

    @property
    def in_device(self) -> float:
        """Median of what a step spends in the device; the rest is PennyLane, torch and the classical layers."""
        return float(np.median(self.inside))


def loose(times: Mapping[str, float]) -> dict[str, float]:
    """Tolerances of times, and of ratios of times, by name: a busier machine differs a lot."""
    return {name: 6 * abs(float(value)) for name, value in times.items()}


def shift_circuits(batch: int, n_angles: int) -> int:
    """Circuits of a step by the parameter-shift rule: for every row its value, and two shifts of every angle that is trained.

    Derived in book/foundations/gradient_cost.
    """
    return batch * (1 + 2 * n_angles)


def head(
    simulator: Device | str,
    diff_method: str = "parameter-shift",
    shots: int = 0,
    *,
    n_qubits: int = 4,
    depth: int = 2,
    n_features: int = 512,
    n_classes: int = 2,
    seed: int = 0,
) -> Dressed:
    """The trained part of ResNet18-Q-Ent, with its circuit on a device; the same weights for the same seed.

    Args:
        simulator, diff_method, shots: as for `layers.QuantumLayer`.
        n_qubits, depth: of the circuit. n_features, n_classes: width of input and output.
        seed: of the weights, and of simulated shots.

    Shape: `(batch, n_features)` → `(batch, n_classes)` scores. Source: the slides, Experiment 3; `models.Dressed`.
    """
    circuit = partial(QuantumLayer, simulator=simulator, diff_method=diff_method, shots=shots, seed=seed)
    with torch.random.fork_rng():  # the caller's own randomness goes on as if nothing had been drawn
        torch.manual_seed(seed)
        return dressed(n_features, n_classes, circuit, n_qubits, depth)


def training_step(network: nn.Module, inputs: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]) -> Callable:
    """A function that trains a network on one batch, once each time it is called: loss, gradients, a step of Adam."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.001)

    def step() -> None:
        optimiser.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimiser.step()

    return step


WAYS_IN = ("execute", "execute_and_compute_derivatives", "compute_derivatives", "execute_and_compute_vjp", "compute_vjp")
"""By which PennyLane asks a device for something."""


@contextmanager
def clocked(device: Device) -> Iterator[list[float]]:
    """Collects, in a list, the seconds of every call of a device."""
    spent: list[float] = []
    inside: list[bool] = []

    def timed(way_in: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            if inside:  # a device may call itself
                return way_in(*args, **kwargs)
            inside.append(True)
            start = perf_counter()
            try:
                return way_in(*args, **kwargs)
            finally:
                spent.append(perf_counter() - start)
                inside.clear()

        return call

    ways: dict[str, Any] = {name: timed(getattr(device, name)) for name in WAYS_IN}
    with mock.patch.multiple(device, **ways):
        yield spent


def time_step(
    step: Callable[[], None], device: Device | str, repeats: int = 5, limit_s: float = float("inf"), warm_up: bool = True
) -> Timing:
    """Times a step, once to warm up and then up to `repeats` times.

    Args:
        step: what to time, e.g. a `training_step`.
        device: that its circuits run on, which counts them; with a name (of our engine) none are counted.
        repeats: at least 1.
        limit_s: no further repeat once they have taken so many seconds together.
        warm_up: without it nothing is run beforehand.
    """
    if warm_up:  # the first step prepares what the others find
        step()
    taken: list[float] = []
    inside: list[float] = []
    with nullcontext() if isinstance(device, str) else qml.Tracker(device) as tracker:
        while not taken or (len(taken) < repeats and sum(taken) < limit_s):
            with nullcontext() if isinstance(device, str) else clocked(device) as spent:
                taken.append(_seconds(step))
            inside.append(taken[-1] if spent is None else sum(spent))
    circuits = 0 if tracker is None else tracker.totals["executions"] // len(taken)
    return Timing(np.array(taken), np.array(inside), circuits)


def time_in_turns(
    steps: dict[str, tuple[Callable[[], None], Device | str]], repeats: int, limit_s: float = float("inf")
) -> dict[str, Timing]:
    """Times several steps that take turns, so that all of them see the weather of a busy machine alike; none is warmed up.

    Args:
        steps: name → a step, and the device that its circuits run on, as for `time_step`.
        repeats: turns, at least 1.
        limit_s: a step is left out of further turns once it has taken so many seconds in all.
    """
    turns: dict[str, list[Timing]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, (step, device) in steps.items():
            if not turns[name] or sum(turn.median for turn in turns[name]) < limit_s:
                turns[name].append(time_step(step, device, 1, warm_up=False))
    return {name: _together(taken) for name, taken in turns.items()}


def _together(turns: Sequence[Timing]) -> Timing:
    seconds, inside = (np.concatenate(part) for part in list(zip(*turns, strict=True))[:2])
    return Timing(seconds, inside, turns[0].circuits)


def _seconds(call: Callable) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def time_circuit(simulator: Device | str, n_qubits: int, depth: int = 2, shots: int = 0, repeats: int = 3) -> float:
    """Median of the seconds of one circuit of `n_qubits`, run for its expectation values alone, after one to warm up."""
    layer = QuantumLayer(n_qubits, depth, simulator=simulator, diff_method="parameter-shift", shots=shots, seed=0)
    row = torch.linspace(-1, 1, n_qubits).unsqueeze(0)
    with torch.no_grad():
        return float(np.median([_seconds(lambda: layer(row)) for _ in range(repeats + 1)][1:]))


def gates(n_qubits: int, depth: int = 2) -> int:
    """Gates of the layered circuit with a ring: H and R_Y on each qubit, then CNOTs and R_Y in each layer."""
    return 2 * n_qubits + depth * (len(circuits.cnot_pairs(n_qubits, "ring")) + n_qubits)


class Scaling(NamedTuple):
    """Seconds of a circuit of n qubits: `overhead + per_gate * gates(n) + per_amplitude * gates(n) * 2**n`."""

    overhead: float
    per_gate: float
    per_amplitude: float

    def __call__(self, n_qubits: int | ArrayLike, depth: int = 2) -> np.ndarray | float:
        """Seconds, for one number of qubits or an array of them."""
        n = np.asarray(n_qubits)
        count = np.vectorize(lambda n: gates(int(n), depth))(n)
        return self.overhead + count * (self.per_gate + self.per_amplitude * 2.0**n)


def scaling(n_qubits: Sequence[int], seconds: Sequence[float], depth: int = 2) -> Scaling:
    """The model of a device that simulates state vectors, fitted to times with equal weight of relative errors.

    Source: a gate on a state vector of n qubits touches each of its 2**n amplitudes (book/foundations/simulation).
    """
    from scipy.optimize import nnls

    n, t = np.array(n_qubits), np.array(seconds)
    count = np.array([gates(int(k), depth) for k in n])
    columns = np.stack([np.ones(len(n)), count, count * 2.0**n], axis=1)
    found, _ = nnls(columns / t[:, None], np.ones(len(n)))
    return Scaling(*map(float, found))
