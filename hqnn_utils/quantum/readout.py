"""What is measured: from final states to the outputs of a layer, exactly or by a number of measurements.

Expectation values and probabilities are linear in the probabilities of basis states, once gates have turned the state to the
axes that are measured. So each *setting*, which all measurements share that it allows, is read by one matrix product. A
variance is ⟨O²⟩ - ⟨O⟩², of two such numbers.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple, no_type_check

import numpy as np
import pennylane as qml
import torch
from numpy import ndarray
from pennylane.measurements import ExpectationMP, MeasurementProcess, ProbabilityMP, VarianceMP
from pennylane.operation import Operator
from torch import Tensor

from hqnn_utils.quantum.angles import CircuitAngles, converted
from hqnn_utils.quantum.fusion import Plan
from hqnn_utils.quantum.matrices import TO_Z, numbers_of, signs
from hqnn_utils.quantum.steps import Steps
from hqnn_utils.quantum.tracing import Fixed, Refused

DENSE_QUBITS = 10
"""Beyond, signs of words are products of those of both halves of the qubits, and not one column each."""

SINGLE_QUBITS = 6
"""Up to so many qubits, sums over probabilities are in the precision of these; in float32 longer ones would drift."""

NO_ANGLES = CircuitAngles(torch.zeros(0), torch.zeros(1, 0))
"""For states that fixed gates turn."""


class Column(NamedTuple):
    """A number that is linear in probabilities: of a word of Z, or of some qubits' basis states."""

    output: int
    wires: tuple[int, ...]
    values: ndarray | float
    """`(2**k,)`, for each basis state of these wires; or the factor of the product of their signs."""


class Setting(NamedTuple):
    """What is measured at once: gates that turn the state, and what is read from the probabilities then."""

    turns: list[Fixed]
    letters: dict[int, str]
    columns: list[Column]

    @property
    def gates(self) -> list[Fixed]:
        """All gates before the probabilities."""
        return self.turns + [Fixed((wire,), TO_Z[letter]) for wire, letter in self.letters.items() if letter in TO_Z]


class Measured:
    """All measurements of a circuit, in as few settings as a greedy choice finds.

    Attributes:
        sizes: how many outputs each measurement has.
        squared: the outputs that are variances; behind all outputs stand their expectation values, in this order.
    """

    def __init__(self, measurements: Sequence[MeasurementProcess], wires: Sequence[Any]):
        self.wires, self.settings, self.sizes = wires, list[Setting](), list[int]()
        variances: list[tuple[int, Operator]] = []
        for measured in measurements:
            output = sum(self.sizes)
            if unknown := [wire for wire in measured.wires if wire not in wires]:
                raise Refused(f"the wire {unknown[0]!r} is measured, and the layer has the wires {list(wires)}")
            own = measured.obs
            if isinstance(measured, VarianceMP) and own is not None and self._observable(own, output, square=True):
                variances.append((output, own))
                self.sizes.append(1)
            else:
                self.sizes.append(self._linear(measured, output))
        self.squared = [output for output, _ in variances]
        for place, (_, observable) in enumerate(variances, sum(self.sizes)):
            self._observable(observable, place)

    def _linear(self, measured: MeasurementProcess, output: int) -> int:
        """Columns of an expectation value or of probabilities; how many outputs these are."""
        own = measured.obs
        if isinstance(measured, ProbabilityMP) and own is None:
            at = self._places(measured.wires or self.wires)
            if len(at) > DENSE_QUBITS:
                raise Refused(f"{len(at)} qubits have {2 ** len(at)} probabilities: measure those of {DENSE_QUBITS} at most")
            columns = [Column(output + i, at, row) for i, row in enumerate(np.eye(2 ** len(at)))]
            self._setting(dict.fromkeys(at, "Z")).columns.extend(columns)
            return len(columns)
        if isinstance(measured, ExpectationMP) and own is not None and self._observable(own, output):
            return 1
        if isinstance(measured, ProbabilityMP) and own is not None and own.has_diagonalizing_gates:
            return self._turned(own, output, np.eye(2 ** len(own.wires)))
        raise Refused(
            f"{measured} cannot be measured here: take expectation values, probabilities, or the state alone; or keep "
            "PennyLane's TorchLayer for this circuit"
        )

    def _observable(self, own: Operator, output: int, *, square: bool = False) -> bool:
        """Columns of ⟨O⟩ or of ⟨O²⟩, if it can be measured."""
        if own.pauli_rep is not None:
            for word, factor in (own.pauli_rep @ own.pauli_rep if square else own.pauli_rep).items():
                letters = dict(zip(self._places(word), word.values(), strict=True))
                self._setting(letters).columns.append(Column(output, tuple(letters), complex(factor).real))
        elif own.has_diagonalizing_gates:
            self._turned(own, output, [np.real(own.eigvals()) ** (1 + square)])
        return own.pauli_rep is not None or own.has_diagonalizing_gates

    def _turned(self, own: Operator, output: int, rows: Iterable[ndarray]) -> int:
        """Columns of values in the basis of an observable."""
        turns = [Fixed(self._places(gate.wires), np.asarray(qml.matrix(gate))) for gate in own.diagonalizing_gates()]
        columns = [Column(output + i, self._places(own.wires), row) for i, row in enumerate(rows)]
        self.settings.append(Setting(turns, {}, columns))
        return len(columns)

    def _setting(self, letters: dict[int, str]) -> Setting:
        """One that measures these axes, or that can."""
        for known in self.settings:
            if not known.turns and all(known.letters.get(wire, letter) == letter for wire, letter in letters.items()):
                known.letters.update(letters)
                return known
        self.settings.append(Setting([], dict(letters), []))
        return self.settings[-1]

    def _places(self, wires: Iterable[Any]) -> tuple[int, ...]:
        return tuple(self.wires.index(wire) for wire in wires)


