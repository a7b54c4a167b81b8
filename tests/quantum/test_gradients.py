"""The triangle: closed form = shift rule = automatic differentiation (= adjoint), in float64, for every circuit shown."""

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hqnn_utils.quantum.circuits import ENTANGLERS, chsh, controlled_rotation, expval_z, h_ry, layered, qnode
from hqnn_utils.quantum.gradients import ShiftRule, parameter_shift, probe, shift_rule
from hqnn_utils.quantum.layers import QuantumActivation

angles = st.floats(-10, 10)
# Multiples of the smallest: what the default shifts are made for.
frequency_sets = st.tuples(st.floats(0.3, 3), st.integers(1, 4)).map(lambda t: [t[0] * k for k in range(1, t[1] + 1)])


def double(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def z():
    return qml.expval(qml.Z(0))


def zz():
    return qml.expval(qml.Z(0) @ qml.Z(1))


def elementwise(node):
    """`node` for angles of any shape; PennyLane itself broadcasts one axis."""
    return lambda theta: node(theta.reshape(-1)).reshape(theta.shape)


def turned_first(a):
    """`chsh` as a function of the first angle alone."""
    chsh(a, 0.7)


def turned_second(b):
    """`chsh` as a function of the second angle alone."""
    chsh(0.7, b)


# circuit, measurement, qubits, frequencies, derivative by hand
TRIANGLE = {
    "h_ry": (h_ry, z, 1, (1.0,), lambda t: -np.cos(t)),
    "chsh in its first angle": (turned_first, zz, 2, (1.0,), lambda t: -np.sin(t - 0.7)),
    "chsh in its second angle": (turned_second, zz, 2, (1.0,), lambda t: np.sin(0.7 - t)),
    "controlled_rotation": (
        controlled_rotation,
        zz,
        2,
        (0.5, 1.0),
        lambda t: np.cos(0.6) * np.sin(0.8 + t) / 2 + np.sin(0.6) * np.sin(0.8 + t / 2) / 2,
    ),
}
triangle = pytest.mark.parametrize("case", TRIANGLE.values(), ids=TRIANGLE)


@triangle
@given(theta=angles)
def test_the_shift_rule_gives_the_closed_form(case, theta):
    circuit, measure, n_qubits, frequencies, closed = case
    found = parameter_shift(elementwise(qnode(circuit, measure, n_qubits)), double(theta), frequencies)
    assert found.item() == pytest.approx(closed(theta), abs=1e-8)


@triangle
@pytest.mark.parametrize("method", ["backprop", "adjoint", "parameter-shift"])
@given(theta=angles)
def test_automatic_differentiation_gives_the_closed_form(case, method, theta):
    circuit, measure, n_qubits, _, closed = case
    leaf = double(theta).requires_grad_()
    qnode(circuit, measure, n_qubits, diff_method=method)(leaf).backward()
    assert leaf.grad.item() == pytest.approx(closed(theta), abs=1e-8)


def test_the_two_term_rule_fails_on_the_controlled_rotation():
    circuit, measure, n_qubits, _, closed = TRIANGLE["controlled_rotation"]
    theta = torch.linspace(-3, 3, 13, dtype=torch.float64)
    found = parameter_shift(elementwise(qnode(circuit, measure, n_qubits)), theta)
    assert np.abs(found.numpy() - closed(theta.numpy())).max() > 0.02


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(ENTANGLERS), st.integers(0, 2**32 - 1))
def test_the_two_term_rule_holds_for_every_angle_of_a_layered_circuit(n_qubits, depth, entangler, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(n_qubits, generator=generator, dtype=torch.float64)
    base = 3 * torch.randn((depth + 1) * n_qubits, generator=generator, dtype=torch.float64)  # inputs, then weights
    node = qnode(layered, lambda: expval_z(n_qubits), n_qubits)

    def output(rows):
        """A weighted sum of all ⟨Z⟩, for angles `(rows, angles)`."""
        theta = rows[:, n_qubits:].T.reshape(depth, n_qubits, -1)  # PennyLane broadcasts the last axis
        return weights @ torch.stack(node(rows[:, :n_qubits], theta, entangler))

    def one_at_a_time(shifted):
        """Elementwise: element (k, j) is the output with angle j alone set to `shifted[k, j]`."""
        rows = base.repeat(*shifted.shape, 1)  # (k, j, angle)
        rows.diagonal(dim1=1, dim2=2).copy_(shifted)
        return output(rows.flatten(0, 1)).reshape(shifted.shape)

    expected = torch.autograd.functional.jacobian(output, base.unsqueeze(0)).squeeze()
    torch.testing.assert_close(parameter_shift(one_at_a_time, base), expected, atol=1e-8, rtol=0)


@given(st.integers(1, 4), st.integers(0, 3), st.sampled_from(ENTANGLERS), st.integers(0, 2**32 - 1))
def test_shift_rule_on_all_angles_of_a_layered_circuit_is_automatic_differentiation(n_qubits, depth, entangler, seed):
    generator = torch.Generator().manual_seed(seed)
    angles = 3 * torch.randn(2, (depth + 1) * n_qubits, generator=generator, dtype=torch.float64)  # inputs, then weights
    node = qnode(layered, lambda: expval_z(n_qubits), n_qubits)

    def outputs(angles):
        """All ⟨Z⟩ for angles `(*batch, angles)`."""
        rows = angles.reshape(-1, angles.shape[-1])
        theta = rows[:, n_qubits:].T.reshape(depth, n_qubits, len(rows))  # PennyLane broadcasts the last axis
        return torch.stack(node(rows[:, :n_qubits], theta, entangler), dim=-1).reshape(*angles.shape[:-1], n_qubits)

    found, expected = (torch.autograd.functional.jacobian(f, angles) for f in (lambda a: ShiftRule.apply(outputs, a), outputs))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@given(frequency_sets)
def test_the_default_rule_is_pennylanes(frequencies):
    rows = qml.gradients.generate_shift_rule(tuple(frequencies))  # (coefficient, shift), of both signs
    oracle = sorted((shift, coefficient) for coefficient, shift in rows if shift > 0)
    coefficients, shifts = shift_rule(frequencies)
    np.testing.assert_allclose(sorted(zip(shifts, coefficients, strict=True)), oracle, atol=1e-8)


@given(st.floats(0.1, 3.0))
def test_with_a_shift_s_the_two_term_coefficient_is_one_over_two_sin_s(s):
    coefficients, shifts = shift_rule(shifts=[s])
    assert (coefficients[0], shifts[0]) == pytest.approx((1 / (2 * np.sin(s)), s))


def series(frequencies, theta, seed):
    """A random Fourier series of these frequencies at theta."""
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, len(frequencies)))
    waves = (a[k] * torch.cos(w * theta) + b[k] * torch.sin(w * theta) for k, w in enumerate(frequencies))
    return generator.normal() + sum(waves)


