"""The methods of Experiment 3, by the names that the slides give them, and their controls: a body and its head.

`ResNet18-Q-Ent` is the body `ResNet18` with the middle `-Q-Ent`, `ResNet18` alone the same with the middle `classical`.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import pi

from torch import nn

from hqnn_utils.learning.models import Affine, LeNet, Middle, Sine, dressed
from hqnn_utils.quantum.layers import RANDOM, QuantumLayer, VariationalLayer

BODIES = {"LeNet": 84, "ResNet18": 512, "features": 0}
"""The bodies, and how many features each hands to its head. `ResNet18` is frozen: what is shown are its features. `features`
are any others, as many as there are: columns of a table, or what another frozen network makes."""

LINEAR = "-linear"
"""The method without a middle: its head is one linear layer from the features to the scores."""


def middles(entangler: str = "ring", start: str = "near zero") -> dict[str, Middle]:
    """What may stand in the middle of a head: the slides' three, then controls.

    `classical` is nothing, `-Q` the circuit without entanglers, `-Q-Ent` with them. Of the controls, `-sine` is the circuit
    without its weights, `-affine` classical with as many parameters as the circuit, `-mlp` one more classical layer, in which
    the neurons interact too, `-random` the circuit with random matrices in place of its entanglers.

    Args:
        entangler: of `-Q-Ent`, one of `circuits.ENTANGLERS`.
        start: of the angles of circuits, one of `STARTS`.

    Raises:
        ValueError: an unknown start.
    """
    if start not in STARTS:
        raise ValueError(f"unknown start {start!r}: choose one of {', '.join(STARTS)}")

    def circuit(layer: Callable, **options: str) -> Middle:
        return lambda n, depth: STARTS[start](layer(n, depth, **options))

    return {
        "classical": lambda n, depth: nn.Identity(),
        "-Q": circuit(QuantumLayer, entangler="none"),
        "-Q-Ent": circuit(QuantumLayer, entangler=entangler),
        "-sine": lambda n, depth: Sine(),
        "-affine": Affine,
        "-mlp": lambda n, depth: nn.Sequential(nn.Linear(n, n), nn.Tanh()),
        "-random": circuit(VariationalLayer, entangler=RANDOM),
    }


def _anywhere(layer: nn.Module) -> nn.Module:
    nn.init.uniform_(layer.get_parameter("theta"), -pi, pi)
    return layer


STARTS: dict[str, Callable[[nn.Module], nn.Module]] = {"near zero": lambda layer: layer, "uniform": _anywhere}
"""Where the angles of a circuit start: near zero, as in Mari et al. 2020, or anywhere on the circle."""

METHODS = (*middles(), LINEAR)
"""All names."""

CIRCUITS: dict[str, tuple[str, ...]] = {
    "-Q-Ent": ("depth", "entangler", "start"),
    "-Q": ("depth", "start"),
    "-random": ("depth", "start"),
    "-affine": ("depth",),
}
"""The settings of a circuit that a method looks at; no other method looks at any."""


def title(body: str, method: str | Middle) -> str:
    """The name of a network as the slides write it, e.g. `ResNet18-Q-Ent`; a middle of your own has that of its function."""
    name = method if isinstance(method, str) else "-" + getattr(method, "name", getattr(method, "__name__", "own"))
    return body + name.removeprefix("classical")


def network(
    body: str,
    method: str | Middle,
    n_classes: int,
    n_qubits: int = 4,
    depth: int = 2,
    entangler: str = "ring",
    start: str = "near zero",
    n_features: int = 0,
) -> nn.Sequential:
    """A network of Experiment 3: its `body` and its `head`, a `Dressed` layer whose linear layers all methods share.

    With the same seed of torch networks of one body start with the same weights but for their middles.

    Args:
        body: one of `BODIES`.
        method: one of `METHODS`, or what makes a middle of your own.
        n_classes, n_qubits, depth: as for `models.dressed`.
        entangler, start: as for `middles`.
        n_features: that are shown, where the body is frozen; 0 for those of `BODIES`.

    Shape: `(batch, 1, 28, 28)` for a LeNet, `(batch, n_features)` for what a frozen body makes → `(batch, n_classes)`.

    Raises:
        ValueError: an unknown body or method, or as `models.dressed`.
    """
    if body not in BODIES:
        raise ValueError(f"unknown body {body!r}: choose one of {', '.join(BODIES)}")
    if not callable(method) and method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    before = nn.Sequential(*list(LeNet(1))[:-1]) if body == "LeNet" else nn.Identity()
    width = BODIES["LeNet"] if body == "LeNet" else n_features or BODIES[body]
    if method == LINEAR:
        head: nn.Module = nn.Linear(width, n_classes)
    else:
        middle = method if callable(method) else middles(entangler, start)[method]
        head = dressed(width, n_classes, middle, n_qubits, depth)
    return nn.Sequential(OrderedDict(body=before, head=head))
