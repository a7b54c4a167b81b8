"""A trace held against PennyLane at values that it has not seen, so that no circuit is computed wrongly without a word.

Where a circuit depends on values other than through its gates, by a number taken out of a tensor, by a random choice, a run at
other values has other gates than the trace, or other angles. And whether a gate was taken apart rightly is told by its matrix.
Neither needs a state, so circuits of any width are checked. Derived in book/foundations/simulation.
"""

from collections.abc import Iterator
from math import pi
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.operation import Operator

from hqnn_utils.quantum import tracing
from hqnn_utils.quantum.angles import CircuitAngles
from hqnn_utils.quantum.matrices import embedded, word_matrix
from hqnn_utils.quantum.tracing import Definition, Fixed, Gate, Noise, Recording, Refused, Rotation, Seen, Traced

RANGES = (0.0, 1.0), (-pi, pi)
"""Between which inputs and weights are drawn: as for the trace, where any function of them may be defined, and anywhere."""


def verify(traced: Traced, definition: Definition, n_inputs: int) -> None:
    """Run the circuit again, at other values.

    Raises:
        Refused: other gates, angles, matrices, states or measurements than those of the trace.
    """
    for seed, (low, high) in enumerate(RANGES, 2):
        x, *weights = tracing.drawn(definition, n_inputs, seed, low, high)
        run = Recording(definition, x.unsqueeze(0) if traced.by_batch else x, weights)
        angles = traced.sources.angles(x.unsqueeze(0), weights)
        different = next(_differences(traced, run, angles), None)
        if different is not None:
            raise Refused(
                f"at other values PennyLane finds another {different} than the trace: something in it depends on values other "
                "than through gates (an if, a number out of a tensor, a random choice). Keep PennyLane's TorchLayer for it"
            )
    for op in run.operations:
        _verify_matrix(op)


def _differences(traced: Traced, run: Recording, angles: CircuitAngles) -> Iterator[str]:
    if len(run.gates) != len(traced.gates) or run.returned != traced.returned:
        yield "circuit"
    for gate, again in zip(traced.gates, run.gates, strict=False):
        name = again.what if again.kind is Rotation else again.what.name
        if not _is_same(gate, again, angles):
            yield f"{name} on the qubits {gate.wires}"
    for one, other in zip(traced.measurements, run.measurements, strict=False):
        if not qml.equal(one, other):
            yield f"measurement {one}"


def _is_same(gate: Gate, again: Seen, angles: CircuitAngles) -> bool:
    if gate.wires != (again.wires or (0,)):
        return False
    if isinstance(gate, Noise):
        return again.kind is Noise and qml.equal(gate.gate, again.what)
    if isinstance(gate, Fixed):
        return again.kind is not Noise and _is_close(tracing.fixed(again, again.value).matrix, gate.matrix)
    if again.value is None or again.kind is not type(gate):
        return False
    if isinstance(gate, Rotation):
        ours = (angles.data if gate.data else angles.shared).reshape(-1)[gate.angle]
        return gate.word == (again.what or "I") and _is_close(ours, again.value)
    array = angles.array(gate.output, gate.data)
    return _is_close(array[0] if gate.data else array, again.value)


def _is_close(one: Any, other: Any) -> bool:
    one, other = qml.math.toarray(one), qml.math.toarray(other)
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)


def _verify_matrix(op: Operator) -> None:
    """Whether the elementary gates of a gate multiply to the matrix that PennyLane gives it."""
    if tracing.is_constant(op) or isinstance(op, (qml.StatePrep, qml.operation.Channel)):
        return
    with tracing.taking_apart():
        if len(op.wires) > tracing.MATRIX_WIRES or not op.has_matrix:
            for part in op.decomposition() if op.has_decomposition else ():
                _verify_matrix(part)
            return
        wires = list(range(len(op.wires)))
        found = np.eye(2 ** len(wires))
        for gate in map(_multiplied, tracing.seen(op, op.wires)):
            found = embedded(gate.matrix, gate.wires, wires) @ found
        if not _is_close(found, op.matrix().reshape(found.shape)):
            raise Refused(f"{op.name} has another matrix than the gates it was taken apart into: write it as other gates")


def _multiplied(gate: Seen) -> Fixed:
    """A gate with the angle or the matrix that it has in this run."""
    if gate.kind is not Rotation or gate.value is None:
        return tracing.fixed(gate, gate.value)
    half, word = float(gate.value) / 2, word_matrix(gate.what)
    return Fixed(gate.wires, np.cos(half) * np.eye(len(word)) - 1j * np.sin(half) * word)
