"""The circuits of the book as PennyLane quantum functions: the definition everything else is checked against.

A *circuit* here only applies gates. What is measured is said where a `QNode` is made, so that one definition serves
expectation values, shots, states and drawings alike. All angles are in radians.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import pennylane as qml
from pennylane.devices import Device
from pennylane.measurements import ExpectationMP
from pennylane.typing import TensorLike
from torch import Tensor

from hqnn_utils.quantum.inputs import require_shots, require_sizes

ENTANGLERS = ("none", "linear", "ring", "all", "brick")
"""Patterns of CNOTs between the rotations of a layered circuit. `all` has the most gates, and undoes `linear`."""


def h_ry(theta: TensorLike, wire: int = 0) -> None:
    """The slides' one-qubit circuit: H, then R_Y(theta).

    Args:
        theta: rotation angle, any real number; a batch of shape `(batch,)` broadcasts.
        wire: the qubit.

    From |0⟩ its expectation value is ⟨Z⟩ = -sin(theta), in [-1, 1].
    Derived in book/foundations/pqc, eq. (5) of the slides.
    """
    qml.Hadamard(wire)
    qml.RY(theta, wire)


def activation(theta: TensorLike) -> None:
    """`h_ry` of a row of one angle, `(..., 1)`: what stands behind a quantum activation function."""
    h_ry(theta[..., 0])


def bell() -> None:
    """H and CNOT on two qubits: from |00⟩ the entangled state (|00⟩ + |11⟩)/√2 of the slides.

    Shown in book/foundations/entanglement.
    """
    qml.Hadamard(0)
    qml.CNOT([0, 1])


def separable() -> None:
    """H on the second of two qubits: from |00⟩ the product state (|00⟩ + |01⟩)/√2 of the slides.

    Shown in book/foundations/entanglement.
    """
    qml.Hadamard(1)


def chsh(a: TensorLike, b: TensorLike, prepare: Callable[[], None] = bell) -> None:
    """A two-qubit state, each qubit turned so that measuring Z reads cos(angle) Z + sin(angle) X of that state.

    Args:
        a, b: measurement directions of the two parties in the X-Z plane of the Bloch sphere.
        prepare: circuit that prepares the shared state from |00⟩.

    For the Bell state ⟨Z⊗Z⟩ = cos(a - b). Source: Nielsen and Chuang, sec. 2.6. Derived in book/foundations/chsh.
    """
    prepare()
    qml.RY(-a, 0)
    qml.RY(-b, 1)


def controlled_rotation(theta: TensorLike) -> None:
    """A controlled R_Y(theta) between fixed gates, chosen so that both frequencies 1/2 and 1 appear in ⟨Z⊗Z⟩.

    The generator of a controlled rotation has the eigenvalues -1/2, 0, 1/2, hence two distinct positive differences,
    and the two-term shift rule does not hold. Source: Wierichs et al. 2022, sec. 3. Derived in
    book/foundations/parameter_shift.
    """
    qml.Hadamard(0)
    qml.RY(0.8, 1)
    qml.CRY(theta, [0, 1])
    qml.RY(0.6, 0)


def cnot_pairs(n_qubits: int, entangler: str) -> list[tuple[int, int]]:
    """The (control, target) pairs of an entangler, in the order in which they act.

    `none`: no pair; `linear`: i → i+1; `ring`: linear, then n-1 → 0; `all`: every i → j with i < j, which is the same
    permutation as `linear` in reverse order (book/foundations/entangled_circuits); `brick`: i → i+1 for even i, then for
    odd i, as in the code of Mari et al. 2020 (book/evidence/provenance). A single qubit has no pair; two qubits in a ring
    have 0 → 1, then 1 → 0.

    Raises:
        ValueError: the entangler is not one of `ENTANGLERS`.
    """
    if entangler not in ENTANGLERS:
        raise ValueError(f"unknown entangler {entangler!r}: choose one of {', '.join(ENTANGLERS)}")
    if entangler == "all":
        return [(i, j) for i in range(n_qubits) for j in range(i + 1, n_qubits)]
    linear = [(i, i + 1) for i in range(n_qubits - 1)]
    ring = [(n_qubits - 1, 0)] if n_qubits > 1 else []
    return {"none": [], "linear": linear, "ring": linear + ring, "brick": linear[::2] + linear[1::2]}[entangler]


def layered(x: TensorLike, theta: TensorLike, entangler: str = "ring") -> None:
    """The layered circuit of the hybrid networks: H, R_Y(x_i), then layers of [entangler, R_Y(theta_li)].

    Args:
        x: encoded data, shape `(..., n_qubits)`.
        theta: trainable angles, shape `(depth, n_qubits)`.
        entangler: one of `ENTANGLERS`.

    Source: Mari et al. 2020, the dressed quantum circuit. Drawn in book/foundations/many_qubits.
    """
    n_qubits = x.shape[-1]
    for i in range(n_qubits):
        qml.Hadamard(i)
        qml.RY(x[..., i], i)
    for layer in theta:
        for pair in cnot_pairs(n_qubits, entangler):
            qml.CNOT(pair)
        for i in range(n_qubits):
            qml.RY(layer[i], i)


def reuploading(x: TensorLike, scale: TensorLike, theta: TensorLike, entangler: str = "ring") -> None:
    """A circuit that takes the data in again and again: H, then layers of [R_Z(scale_li x_i), R_Y(theta_li), entangler].

    R_Z and R_Y do not commute, so also without an entangler the layers do not merge into one.

    Args:
        x: encoded data, shape `(..., n_qubits)`.
        scale, theta: trainable factors and angles, shape `(depth, n_qubits)`.
        entangler: one of `ENTANGLERS`.

    Source: Pérez-Salinas et al. 2020. Used in book/evidence/where_entanglement_helps.
    """
    n_qubits = x.shape[-1]
    for i in range(n_qubits):
        qml.Hadamard(i)
    for factors, angles in zip(scale, theta, strict=True):
        for i in range(n_qubits):
            qml.RZ(factors[i] * x[..., i], i)
            qml.RY(angles[i], i)
        for pair in cnot_pairs(n_qubits, entangler):
            qml.CNOT(pair)


def _h_ry(angle: TensorLike, wire: int) -> None:
    qml.Hadamard(wire)
    qml.RY(angle, wire)


def _h_rz(angle: TensorLike, wire: int) -> None:
    qml.Hadamard(wire)
    qml.RZ(angle, wire)


def _rx_rz(angle: TensorLike, wire: int) -> None:
    qml.RX(angle, wire)
    qml.RZ(angle, wire)


ENCODINGS: dict[str, Callable[[TensorLike, int], Any]] = {"h_ry": _h_ry, "ry": qml.RY, "h_rz": _h_rz, "rx_rz": _rx_rz}
"""How one number becomes the state of one qubit that was in |0⟩ before: the gates that take it as their angle."""

ROTATIONS = {"ry": 1, "rot": 3}
"""The rotations of a layer, with the number of their angles: R_Y, which keeps all amplitudes real, or any rotation."""


def variational(
    x: TensorLike,
    theta: TensorLike,
    scramblers: TensorLike | None = None,
    *,
    entangler: str = "ring",
    encoding: str = "h_ry",
) -> None:
    """The circuits that others put between two layers of a network: encoding, then layers of [entangler, rotations]; again.

    Args:
        x: encoded data, shape `(..., n_qubits)`.
        theta: trainable angles `(uploads, depth, n_qubits, k)`: how often the data enters, how many layers follow each time,
            and the angles of a rotation, 1 for R_Y and 3 for Rot.
        scramblers: unitary matrices `(uploads, depth, 2**n_qubits, 2**n_qubits)` that stand in place of the entanglers; they
            act on rows of amplitudes from the right.
        entangler: one of `ENTANGLERS`.
        encoding: one of `ENCODINGS`.

    One upload by `h_ry` with R_Y is `layered`. Used in book/evidence/universe, and with scramblers in book/evidence/controls.
    Uploads: Pérez-Salinas et al. 2020.
    """
    n_qubits = x.shape[-1]
    for upload, layers in enumerate(theta):
        for i in range(n_qubits):
            ENCODINGS[encoding](x[..., i], i)
        for number, layer in enumerate(layers):
            if scramblers is not None:
                qml.QubitUnitary(scramblers[upload, number].T, wires=range(n_qubits))
            for pair in cnot_pairs(n_qubits, entangler if scramblers is None else "none"):
                qml.CNOT(pair)
            for i, angles in enumerate(layer):
                (qml.RY if len(angles) == 1 else qml.Rot)(*angles, wires=i)


@lru_cache
def given(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    """A function some of whose arguments are given, the same object whenever it is asked for: so a circuit is traced once."""
    return partial(function, *args, **options)


def expval_z(n_qubits: int) -> list[ExpectationMP]:
    """⟨Z_i⟩ of each of `n_qubits` qubits: what a layered circuit hands to the next classical layer, each in [-1, 1]."""
    return [qml.expval(qml.Z(i)) for i in range(n_qubits)]


def qnode(
    circuit: Callable[..., None],
    measure: Callable[[], Any],
    n_qubits: int,
    device: str | Device = "default.qubit",
    shots: int = 0,
    seed: int | None = None,
    **options: Any,
) -> qml.QNode:
    """A `QNode` that runs `circuit(*args)` from |0…0⟩ and returns `measure()`.

    Args:
        circuit: a function of this module (or any quantum function).
        measure: called after the gates; returns PennyLane measurements.
        n_qubits: number of wires of the device.
        device: any PennyLane device, or its name.
        shots: measurements per circuit; 0 is exact.
        seed: of the simulated measurements of a device given by name; `None` takes a fresh one.
        options: handed to `qml.QNode`, e.g. `diff_method="parameter-shift"`, or `interface=None` for NumPy instead of torch.

    Raises:
        ValueError: a number of qubits or of shots, or a seed, that is none.
    """
    require_sizes(n_qubits)
    require_shots(shots, seed)

    def run(*args: Any, **kwargs: Any) -> Any:
        circuit(*args, **kwargs)
        return measure()

    run.__name__ = getattr(circuit, "__name__", "circuit")
    backend = device
    if isinstance(device, str):
        backend = qml.device(device, wires=n_qubits, **({} if seed is None else {"seed": seed}))
    node = qml.QNode(run, backend, **{"interface": "torch"} | options)
    return qml.set_shots(node, shots) if shots else node


def prepared_state(circuit: Callable[..., None], n_qubits: int, *args: Any, **kwargs: Any) -> Tensor:
    """The state vector that `circuit(*args)` prepares from |0…0⟩: complex, shape `(2**n_qubits,)`, qubit 0 leftmost."""
    return qnode(circuit, qml.state, n_qubits)(*args, **kwargs)
