"""The networks of the experiments: a LeNet-like body and the heads that turn its output into a decision."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hqnn_utils.layers import QuantumActivation


class Sine(nn.Module):
    """-sin θ, computed classically: the function of `QuantumActivation` without the circuit."""

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -torch.sin(theta)


class HalfTanh(nn.Module):
    """-tanh(θ/2): as an expectation value it makes `BinaryClassifier` an ordinary sigmoid classifier."""

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -torch.tanh(theta / 2)


HEADS = {"quantum": partial(QuantumActivation, simulator="default.qubit"), "sine": Sine, "sigmoid": HalfTanh}
"""The twins of Experiment 1, which differ in the function of the last neuron and in nothing else.

The quantum one runs its circuit on PennyLane's simulator: with `simulator="statevector"` it would be the sine itself.
"""


ACTIVATIONS = {"quantum": HEADS["quantum"], "sine": Sine, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
"""The activation functions of Experiment 2, each applied to every element of its input."""


class LeNet(nn.Sequential):
    """A LeNet-like convolutional network for 28×28 grey images: two convolutions with pooling, three linear layers.

    Args:
        n_outputs: width of the last linear layer, whose outputs are unbounded.
        dense: activation of the two hidden linear layers, one of `ACTIVATIONS`.
        convolutional: activation of the two convolutions, one of `ACTIVATIONS`.
        options: for the activation of the linear layers, e.g. `shots=100`.

    Shape: `(batch, 1, 28, 28)` → `(batch, n_outputs)`.

    Raises:
        ValueError: an unknown activation.

    Source: LeCun et al. 1998, sec. II-B, with ReLU and maximum pooling. Used in book/experiments/quantum_activation.
    """

    def __init__(self, n_outputs: int, dense: str = "relu", convolutional: str = "relu", **options):
        for name in (dense, convolutional):
            if name not in ACTIVATIONS:
                raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
        inner, outer = ACTIVATIONS[convolutional], partial(ACTIVATIONS[dense], **options)
        super().__init__(
            *(nn.Conv2d(1, 6, 5), inner(), nn.MaxPool2d(2)),  # (batch, 6, 12, 12)
            *(nn.Conv2d(6, 16, 5), inner(), nn.MaxPool2d(2)),  # (batch, 16, 4, 4)
            nn.Flatten(),  # (batch, 256)
            *(nn.Linear(256, 120), outer()),
            *(nn.Linear(120, 84), outer()),
            nn.Linear(84, n_outputs),
        )


class BinaryClassifier(nn.Module):
    """LeNet whose last neuron is an angle θ; an expectation value f(θ) of it gives P(class 1) = (1 - f(θ)) / 2.

    With the quantum head that is the probability of finding the qubit in |1⟩; with `sine` the same number computed
    classically; with `sigmoid`, since f(θ) = -tanh(θ/2), it is the logistic function of θ.

    Args:
        head: one of `HEADS`.
        options: for the head, e.g. `shots=100`.

    Shape: `(batch, 1, 28, 28)` → `(batch,)`, probabilities in [0, 1].

    Raises:
        ValueError: an unknown head.

    Derived in book/experiments/quantum_classifier.
    """

    def __init__(self, head: str, **options):
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
        self.angle = LeNet(1)
        self.expval = HEADS[head](**options)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, " batch"]:
        return (1 - self.expval(self.angle(images).squeeze(-1))) / 2
