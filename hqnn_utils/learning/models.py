"""The networks of the experiments: a LeNet-like body and the heads that turn its output into a decision."""

from collections.abc import Callable
from functools import partial
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hqnn_utils.quantum.inputs import require_sizes
from hqnn_utils.quantum.layers import QuantumActivation, QuantumLayer, ScrambledLayer


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


MIDDLES: dict[str, Callable[[int, int], nn.Module]] = {
    "": lambda n, depth: nn.Identity(),
    "-Q": partial(QuantumLayer, entangler="none"),
    "-Q-Ent": partial(QuantumLayer, entangler="ring"),
    "-sine": lambda n, depth: Sine(),
    "-affine": Affine,
    "-mlp": lambda n, depth: nn.Sequential(nn.Linear(n, n), nn.Tanh()),
    "-random": ScrambledLayer,
}
"""What may stand between the two linear layers of `Dressed`, by the end of a method's name: the slides' three, then controls.

Each is made from the number of neurons (qubits) and the quantum depth. Of the controls, `-sine` is the circuit without its
weights, `-affine` classical with as many parameters as the circuit, `-mlp` one more classical layer, in which the neurons
interact too, `-random` the circuit with random matrices in place of its entanglers. `-linear` has no middle at all.
"""

FEATURES = {"LeNet": 84, "ResNet18": 512}
"""The bodies of Experiment 3, and how many features each hands to its head."""


class Dressed(nn.Sequential):
    """A dressed layer: Linear to `n_qubits` neurons, π/2 · tanh, one of `MIDDLES`, Linear to the scores of the classes.

    The twins differ in `ending` alone: with the same seed of torch they start with the same weights in both linear layers.

    Args:
        n_features, n_classes: width of input and output.
        ending: one of `MIDDLES`, e.g. `"-Q-Ent"`.
        n_qubits: neurons between the linear layers, at most `n_features`.
        depth: quantum layers.

    Shape: `(batch, n_features)` → `(batch, n_classes)`; `[:2]` gives the angles, `[:3]` what the middle makes of them.

    Raises:
        ValueError: an unknown ending, more qubits than features, or a size that is none.

    Source: Mari et al. 2020. Drawn in book/experiments/quantum_entanglement.
    """

    def __init__(self, n_features: int, n_classes: int, ending: str = "-Q-Ent", n_qubits: int = 4, depth: int = 2):
        if ending not in MIDDLES:
            raise ValueError(f"unknown middle {ending!r}: choose one of {', '.join(map(repr, MIDDLES))}")
        if not 1 <= n_qubits <= n_features:
            raise ValueError(f"n_qubits must be between 1 and the {n_features} features, got {n_qubits}")
        require_sizes(n_qubits, depth)
        first, last = nn.Linear(n_features, n_qubits), nn.Linear(n_qubits, n_classes)  # before the middle draws its weights
        super().__init__(first, Angles(), MIDDLES[ending](n_qubits, depth), last)

    def __getitem__(self, part: int | slice) -> nn.Module:
        return nn.Sequential(*self)[part]  # torch would make a slice by this class, which is not made of layers


def network(method: str, n_classes: int, n_qubits: int = 4, depth: int = 2) -> nn.Module:
    """A network of Experiment 3 by the name that the slides give it.

    Args:
        method: one of `FEATURES` and one of `MIDDLES`, e.g. `"ResNet18-Q-Ent"`; with `-linear` the head is one linear layer.
        n_classes, n_qubits, depth: as for `Dressed`.

    Shape: `(batch, 1, 28, 28)` for a LeNet, `(batch, 512)` for the features of a frozen ResNet18 → `(batch, n_classes)`.

    Raises:
        ValueError: an unknown method, or as `Dressed`.
    """
    name, dash, rest = method.partition("-")
    if name not in FEATURES or dash + rest not in [*MIDDLES, "-linear"]:
        known = f"one of {', '.join(FEATURES)}, and at the end one of {', '.join([*MIDDLES, '-linear'][1:])}, or nothing"
        raise ValueError(f"unknown method {method!r}: it is {known}")
    body = list(LeNet(1))[:-1] if name == "LeNet" else []
    if rest == "linear":
        return nn.Sequential(*body, nn.Linear(FEATURES[name], n_classes))
    return nn.Sequential(*body, Dressed(FEATURES[name], n_classes, dash + rest, n_qubits, depth))
