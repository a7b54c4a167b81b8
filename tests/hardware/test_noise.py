"""Noise does to expectation values what the textbook says, and nothing to the number of circuits."""

import pennylane as qml
import torch

from hqnn_utils.hardware import devices
from hqnn_utils.hardware.devices import device
from hqnn_utils.hardware.noise import noisy
from hqnn_utils.quantum.layers import QuantumLayer


def test_misread_bits_shrink_every_expectation_value():
    exact = QuantumLayer(3, 2)
    backend = noisy(devices.connect(device("default.mixed"), 3), one=0.0, two=0.0, readout=0.1)
    layer = QuantumLayer(3, 2, simulator=backend, diff_method="parameter-shift")
    layer.theta = exact.theta
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(x), 0.8 * exact(x), rtol=0, atol=1e-5)


def test_depolarising_gates_shrink_an_expectation_value_gate_by_gate():
    backend = noisy(devices.connect(device("default.mixed"), 1), one=0.03, two=0.0, readout=0.0)
    layer = QuantumLayer(1, 2, simulator=backend, diff_method="parameter-shift")
    layer.theta.data[:] = 0
    x = torch.tensor([[0.4]])
    # H and three R_Y, each with a channel that shrinks the Bloch vector by 1 - 4p/3 (Nielsen and Chuang, sec. 8.3.4)
    torch.testing.assert_close(layer(x), -torch.sin(x) * (1 - 4 * 0.03 / 3) ** 4, rtol=0, atol=1e-6)


def test_a_noisy_circuit_is_one_circuit_however_many_qubits_are_measured():
    backend = noisy(devices.connect(device("default.mixed"), 3))
    layer = QuantumLayer(3, 1, simulator=backend, diff_method="parameter-shift")
    with qml.Tracker(backend) as tracker, torch.no_grad():
        layer(torch.zeros(2, 3))
    assert tracker.totals["executions"] == 2
