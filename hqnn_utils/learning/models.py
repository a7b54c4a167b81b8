"""The networks of the experiments: a LeNet-like body and the heads that turn its output into a decision."""

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hqnn_utils.quantum.inputs import require_sizes
from hqnn_utils.quantum.layers import QuantumActivation


class Sine(nn.Module):
    """-sin θ, computed classically: the function of `QuantumActivation` without the circuit."""

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -torch.sin(theta)


class HalfTanh(nn.Module):
    """-tanh(θ/2): as an expectation value it makes `BinaryClassifier` an ordinary sigmoid classifier."""

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -torch.tanh(theta / 2)


HEADS: dict[str, Callable[..., nn.Module]] = {
    "quantum": partial(QuantumActivation, simulator="default.qubit"),
    "sine": Sine,
    "sigmoid": HalfTanh,
}
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

    def __init__(self, n_outputs: int, dense: str = "relu", convolutional: str = "relu", **options: Any):
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

    def __init__(self, head: str, **options: Any):
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
        self.angle = LeNet(1)
        self.expval = HEADS[head](**options)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, " batch"]:
        return (1 - self.expval(self.angle(images).squeeze(-1))) / 2


class Angles(nn.Module):
    """Scores → angles in (-π/2, π/2): π/2 · tanh, as in Mari et al. 2020."""

    def forward(self, scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return pi / 2 * torch.tanh(scores)


class Affine(nn.Module):
    """tanh(a · h + b) with a factor and an offset for each neuron, as often as makes `depth * n` parameters in all."""

    def __init__(self, n: int, depth: int):
        super().__init__()
        self.factors = nn.Parameter(torch.ones(-(-depth // 2), n))
        self.offsets = nn.Parameter(0.01 * torch.randn(depth // 2, n))

    def forward(self, h: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        for layer, factors in enumerate(self.factors):
            offsets = self.offsets[layer] if layer < len(self.offsets) else 0.0  # an odd depth has no last offset
            h = torch.tanh(factors * h + offsets)
        return h


class Dressed(nn.Module):
    """A dressed layer: `first`, Linear to `n_qubits` neurons; `angles`, π/2 · tanh; `middle`; `last`, Linear to scores.

    Args:
        n_features, n_classes: width of input and output.
        middle: what stands between the linear layers, `(batch, n_qubits)` → `(batch, n_qubits)`, e.g. a `QuantumLayer`.
        n_qubits: neurons between the linear layers, at most `n_features`.

    Shape: `(batch, n_features)` → `(batch, n_classes)`.

    Raises:
        ValueError: more qubits than features, or a number that is none.

    Source: Mari et al. 2020. Drawn in book/experiments/quantum_entanglement.
    """

    def __init__(self, n_features: int, n_classes: int, middle: nn.Module, n_qubits: int = 4):
        if not 1 <= n_qubits <= n_features:
            raise ValueError(f"n_qubits must be between 1 and the {n_features} features, got {n_qubits}")
        require_sizes(n_qubits)
        super().__init__()
        self.first, self.angles = nn.Linear(n_features, n_qubits), Angles()
        self.middle, self.last = middle, nn.Linear(n_qubits, n_classes)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        return self.last(self.middle(self.angles(self.first(features))))


Middle = Callable[[int, int], nn.Module]
"""Makes the middle of a dressed layer from the number of neurons (qubits) and the quantum depth."""


def dressed(n_features: int, n_classes: int, middle: Middle, n_qubits: int = 4, depth: int = 2) -> Dressed:
    """A dressed layer whose middle draws its weights after both linear layers have drawn theirs.

    So twins that differ in their middles start with the same linear layers, if torch's generator is in the same state.

    Args:
        depth: of the middle. The others as for `Dressed`.

    Raises:
        ValueError: as `Dressed`, or a depth that is none.
    """
    head = Dressed(n_features, n_classes, nn.Identity(), n_qubits)
    require_sizes(n_qubits, depth)
    head.middle = middle(n_qubits, depth)
    return head