@no_type_check
class Outcomes(NamedTuple):
    """From probabilities `(rows, 2**n)` to all outputs: `left.T @ p @ right`, with p as a matrix, and then mixed."""

    left: Tensor | None  # (2**l, lefts)
    right: Tensor  # (2**(n - l), rights)
    mix: Tensor | None  # (lefts * rights, outputs)

    def read(self, p: Tensor) -> Tensor:
        """All outputs, `(rows, outputs)`."""
        p = p if p.dtype == self.right.dtype else p.to(self.right.dtype)
        if self.left is None:
            return p @ self.right
        halves = p.unflatten(-1, (self.left.shape[0], -1)) @ self.right
        return (self.left.mT @ halves).flatten(-2) @ self.mix


def _outcomes(columns: Sequence[Column], n_outputs: int, layout: Sequence[int]) -> Outcomes:
    n = len(layout)
    if n <= DENSE_QUBITS or any(isinstance(column.values, ndarray) for column in columns):
        right = np.zeros((2**n, n_outputs))
        for output, wires, values in columns:
            if isinstance(values, ndarray):
                right[:, output] += values[numbers_of(wires, layout)]
            else:
                right[:, output] += values * signs("Z" * len(wires), wires, layout)
        return Outcomes(None, torch.from_numpy(right), None)
    halves = layout[: n // 2], layout[n // 2 :]
    parts = [[tuple(wire for wire in half if wire in column.wires) for column in columns] for half in halves]
    kinds = [sorted(set(part)) for part in parts]
    left, right = (
        np.stack([signs("Z" * len(wires), wires, half) for wires in kind], axis=1)
        for half, kind in zip(halves, kinds, strict=True)
    )
    mix = np.zeros((len(kinds[0]), len(kinds[1]), n_outputs))
    for column, a, b in zip(columns, *parts, strict=True):
        mix[kinds[0].index(a), kinds[1].index(b), column.output] += column.values
    return Outcomes(*map(torch.from_numpy, (left, right, mix.reshape(-1, n_outputs))))


def probabilities(psi: Tensor) -> Tensor:
    """Of all basis states."""
    return torch.view_as_real(psi).square().sum(-1) if psi.is_complex() else psi * psi


def sampled(p: Tensor, shots: int, generator: torch.Generator | None) -> Tensor:
    """How often each basis state is found in `shots` measurements, as a share of them.

    Args:
        p: probabilities `(*batch, 2**n)`, in float64: added up in float32, the last ones of many would never be seen.
        shots: how many measurements; `torch.multinomial` would end at 2**24.
        generator: of the outcomes; torch's own by default.

    Raises:
        ValueError: probabilities of states that cannot be measured.

    Memory beyond that of p, in numbers of 8 bytes: `batch * (2 * 2**n + 2 * shots)`.
    """
    below = p.detach().cumsum(-1)
    total = below[..., -1:]
    if not (measurable := total.isfinite() & (total > 0)).all():
        place = (~measurable).nonzero()[0, :-1].tolist()
        raise ValueError(f"the state psi{place or ''} is zero, NaN or infinite and cannot be measured: normalise it")
    if p.shape[-1] == 2:  # a coin
        zeros = torch.binomial(torch.full_like(total, shots), below[..., :1] / total, generator)
        return torch.cat([zeros, shots - zeros], dim=-1) / shots
    drawn = torch.rand(*p.shape[:-1], shots, dtype=torch.float64, device=p.device, generator=generator)
    found = torch.searchsorted(below[..., :-1].contiguous(), drawn.mul_(total), right=True)
    return torch.zeros_like(below).scatter_add_(-1, found, torch.ones_like(drawn)) / shots


@no_type_check
class Readout(NamedTuple):
    """From final states to all outputs: for each setting how these are turned, and what is read from the probabilities."""

    turns: Sequence[Steps | None]
    outcomes: Sequence[Outcomes]
    squared: Tensor | None  # (variances, outputs), 1 where an output is the variance
    dtype: torch.dtype
    kept: int
    """As of a plan."""

    def probabilities(self, psi: Tensor) -> list[Tensor]:
        """Of the basis states, in each setting."""
        return [probabilities(psi if turn is None else turn.onward(psi, NO_ANGLES)) for turn in self.turns]

    def exactly(self, psi: Tensor) -> Tensor:
        """All outputs."""
        return self.read(self.probabilities(psi))

    def means(self, psi: Tensor, shots: int, generator: torch.Generator) -> Tensor:
        """The means of so many measurements in each setting."""
        wide = psi.to(torch.complex128 if psi.is_complex() else torch.float64)
        return self.read([sampled(p, shots, generator) for p in self.probabilities(wide)])

    def read(self, p: Sequence[Tensor]) -> Tensor:
        """The outputs of probabilities in each setting."""
        found = reduce(torch.add, (of.read(each) for of, each in zip(self.outcomes, p, strict=True)))
        if self.squared is not None:
            n_outputs = self.squared.shape[-1]
            found = found[:, :n_outputs] - found[:, n_outputs:].square() @ self.squared
        return found if found.dtype == self.dtype else found.to(self.dtype)


def readout_of(measured: Measured, plan: Plan, dtype: torch.dtype, device: torch.device) -> Readout:
    """What is measured of the plan's states, which are turned to the only setting already, where there is no other."""
    n_outputs, n_variances = sum(measured.sizes), len(measured.squared)
    several = len(measured.settings) > 1
    turns = [
        Plan(gates, plan.n_qubits, (0, 0), plan.layout, plan.is_complex) if several and gates else None
        for gates in (setting.gates for setting in measured.settings)
    ]
    outcomes = [
        _outcomes(setting.columns, n_outputs + n_variances, turn.layout if turn else plan.layout)
        for setting, turn in zip(measured.settings, turns, strict=True)
    ]
    squared = torch.eye(n_outputs, dtype=torch.float64)[measured.squared] if n_variances else None
    sums = dtype if plan.n_qubits <= SINGLE_QUBITS else torch.float64
    # Of each turned state and its probabilities; a single one is the plan's.
    kept = sum(turn.kept if turn else 2 + plan.is_complex for turn in turns) if several else 0
    steps = [turn.tensors(dtype, device) if turn else None for turn in turns]
    outcomes, squared = converted((outcomes, squared), sums, device)
    return Readout(steps, outcomes, squared, dtype, kept)
