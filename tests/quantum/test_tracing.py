"""What a trace makes of quantum functions: random circuits of all gates are PennyLane's, and others are refused in a sentence.

The oracle is default.qubit, differentiated by backpropagation, one row of the input after the other.
"""

from collections.abc import Callable
from random import Random

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hqnn_utils.quantum.compilation import program
from hqnn_utils.quantum.layers import CircuitLayer
from hqnn_utils.quantum.tracing import Fixed, Given, Refused, Rotation, Start

as_hard = settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(circuit, n_qubits: int, shapes: dict, measure=None, **options) -> CircuitLayer:
    """A layer in float64 whose weights are the same for all options."""
    layer = CircuitLayer(circuit, n_qubits, shapes, measure, **options).double()
    layer.load_state_dict({name: numbers(*weight.shape, seed=1) for name, weight in layer.state_dict().items()})
    return layer


def value_and_gradients(function: Callable[[], Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    """The value, and the gradients of a sum of its numbers in which no two have the same weight."""
    value = function()
    real = torch.view_as_real(value) if value.is_complex() else value
    loss = (real * numbers(*real.shape, seed=2)).sum()
    return value.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def of_layer(layer: CircuitLayer, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    return value_and_gradients(lambda: layer(x), x, *layer.parameters())


def of_pennylane(layer: CircuitLayer, x: Tensor) -> tuple[Tensor, ...]:
    """The oracle, of the definition of a layer."""
    x, weights, wires = x.clone().requires_grad_(), dict(layer.named_parameters()), layer.definition.wires

    @qml.qnode(qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop")
    def node(row):
        layer.definition.circuit(row, **weights)
        return layer.definition.measure()

    def values() -> Tensor:
        rows = []
        for row in x.reshape(-1, x.shape[-1]):
            found = node(row)
            several = isinstance(found, (list, tuple))
            rows.append(torch.cat([value.reshape(-1) for value in found]) if several else found)
        return torch.stack(rows).reshape(*x.shape[:-1], *rows[0].shape)

    return value_and_gradients(values, x, *layer.parameters())


def assert_is_pennylane(layer: CircuitLayer, x: Tensor) -> None:
    torch.testing.assert_close(of_layer(layer, x), of_pennylane(layer, x), atol=1e-10, rtol=1e-10)


# Random circuits


PLAIN = [
    *(qml.RX, qml.RY, qml.RZ, qml.Rot, qml.U1, qml.U2, qml.U3, qml.PhaseShift, qml.CRX, qml.CRY, qml.CRZ, qml.CRot),
    *(qml.ControlledPhaseShift, qml.CPhaseShift00, qml.CPhaseShift01, qml.CPhaseShift10, qml.IsingXX, qml.IsingYY),
    *(qml.IsingZZ, qml.IsingXY, qml.SingleExcitation, qml.SingleExcitationPlus, qml.SingleExcitationMinus),
    *(qml.DoubleExcitation, qml.DoubleExcitationPlus, qml.DoubleExcitationMinus, qml.FermionicSWAP, qml.OrbitalRotation),
    *(qml.PSWAP, qml.CNOT, qml.CZ, qml.CY, qml.CH, qml.SWAP, qml.ISWAP, qml.SISWAP, qml.ECR, qml.Toffoli, qml.CCZ),
    *(qml.CSWAP, qml.S, qml.T, qml.SX, qml.Hadamard, qml.X, qml.Y, qml.Z),
]
"""Gates of as many angles and wires as their classes say."""

Angle = Callable[[], object]
Apply = Callable[[list[int], Angle, Tensor, Random], object]
"""A gate on some of all wires, shuffled, of angles that are drawn, and of numbers."""


def skew(values: Tensor, size: int) -> Tensor:
    """An orthogonal matrix of numbers."""
    matrix = values.repeat(size**2)[: size**2].reshape(size, size) * torch.arange(1, size**2 + 1).reshape(size, size) / 7
    return torch.linalg.matrix_exp(matrix - matrix.T)


def random_unitary(size: int) -> np.ndarray:
    real, imaginary = np.random.default_rng(0).normal(size=(2, size, size))
    return np.linalg.qr(real + 1j * imaginary)[0]


def pauli_word(k: int, random: Random, letters: str = "IXYZ") -> str:
    return "".join(random.choice(letters) for _ in range(k))


def phases(values: Tensor) -> Tensor:
    return torch.exp(1j * torch.cat([values[:1], values[:1] ** 2]))


def some(wires: list[int], random: Random) -> list[int]:
    return wires[: random.randint(1, len(wires))]


OTHERS: dict[str, tuple[int, Apply]] = {
    "GlobalPhase": (1, lambda w, a, v, r: qml.GlobalPhase(a())),
    "controlled GlobalPhase": (1, lambda w, a, v, r: qml.ctrl(qml.GlobalPhase(a()), w[0])),
    "MultiRZ": (1, lambda w, a, v, r: qml.MultiRZ(a(), some(w, r))),
    "PauliRot": (1, lambda w, a, v, r: qml.PauliRot(a(), pauli_word(len(w), r), w)),
    "PauliRot of I": (1, lambda w, a, v, r: qml.PauliRot(a(), "I" * len(w), w)),
    "PCPhase": (2, lambda w, a, v, r: qml.PCPhase(a(), 3, w[:2])),
    "MultiControlledX": (2, lambda w, a, v, r: qml.MultiControlledX(w, [r.randint(0, 1) for _ in w[1:]])),
    "controlled Rot": (3, lambda w, a, v, r: qml.ctrl(qml.Rot, w[:2], [0, 1])(a(), a(), a(), wires=w[2])),
    "controlled RY": (2, lambda w, a, v, r: qml.ctrl(qml.RY, some(w[1:], r))(a(), wires=w[0])),
    "controlled IsingXY": (3, lambda w, a, v, r: qml.ctrl(qml.IsingXY(a(), w[:2]), w[2])),
    "adjoint of RX": (1, lambda w, a, v, r: qml.adjoint(qml.RX(a(), w[0]))),
    "adjoint of CRot": (2, lambda w, a, v, r: qml.adjoint(qml.CRot)(a(), a(), a(), wires=w[:2])),
    "adjoint of S": (1, lambda w, a, v, r: qml.adjoint(qml.S(w[0]))),
    "adjoint of QFT": (1, lambda w, a, v, r: qml.adjoint(qml.QFT)(wires=w)),
    "adjoint of a template": (2, lambda w, a, v, r: qml.adjoint(qml.AngleEmbedding)(v[:2], w[:2], rotation="Y")),
    "controlled adjoint": (2, lambda w, a, v, r: qml.ctrl(qml.adjoint(qml.U3(a(), a(), a(), w[0])), w[1])),
    "power": (1, lambda w, a, v, r: qml.pow(qml.RX(a(), w[0]), 2)),
    "root": (2, lambda w, a, v, r: qml.pow(qml.SWAP(w[:2]), 0.5)),
    "product": (2, lambda w, a, v, r: qml.prod(qml.RX(a(), w[0]), qml.CRY(a(), w[:2]), qml.RZ(a(), w[1]))),
    "evolution": (2, lambda w, a, v, r: qml.evolve(qml.Z(w[0]) @ qml.X(w[1]) + 0.3 * qml.Z(w[0]), a())),
    "evolution of X + Z": (1, lambda w, a, v, r: qml.evolve(qml.X(w[0]) + 0.3 * qml.Z(w[0]), a())),
    "fixed exponential": (2, lambda w, a, v, r: qml.exp(qml.Z(w[0]) @ qml.Y(w[1]), 0.4j)),
    "fixed matrix": (2, lambda w, a, v, r: qml.QubitUnitary(random_unitary(4), w[:2])),
    "fixed large matrix": (6, lambda w, a, v, r: qml.QubitUnitary(random_unitary(64), w[:6])),
    "matrix": (1, lambda w, a, v, r: qml.QubitUnitary(skew(v, 2), w[0])),
    "large matrix": (2, lambda w, a, v, r: qml.QubitUnitary(skew(v, 4), w[:2])),
    "controlled matrix": (2, lambda w, a, v, r: qml.ctrl(qml.QubitUnitary(skew(v, 2), w[0]), w[1])),
    "adjoint matrix": (2, lambda w, a, v, r: qml.adjoint(qml.QubitUnitary(skew(v, 4), w[:2]))),
    "fixed diagonal": (1, lambda w, a, v, r: qml.DiagonalQubitUnitary(np.exp([0.3j, -1j]), w[0])),
    "diagonal": (1, lambda w, a, v, r: qml.DiagonalQubitUnitary(phases(v), w[0])),
    "QFT": (1, lambda w, a, v, r: qml.QFT(w)),
    "Permute": (2, lambda w, a, v, r: qml.Permute(w, sorted(w))),
    "Grover": (2, lambda w, a, v, r: qml.GroverOperator(w)),
    "AngleEmbedding": (1, lambda w, a, v, r: qml.AngleEmbedding(v[: len(w)], w, rotation=r.choice("XYZ"))),
    "IQPEmbedding": (2, lambda w, a, v, r: qml.IQPEmbedding(v[: len(w)], w[: len(v)], n_repeats=2)),
    "QAOAEmbedding": (2, lambda w, a, v, r: qml.QAOAEmbedding(v[:2], torch.stack([v[:3], v[1:4]]), w[:2])),
    "BasicEntanglerLayers": (2, lambda w, a, v, r: qml.BasicEntanglerLayers(v[None, : len(w)], w[: len(v)], rotation=qml.RY)),
    "StronglyEntanglingLayers": (2, lambda w, a, v, r: qml.StronglyEntanglingLayers(v.repeat(3).reshape(2, 2, 3), w[:2])),
    "SimplifiedTwoDesign": (2, lambda w, a, v, r: qml.SimplifiedTwoDesign(v[:2], v[None, None, 2:], w[:2])),
    "RandomLayers": (2, lambda w, a, v, r: qml.RandomLayers(v[None], w, seed=5)),
    "ApproxTimeEvolution": (
        2,
        lambda w, a, v, r: qml.ApproxTimeEvolution(qml.Z(w[0]) @ qml.Z(w[1]) + 0.5 * qml.X(w[0]), a(), 2),
    ),
    "Identity": (1, lambda w, a, v, r: qml.Identity(w)),
    "Barrier": (1, lambda w, a, v, r: qml.Barrier(w)),
    "Snapshot": (1, lambda w, a, v, r: qml.Snapshot("here")),
}

STARTS: dict[str, Apply] = {
    "none": lambda w, a, v, r: None,
    "BasisState": lambda w, a, v, r: qml.BasisState([r.randint(0, 1) for _ in w], w),
    "fixed state": lambda w, a, v, r: qml.StatePrep(random_unitary(2 ** min(3, len(w)))[0], w[:3]),
    "amplitudes": lambda w, a, v, r: qml.AmplitudeEmbedding(v, w, normalize=True, pad_with=0.3 if len(w) > 2 else None),
    "amplitudes of some": lambda w, a, v, r: qml.AmplitudeEmbedding(v, w[:2], normalize=True),
    "normalised": lambda w, a, v, r: qml.StatePrep(v / torch.linalg.vector_norm(v), w[:2]),
}

ALL: dict[str, tuple[int, Apply]] = OTHERS | {
    op.__name__: (op.num_wires, lambda w, a, v, r, op=op: op(*(a() for _ in range(op.num_params)), wires=w[: op.num_wires]))
    for op in PLAIN
}

ANGLES: list[Callable[[Tensor, Tensor, Random], object]] = [
    lambda x, w, r: x[r.randrange(4)],
    lambda x, w, r: w[r.randrange(4)],
    lambda x, w, r: x[..., 0] * w[1],
    lambda x, w, r: x[r.randrange(4)] + w[r.randrange(4)] - 0.5,
    lambda x, w, r: 0.7,
    lambda x, w, r: np.pi * x[r.randrange(4)],
    lambda x, w, r: x[1] ** 2,
    lambda x, w, r: w[2] ** 2 / 2,
    lambda x, w, r: (np.pi - x[0]) * (np.pi - x[1]),
    lambda x, w, r: torch.arctan(x[2] * 1.3),
    lambda x, w, r: torch.exp(-w[3] * x[3]),
    lambda x, w, r: torch.dot(w, x),
    lambda x, w, r: x[0] * x[1] * w[0],
    lambda x, w, r: torch.sigmoid(w).sum(),
    lambda x, w, r: (x @ torch.outer(w, w))[1],
    lambda x, w, r: -x.flip(0).cumsum(0)[2],
    lambda x, w, r: torch.tensor(0.2, dtype=torch.float64),
]
"""Data, weights, both, neither: polynomials of second degree and what is none."""


def random_circuit(names: list[str], start: str, n: int, seed: int) -> Callable[..., None]:
    """The circuit of named gates on wires and angles that a seed draws, the same at every call."""

    def circuit(x: Tensor, w: Tensor, v: Tensor) -> None:
        random = Random(seed)

        def angle() -> object:
            return random.choice(ANGLES)(x, w, random)

        STARTS[start](random.sample(range(n), n), angle, random.choice([x, w]), random)
        for wire in range(n):
            qml.RY(v + wire, wire)
            qml.RX(w[wire % 4], wire)
        for name in names:
            ALL[name][1](random.sample(range(n), n), angle, random.choice([x, w, x * w]), random)

    return circuit


def probabilities_of_some(n: int, random: Random):
    return qml.probs(wires=random.sample(range(n), random.randint(1, n)))


def words(n: int, random: Random, letters: str = "IXYZ") -> list:
    return [qml.pauli.string_to_pauli_word(pauli_word(n, random, letters)) for _ in range(3)]


MEASURES: dict[str, Callable[[int, Random], object]] = {
    "state": lambda n, r: qml.state(),
    "probabilities": lambda n, r: qml.probs(wires=range(n)),
    "probabilities of all": lambda n, r: qml.probs(),
    "probabilities of some": probabilities_of_some,
    "probabilities in a basis": lambda n, r: qml.probs(op=qml.Y(r.randrange(n))),
    "word": lambda n, r: qml.expval(words(n, r)[0]),
    "words": lambda n, r: [qml.expval(word) for word in words(n, r)],
    "sum": lambda n, r: qml.expval(qml.dot([0.5, -1.3, 2], words(n, r))),
    "Hamiltonian and more": lambda n, r: (
        qml.expval(qml.Hamiltonian([0.3, 0.7], words(n, r, "XYZ")[:2])),
        qml.probs(wires=0),
        qml.expval(qml.X(n - 1)),
        qml.expval(qml.Hadamard(0)),
    ),
    "Hermitian": lambda n, r: qml.expval(qml.Hermitian(np.array([[1, 2 - 1j], [2 + 1j, -0.3]]), r.randrange(n))),
    "projector": lambda n, r: qml.expval(qml.Projector([r.randint(0, 1) for _ in range(n)], range(n))),
    "variance of a word": lambda n, r: qml.var(words(n, r)[0]),
    "variances and more": lambda n, r: [
        qml.var(qml.dot([0.5, -1.3, 2], words(n, r))),
        qml.expval(qml.Z(0)),
        qml.var(qml.Hermitian(np.array([[1, 2 - 1j], [2 + 1j, -0.3]]), r.randrange(n))),
    ],
    "state projector": lambda n, r: [qml.expval(qml.Projector(random_unitary(2)[0], 0)), qml.expval(qml.Z(0))],
}


def random_layer(names: list[str], start: str, measure: str, n: int, seed: int) -> CircuitLayer:
    circuit = random_circuit([name for name in names if ALL[name][0] <= n], start, n, seed)
    return layer_of(circuit, n, {"w": 4, "v": ()}, lambda: MEASURES[measure](n, Random(seed)))


@as_hard
@given(
    names=st.lists(st.sampled_from(sorted(ALL)), min_size=1, max_size=10),
    start=st.sampled_from(sorted(STARTS)),
    measure=st.sampled_from(sorted(MEASURES)),
    n=st.integers(2, 8),
    seed=st.integers(0, 1000),
)
def test_random_circuits_are_pennylanes_in_value_and_gradient(names, start, measure, n, seed):
    assert_is_pennylane(random_layer(names, start, measure, n, seed), numbers(2, 4, seed=seed))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_gate_is_pennylanes_in_value_and_gradient(name):
    assert_is_pennylane(random_layer([name], "none", "state", max(ALL[name][0], 3), 3), numbers(1, 4))


@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("start", sorted(STARTS))
def test_every_start_and_measurement_is_pennylanes_in_value_and_gradient(start, measure):
    assert_is_pennylane(random_layer(["CRY", "IsingXX"], start, measure, 3, 4), numbers(1, 4))


@pytest.mark.parametrize("i", range(len(ANGLES)))
def test_every_kind_of_angle_is_pennylanes_in_value_and_gradient(i):
    def circuit(x, w):
        qml.RX(w[0], 0)
        qml.RY(ANGLES[i](x, w, Random(i)), 0)
        qml.CRZ(ANGLES[i](x, w, Random(i)), [0, 1])

    assert_is_pennylane(layer_of(circuit, 2, {"w": 4}), numbers(3, 4))


# What gates become


def traced(circuit, n_qubits: int, shapes: dict):
    """What a circuit of two inputs is made of."""
    return program(CircuitLayer(circuit, n_qubits, shapes).key, 2).traced


def test_rotations_are_kept_as_words_and_others_as_matrices():
    def circuit(x, w):
        qml.StatePrep(x / torch.linalg.vector_norm(x), 0)
        qml.IsingXY(x[0], [0, 1])
        qml.CNOT([0, 1])
        qml.QubitUnitary(skew(w, 2), 1)
        qml.Barrier()
        qml.Identity(0)

    start, first, second, cnot, matrix = traced(circuit, 2, {"w": 2}).gates
    assert (first.word, second.word) == ("XX", "YY") and isinstance(first, Rotation)
    assert isinstance(start, Start) and isinstance(cnot, Fixed) and type(matrix) is Given
    assert (start.data, first.data, matrix.data) == (True, True, False)


@pytest.mark.parametrize(
    ("gate", "rotations"),
    [
        (qml.RX, {"X"}),
        (qml.CRX, {"IX", "ZX"}),
        (qml.ControlledPhaseShift, {"II", "IZ", "ZI", "ZZ"}),
        (qml.SingleExcitation, {"XY", "YX"}),
        (qml.IsingZZ, {"ZZ"}),
    ],
)
def test_a_gate_of_one_angle_is_a_product_of_rotations_of_commuting_words(gate, rotations):
    gates = traced(lambda x, w: gate(w, wires=range(gate.num_wires)), 2, {"w": ()}).gates
    words = {"".join(dict(zip(g.wires, g.word, strict=True)).get(i, "I") for i in range(gate.num_wires)) for g in gates}
    assert words == rotations and all(isinstance(g, Rotation) and not g.data for g in gates)


def test_weights_and_inputs_as_they_are_need_no_function_and_polynomials_no_graph():
    def as_they_are(x, w):
        qml.AngleEmbedding(x, range(2))
        qml.StronglyEntanglingLayers(w, range(2))

    def polynomials(x, w):
        for row in w[0]:
            qml.RX(row[0] * x[0] + row[1] - x[1] ** 2, 0)
            qml.RY(row[2], 0)

    def functions(x, w):
        qml.RX(torch.sin(w[0, 0, 0]) + x[0] * 0, 0)

    shapes = {"w": (1, 2, 3)}
    found = [traced(circuit, 2, shapes).sources.data for circuit in (as_they_are, polynomials, functions)]
    assert [0 if pool.polynomials is None else pool.polynomials.linear.shape[1] for pool in found] == [0, 2, 0]
    assert [pool.others is not None for pool in found] == [False, False, True]


def test_one_measured_setting_serves_all_words_that_share_their_axes():
    def measure():
        return [qml.expval(qml.Z(0)), qml.expval(qml.Z(0) @ qml.X(1)), qml.expval(qml.X(1)), qml.probs(wires=0)]

    layer = CircuitLayer(lambda x, w: qml.RX(w, 0), 2, {"w": ()}, measure)
    assert len(program(layer.key, 2).measured.settings) == 1


# Refusals


D = torch.float64


def turned(then: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor, Tensor], None]:
    """A rotation by the weight, so that it is used, and what follows."""

    def circuit(x, w):
        qml.RX(w, 0)
        then(x, w)

    return circuit


LOOKS = "the circuit looks at the value of an input or a weight"
DIFFERS = "(?s)at other values PennyLane finds another .* than the trace: something in it depends on values"
REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "if": (lambda x, w: qml.RX(w, 0) if x[0] > 0 else qml.RY(w, 0), LOOKS),
    "float": (lambda x, w: qml.RX(float(x[0]), 0), LOOKS),
    "item": (lambda x, w: qml.RX(w.item(), 0), LOOKS),
    "wire": (lambda x, w: qml.Hadamard(int(x[0])), LOOKS),
    "NumPy": (lambda x, w: qml.RX(x.detach().numpy()[0], 0), DIFFERS),
    "random": (lambda x, w: qml.RX(np.random.default_rng().normal(), 0), DIFFERS),
    "measurement": (lambda x, w: qml.measure(0), "a measurement amid the circuit leaves no pure state. Defer it"),
    "condition": (lambda x, w: qml.cond(qml.measure(0), qml.RX)(w, 1), "a measurement amid the circuit leaves no pure"),
    "noise": (lambda x, w: qml.DepolarizingChannel(0.1, 0), "DepolarizingChannel is noise, which leaves no pure state"),
    "noise of a weight": (
        lambda x, w: qml.AmplitudeDamping(w, 0),
        "AmplitudeDamping is noise that depends on inputs or weights",
    ),
    "a wide gate of no generator": (
        lambda x, w: qml.evolve(qml.sum(*(qml.X(i) @ qml.Z(i + 1) for i in range(6))), w),
        "Evolution is neither a matrix of few qubits nor made of gates with commuting generators",
    ),
    "unknown wire": (lambda x, w: qml.RX(x[0], 5), r"the circuit uses the wire 5; its layer has the wires \[0, 1\]"),
    "vector": (lambda x, w: qml.RX(x, 1), "RX has 2 angles: give every gate one number of a row of the input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused_in_a_sentence(name):
    then, sentence = REFUSED[name]
    with pytest.raises(Refused, match=sentence):
        CircuitLayer(turned(then), 2, {"w": ()})(torch.rand(1, 2))


@pytest.mark.parametrize("n_qubits", [2, 14])
@pytest.mark.parametrize("name", ["NumPy", "random"])
def test_what_depends_on_values_is_refused_whatever_the_number_of_qubits(name, n_qubits):
    with pytest.raises(Refused):
        CircuitLayer(turned(REFUSED[name][0]), n_qubits, {"w": ()})(torch.rand(1, 2))


def looked_at(x: Tensor) -> float:
    """A number behind torch's back."""
    return float(x.detach().numpy().flat[0])


COUNT = iter(range(1000))
BEHIND: dict[str, tuple[Callable[[Tensor, Tensor], object], Callable[[], object] | None]] = {
    "another gate where a number is negative": (lambda x, w: qml.RX(w, 0) if looked_at(x) > 0 else qml.RY(w, 0), None),
    "another fixed gate": (lambda x, w: qml.S(0) if looked_at(x) > 0 else qml.T(0), None),
    "a gate more": (lambda x, w: qml.X(1) if looked_at(x) < 0 else None, None),
    "other wires": (lambda x, w: qml.CNOT([0, 1] if looked_at(x) > 0 else [1, 0]), None),
    "another angle": (lambda x, w: qml.RX(x[0] * np.sign(looked_at(x)), 0), None),
    "a factor of the angle": (lambda x, w: qml.RX(looked_at(x) * w, 0), None),
    "another matrix": (lambda x, w: qml.QubitUnitary(np.diag([1, np.exp(1j * looked_at(x))]), 0), None),
    "another state": (lambda x, w: qml.BasisState([int(looked_at(x) > 0)], 1), None),
    "a count of calls": (lambda x, w: qml.RX(next(COUNT), 0), None),
    "another gate at every call": (lambda x, w: qml.RX(0.1, 0) if next(COUNT) % 2 else qml.RY(next(COUNT), 0), None),
    "another observable": (lambda x, w: None, lambda: qml.expval(qml.Hermitian(next(COUNT) * np.eye(2), 0))),
}


@pytest.mark.parametrize("n_qubits", [2, 14])
@pytest.mark.parametrize("name", BEHIND)
def test_values_that_are_looked_at_behind_torchs_back_are_found_whatever_the_number_of_qubits(name, n_qubits):
    then, measure = BEHIND[name]
    with pytest.raises(Refused, match=DIFFERS):
        CircuitLayer(turned(then), n_qubits, {"w": ()}, measure)(torch.rand(1, 2))


@pytest.mark.parametrize("normalised", [False, True])
def test_matrices_and_states_that_random_numbers_are_not_are_checked_all_the_same(normalised):
    def circuit(x, w):
        qml.AmplitudeEmbedding(x, 0, normalize=normalised)
        qml.QubitUnitary(w, 1)
        qml.RX(looked_at(x), 0)

    with pytest.raises(Refused, match=DIFFERS):
        CircuitLayer(circuit, 2, {"w": (2, 2)})(torch.tensor([[0.6, 0.8]]))


def test_an_error_of_the_circuits_own_is_shown_first_and_in_a_sentence():
    def circuit(x, w):
        qml.RX(w * [0.1, 0.2][x.shape[-1]], 0)

    with pytest.raises(Refused, match="the circuit fails on a row of 2 inputs, with list index out of range") as refused:
        CircuitLayer(circuit, 1, {"w": ()})(torch.rand(1, 2))
    assert isinstance(refused.value.__cause__, IndexError) and refused.value.__cause__.__traceback__ is not None


class WrongGenerator(qml.operation.Operation):
    """A gate whose generator is not that of its matrix."""

    num_params, num_wires, name = 1, 1, "WrongGenerator"

    def generator(self):
        return qml.Z(self.wires) / 2

    @staticmethod
    def compute_matrix(angle):
        return qml.RX.compute_matrix(angle)


class OfNumPy(qml.operation.Operation):
    """A gate whose matrix NumPy computes."""

    num_params, num_wires, name = 1, 1, "OfNumPy"

    @staticmethod
    def compute_matrix(angle):
        return np.diag([1, 1]) if np.all(angle == 0) else qml.RX.compute_matrix(angle)


def test_a_gate_whose_matrix_is_numpys_is_refused_with_a_way_on():
    layer = CircuitLayer(lambda x, w: OfNumPy(w, wires=0), 1, {"w": ()})
    with pytest.raises(Refused, match=r"(?s)OfNumPy has no matrix of torch's numbers .*: compute it with qml.math"):
        layer(torch.rand(1, 1))


@pytest.mark.parametrize("n_qubits", [1, 14])
def test_a_gate_whose_generator_is_not_that_of_its_matrix_is_refused(n_qubits):
    layer = CircuitLayer(lambda x, w: WrongGenerator(w, wires=0), n_qubits, {"w": ()})
    with pytest.raises(Refused, match="WrongGenerator has another matrix than the gates it was taken apart into"):
        layer(torch.rand(1, 1))


@pytest.mark.parametrize("n_qubits", [2, 10])
def test_a_tensor_that_is_filled_in_place_is_pennylanes_or_refused(n_qubits):
    def circuit(x, w):
        angles = torch.zeros(2, dtype=D)
        angles[0] = w
        qml.RX(angles[0], 0)
        qml.RY(w, 1)

    layer, x = layer_of(circuit, n_qubits, {"w": ()}), numbers(1, 2)
    try:
        found = of_layer(layer, x)
    except Refused:
        return
    torch.testing.assert_close(found, of_pennylane(layer, x))


@pytest.mark.parametrize("angle", [0.3, 2.5, -0.3, -2.5])
def test_a_controlled_matrix_is_pennylanes_at_angles_of_any_size(angle):
    def circuit(x, w):
        qml.RX(w, 0)
        qml.RY(w, 1)
        qml.ctrl(qml.QubitUnitary(torch.stack([x.cos(), x.sin(), -x.sin(), x.cos()]).reshape(2, 2), 0), 1)

    assert_is_pennylane(layer_of(circuit, 2, {"w": ()}, qml.state), torch.tensor([[angle]], dtype=D))


def test_a_weight_without_use_is_refused_by_its_name():
    with pytest.raises(Refused, match="the circuit does not use the weight 'w': leave it out of weight_shapes"):
        CircuitLayer(lambda x, w: qml.RX(x[0], 0), 1, {"w": ()})(torch.rand(1, 1))


MEASURED = {
    "counts": (qml.counts, "cannot be measured here: take expectation values, probabilities, or the state alone"),
    "sample": (qml.sample, "cannot be measured here: take expectation values, probabilities, or the state alone"),
    "purity": (lambda: qml.purity([0]), "cannot be measured here: take expectation values"),
    "density matrix": (lambda: qml.density_matrix([0]), "cannot be measured here: take expectation values"),
    "state and more": (lambda: [qml.state(), qml.expval(qml.Z(0))], "the state is everything that can be known"),
    "nothing": (lambda: None, "the circuit must return measurements of PennyLane, such as .* got None"),
    "no number": (lambda: [], r"the circuit must return measurements of PennyLane, such as .* got \[\]"),
    "unknown wire": (lambda: qml.expval(qml.Z(3)), "wire 3"),
    "probabilities of an unknown wire": (lambda: qml.probs(wires=3), "wire 3"),
    "matrix of an unknown wire": (lambda: qml.expval(qml.Hermitian(np.eye(2), 3)), "wire 3"),
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_cannot_be_measured_is_refused_in_a_sentence(name):
    measure, sentence = MEASURED[name]
    with pytest.raises(Refused, match=sentence):
        CircuitLayer(lambda x, w: qml.RX(w, 0), 2, {"w": ()}, measure)(torch.rand(1, 2))


def test_a_state_that_is_not_normalised_is_refused():
    layer = CircuitLayer(turned(lambda x, w: qml.StatePrep(x, 1)), 2, {"w": ()})
    with pytest.raises(ValueError, match=r"a state must have norm 1, got .*: give normalize=True to its embedding"):
        layer(torch.ones(1, 2))


def test_a_state_amid_the_circuit_is_refused_in_a_sentence():
    layer = CircuitLayer(turned(lambda x, w: qml.AmplitudeEmbedding(x, 0, normalize=True)), 2, {"w": ()})
    with pytest.raises(Refused, match="AmplitudeEmbedding"):
        layer(torch.ones(1, 2))


def test_matrices_for_several_rows_are_refused_in_a_sentence():
    layer = CircuitLayer(lambda x, w: qml.QubitUnitary(torch.stack([skew(w, 2)] * 2), 0), 2, {"w": 2})
    with pytest.raises(Refused, match="QubitUnitary"):
        layer(torch.ones(1, 2))


@pytest.mark.parametrize("options", [{"diff_method": "parameter-shift"}, {"simulator": "lightning.qubit"}, {"shots": 5}])
@pytest.mark.parametrize(
    ("circuit", "measure", "what"),
    [
        (lambda x, w: qml.QubitUnitary(skew(w, 2), 0), None, "is given matrices or states that depend on inputs or weights"),
        (
            lambda x, w: (qml.AmplitudeEmbedding(x, 0, normalize=True), qml.RX(w[0], 0)),
            None,
            "is given matrices or states that depend on inputs or weights",
        ),
        (lambda x, w: qml.RX(w[0], 0), qml.state, "returns states"),
    ],
)
def test_the_shift_rule_refuses_what_has_no_angles(circuit, measure, what, options):
    layer = CircuitLayer(circuit, 2, {"w": 2}, measure, **options)
    with pytest.raises(Refused, match=f"the shift rule and devices need expectation values .* this circuit {what}"):
        layer(torch.rand(1, 2))


@pytest.mark.parametrize("measure", [None, qml.state, qml.probs])
def test_more_qubits_than_memory_are_refused_in_a_sentence(measure):
    layer = CircuitLayer(lambda x, w: qml.RX(w, 0), 45, {"w": ()}, measure)
    with pytest.raises(MemoryError, match=r"45 qubits .*need about .* take fewer qubits"):
        layer(torch.rand(1, 2))


@pytest.mark.usefixtures("unchecked")
def test_an_input_of_no_dimension_is_refused():
    layer = CircuitLayer(lambda x, w: qml.RX(w, 0), 1, {"w": ()})
    with pytest.raises(ValueError, match=r"this layer takes rows of inputs, got an input of shape \(\)"):
        layer(torch.tensor(0.3))