@given(st.one_of(st.tuples(frequency_sets, st.none()), st.just(([0.5, 1.5], [1.0, 2.5]))), angles, st.integers(0, 99))
def test_the_rule_is_exact_for_every_series_of_its_frequencies(rule, theta, seed):
    frequencies, shifts = rule
    leaf = double(theta).requires_grad_()
    series(frequencies, leaf, seed).backward()
    found = parameter_shift(lambda t: series(frequencies, t, seed), double(theta), frequencies, shifts)
    assert found.item() == pytest.approx(leaf.grad.item(), abs=1e-8)


@pytest.mark.parametrize(
    ("frequencies", "shifts", "sentence"),
    [
        ((), None, r"frequencies must be positive and distinct, got \[\]"),
        ((0.0, 1.0), None, "frequencies must be positive and distinct"),
        ((-1.0,), None, "frequencies must be positive and distinct"),
        ((1.0, 1.0), None, "frequencies must be positive and distinct"),
        ((0.5, 1.0), (1.0,), "2 frequencies need 2 shifts, got 1"),
        ((1.0,), (np.pi,), "cannot tell the frequencies"),
        ((0.5, 1.0), (1.0, 1.0), "cannot tell the frequencies"),
        ((1.0, 3.0), None, "cannot tell the frequencies"),  # the default shifts suit multiples of the smallest
    ],
)
def test_a_rule_that_cannot_be_had_is_refused(frequencies, shifts, sentence):
    with pytest.raises(ValueError, match=sentence):
        shift_rule(frequencies, shifts)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 1, 4)])
