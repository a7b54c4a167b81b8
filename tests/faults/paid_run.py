"""A paid run of seconds, as a program: the smallest layer that is trained, on SV1, with the record that is named."""

import sys
from pathlib import Path

import torch

from hqnn_utils.hardware import devices
from hqnn_utils.hardware.paid import within_budget
from hqnn_utils.quantum.layers import QuantumLayer

CIRCUITS = 18  # two rows, each with its value and two shifts of four angles

if __name__ == "__main__":
    sv1 = devices.device("sv1")
    with within_budget(
        sv1, usd=1.001 * sv1.price.of(CIRCUITS), circuits=CIRCUITS, batches=2, record=Path(sys.argv[1]), paid=True
    ) as run:
        backend = devices.connect(sv1, 2, run=run, max_parallel=3, poll_interval_seconds=0.02)
        layer = QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift")
        layer.theta.data = torch.tensor([[0.3, -0.7]])
        layer(torch.tensor([[0.5, 1.1], [0.2, -0.4]], requires_grad=True)).sum().backward()
    print(run.payments.found, run.payments.sent)
