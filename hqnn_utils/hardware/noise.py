"""Noise as a processor's is often summed up: depolarising gates, and bits that are read wrongly.

Used in book/experiments/device_timing.
"""

from collections.abc import Callable
from typing import Any

import pennylane as qml
from pennylane.devices import Device


def noisy(backend: Device, one: float = 0.001, two: float = 0.01, readout: float = 0.03) -> Device:
    """A device with such noise in every circuit.

    Args:
        backend: a device that knows channels, e.g. default.mixed.
        one, two: probability of an error behind a gate of one qubit, or of each qubit behind a gate of two, in [0, 1].
        readout: probability that a measured bit is the wrong one, in [0, 1]; it shrinks ⟨Z⟩ by a factor of 1 - 2 readout.

    Source: Nielsen and Chuang, sec. 8.3.
    """
    gates = {
        qml.noise.op_in([qml.Hadamard, qml.RY]): _behind(qml.DepolarizingChannel, one),
        qml.noise.op_eq(qml.CNOT): _behind(qml.DepolarizingChannel, two),
    }
    # Of all wires, whichever is measured: PennyLane runs a circuit of its own for each measurement with noise of its own.
    misread = _behind(qml.BitFlip, readout, backend.wires)
    return qml.add_noise(backend, qml.NoiseModel(gates, {qml.noise.meas_eq(qml.expval): misread}))


def _behind(channel: Callable, probability: float, wires: qml.wires.Wires | None = None) -> Callable:
    """What puts a channel behind an operation, on each of its wires unless others are named."""

    def noise(operation: Any, **_: Any) -> None:
        for wire in wires or operation.wires:
            channel(probability, wire)

    return noise