def test_the_derivative_has_the_shape_and_values_of_its_angles(shape):
    theta = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(parameter_shift(torch.sin, theta), torch.cos(theta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_derivative_keeps_the_dtype_of_its_angles(dtype):
    assert parameter_shift(torch.sin, torch.ones(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_derivative_by_angles_of_half_precision_is_computed_in_float32(dtype):
    theta = torch.linspace(-3, 3, 7).to(dtype)
    seen = []
    found = parameter_shift(lambda t: seen.append(t.dtype) or torch.sin(t), theta)
    assert torch.equal(found, parameter_shift(torch.sin, theta.float()).to(dtype)) and seen == [torch.float32]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_angles_that_cannot_be_shifted_are_refused(dtype):
    with pytest.raises(TypeError, match=r"real floating-point numbers, got torch|Float\[Tensor"):
        parameter_shift(torch.sin, torch.ones(3, dtype=dtype))
    with pytest.raises(TypeError, match="real floating-point numbers, got torch"):
        ShiftRule.apply(torch.sin, torch.ones(3, dtype=dtype))


def test_all_shifted_copies_are_evaluated_in_one_call():
    shapes = []

    def f(theta):
        shapes.append(tuple(theta.shape))
        return torch.sin(theta)

    parameter_shift(f, torch.ones(3, 5), frequencies=(0.5, 1.0))
    assert shapes == [(4, 3, 5)]


def opaque_sine(theta):
    """A sine that torch cannot see through, as a device is."""
    return torch.from_numpy(np.sin(np.asarray(theta.detach())))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_shift_rule_differentiates_a_function_that_torch_cannot_see_through(check):
    theta = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert check(lambda t: ShiftRule.apply(opaque_sine, t), theta)


def opaque_mixture(angles):
    """Two angles to three outputs, of frequency 1 in each angle, and closed to torch: as a device with entangled qubits is."""
    return torch.from_numpy(mixture(np, *np.moveaxis(np.asarray(angles.detach()), -1, 0)))


def mixture(numbers, a, b):
    """The same for numpy and torch."""
    return numbers.stack([numbers.sin(a) * numbers.cos(b), numbers.cos(a + b), 0.5 - numbers.sin(b)], -1)


def random_angles(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("batch", [(), (1,), (4,), (0,), (2, 3)])
def test_shift_rule_gives_value_and_gradient_of_many_outputs_that_mix_the_angles(batch):
    theta = random_angles(*batch, 2)
    weights = double([1.0, -2.0, 0.5])  # no two outputs count alike

    def value_and_gradient(function):
        value = function(theta)
        return value.detach(), torch.autograd.grad((weights * value**2).sum(), theta)[0]

    found = value_and_gradient(lambda t: ShiftRule.apply(opaque_mixture, t))
    expected = value_and_gradient(lambda t: mixture(torch, *t.unbind(-1)))
    assert found[0].shape == (*batch, 3)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_shift_rule_of_many_outputs_can_be_differentiated_twice(check, batch):
    assert check(lambda t: ShiftRule.apply(opaque_mixture, t), random_angles(*batch, 2))


@pytest.mark.parametrize("of", [lambda f: f, torch.func.jacrev, lambda f: torch.func.jacrev(torch.func.jacrev(f))])
def test_shift_rule_of_many_outputs_maps_under_vmap_with_its_derivatives(of):
    theta = random_angles(4, 2).detach()
    found = torch.vmap(of(lambda t: ShiftRule.apply(opaque_mixture, t)))(theta)
    expected = torch.vmap(of(lambda t: mixture(torch, *t.unbind(-1))))(theta)
    torch.testing.assert_close(found, expected)


def test_shift_rule_evaluates_all_shifted_copies_in_one_call_of_two_an_angle():
    shapes = []

    def f(angles):
        shapes.append(tuple(angles.shape))
        return opaque_mixture(angles)

    ShiftRule.apply(f, random_angles(5, 2)).sum().backward()
    assert shapes == [(5, 2), (4, 5, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_rule_keeps_the_dtype_whatever_the_device_answers_in(dtype):
    theta = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    value = ShiftRule.apply(lambda angles: opaque_mixture(angles.double()), theta)
    value.sum().backward()
    assert (value.dtype, theta.grad.dtype) == (dtype, dtype)


def test_shift_rule_gives_the_third_derivative_too():
    theta = double([0.4, -1.3]).requires_grad_()
    derivative = ShiftRule.apply(opaque_sine, theta)
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative.sum(), theta, create_graph=True)
    torch.testing.assert_close(derivative.detach(), -torch.cos(theta.detach()))


@pytest.mark.parametrize("in_dim", [0, 1, -1])
def test_shift_rule_maps_over_any_axis(in_dim):
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mapped = torch.vmap(lambda t: ShiftRule.apply(torch.sin, t), in_dims=in_dim)(theta)
    torch.testing.assert_close(mapped, torch.sin(theta.movedim(in_dim, 0)))


def test_the_gradient_of_a_mapped_shift_rule_is_each_rows_own():
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    mapped = torch.vmap(lambda t: ShiftRule.apply(opaque_sine, t).prod())(theta)
    plain = torch.sin(theta).prod(dim=1)
    found, expected = (torch.autograd.grad(out.sum(), theta)[0] for out in (mapped, plain))
    torch.testing.assert_close(found, expected)


# Gradients on their way through a network


class Chain(nn.Module):
    """Two activations in a row, each with an input of its own that can be seen from outside."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.second, self.outer = nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), QuantumActivation()
        self.double()

    def forward(self, x):
        return self.outer(self.second(self.inner(self.first(x))))


def probed():
    torch.manual_seed(0)
    model, x = Chain(), torch.randn(6, 5, dtype=torch.float64)
    return model, x, probe(model, x, lambda y: y.square().sum(dim=1), (nn.Tanh, QuantumActivation))


def test_a_probe_sees_every_activation_in_order_with_its_inputs_and_slopes():
    model, x, found = probed()
    assert list(found) == ["inner", "outer"]
    theta = model.first(x)
    torch.testing.assert_close(found["inner"].angles, theta)
    torch.testing.assert_close(found["inner"].slopes, 1 - torch.tanh(theta) ** 2)
    theta = model.second(torch.tanh(theta))
    torch.testing.assert_close(found["outer"].angles, theta)
    torch.testing.assert_close(found["outer"].slopes, -torch.cos(theta))


def test_a_probes_gradients_are_those_of_each_rows_own_loss():
    model, x, found = probed()
    theta = model.first(x).detach().requires_grad_()
    outer = model.second(torch.tanh(theta)).detach().requires_grad_()

    def losses(outer):
        return torch.sin(outer).square().sum()

    (expected,) = torch.autograd.grad(losses(model.second(torch.tanh(theta))), theta)
    torch.testing.assert_close(found["inner"].gradients, expected)
    torch.testing.assert_close(found["outer"].gradients, torch.autograd.grad(losses(outer), outer)[0])


def test_a_probe_leaves_the_model_as_it_was():
    model, x, _ = probed()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        probe(model, x[:, :3], lambda y: y.sum(dim=1), (nn.Tanh,))
    assert not any(module._forward_pre_hooks for module in model.modules())
