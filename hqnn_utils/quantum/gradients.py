"""Gradients of expectation values from expectation values alone: the parameter-shift rule; and gradients within a network.

As a function of one angle, an expectation value is a finite Fourier series: f(θ) = a₀ + Σ_ω [a_ω cos ωθ + b_ω sin ωθ].
Its frequencies ω are the differences of the generator's eigenvalues, so f′ is a fixed combination of shifted values of f.
Derived in book/foundations/parameter_shift. Sources: Schuld et al. 2019; Wierichs et al. 2022.
"""

from collections.abc import Callable, Sequence
from math import pi
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from hqnn_utils.quantum.inputs import ANGLES, one_dtype


def shift_rule(
    frequencies: Sequence[float] = (1.0,), shifts: Sequence[float] | None = None
) -> tuple[Float[ndarray, " rules"], Float[ndarray, " rules"]]:
    """Coefficients c_k and shifts s_k with f′(θ) = Σ_k c_k [f(θ + s_k) - f(θ - s_k)].

    Args:
        frequencies: the positive frequencies of f, in 1/radian. R_Y has only 1; a controlled rotation has 1/2 and 1.
        shifts: one shift per frequency, in radians; by default (2k - 1)π / (2 R ω_min) for k = 1…R.

    Returns:
        Two float64 arrays of the length of `frequencies`. For R_Y they hold c = 1/2 and s = π/2, or c = 1/(2 sin s) for a
        shift s of your own.

    Raises:
        ValueError: frequencies that are not positive and distinct, or shifts that cannot tell them apart.

    Why it holds: f(θ+s) - f(θ-s) = Σ_ω 2 sin(ωs) · g_ω(θ), and f′ = Σ_ω ω g_ω(θ), so the c_k solve a linear system.
    Source: Wierichs et al. 2022, sec. 3. Derived in book/foundations/parameter_shift.
    """
    omega = np.asarray(frequencies, dtype=float)
    number = len(omega)
    if number == 0 or (omega <= 0).any() or len(np.unique(omega)) < number:
        raise ValueError(f"frequencies must be positive and distinct, got {omega.tolist()}")
    if shifts is None:
        shifts = (2 * np.arange(1, number + 1) - 1) * pi / (2 * number * omega.min())
    steps = np.asarray(shifts, dtype=float)
    if len(steps) != number:
        raise ValueError(f"{number} frequencies need {number} shifts, got {len(steps)}")
    waves = 2 * np.sin(np.outer(omega, steps))  # (frequency, shift)
    if np.linalg.svd(waves, compute_uv=False).min() < 1e-8:
        raise ValueError(f"the shifts {steps.tolist()} cannot tell the frequencies {omega.tolist()} apart")
    return np.linalg.solve(waves, omega), steps


@one_dtype
def parameter_shift(
    f: Callable[[Tensor], Tensor],
    theta: Float[Tensor, "*shape"],
    frequencies: Sequence[float] = (1.0,),
    shifts: Sequence[float] | None = None,
) -> Float[Tensor, "*shape"]:
    """Derivative of an elementwise `f` at each element of `theta`, from 2R shifted evaluations in one call of `f`.

    Args:
        f: maps angles of any shape to expectation values of the same shape; may be a simulator, shots or hardware.
        theta: angles in radians.
        frequencies, shifts: as in `shift_rule`.

    Returns:
        df/dtheta, same shape and dtype as theta. With finite shots it is an unbiased estimate.

    Raises:
        TypeError: angles that are no real floating-point numbers, which could not be shifted.
    """
    coefficients, steps = shift_rule(frequencies, shifts)
    plus_minus = torch.tensor(np.concatenate([steps, -steps]), dtype=theta.dtype, device=theta.device)
    weights = torch.tensor(np.concatenate([coefficients, -coefficients]), dtype=theta.dtype, device=theta.device)
    # One batch of all shifted copies: (2R, *shape), which a broadcasting device runs at once.
    values = f(theta + plus_minus.reshape(-1, *[1] * theta.ndim))
    return torch.tensordot(weights, values, dims=1)


class Probe(NamedTuple):
    """What an activation function saw and did to the gradient; every field `(batch, …)`, as its input."""

    angles: Tensor
    """θ, its input."""
    slopes: Tensor
    """f′(θ)."""
    gradients: Tensor
    """∂L/∂θ, of each image's own loss L."""


def probe(
    model: nn.Module,
    images: Float[Tensor, "batch *image"],
    losses: Callable[[Tensor], Tensor],
    kinds: tuple[type[nn.Module], ...],
) -> dict[str, Probe]:
    """The gradient on its way through a network: one `Probe` for each activation function, first layer first.

    Args:
        model: any module; its own gradients are not touched.
        images: what it is shown.
        losses: outputs of the model → the loss of each image, shape `(batch,)`.
        kinds: the classes of its activation functions.

    Used in book/experiments/gradients_in_training.
    """
    inputs = {}
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    hooks = [
        module.register_forward_pre_hook(lambda module, arguments, name=name: inputs.update({name: arguments[0]}))
        for name, module in found
    ]
    try:
        total = losses(model(images)).sum()
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(total, list(inputs.values()))
    probes = {}
    for (name, module), gradient in zip(found, gradients, strict=True):
        angles = inputs[name].detach().requires_grad_()
        (slopes,) = torch.autograd.grad(module(angles).sum(), angles)
        probes[name] = Probe(angles.detach(), slopes, gradient)
    return probes


class ShiftRule(torch.autograd.Function):
    """A circuit as a function of all its angles, whose backward pass is the shift rule: torch never looks inside.

    `ShiftRule.apply(f, angles)` has the value `f(angles)`, where `f` maps angles `(*batch, n_angles)` in radians to
    expectation values `(*batch, n_outputs)` and every angle enters through one R_Y (or any gate of frequency 1). The backward
    pass runs all `2 * n_angles` shifted copies of the batch as one batch, with as many shots as `f` takes. It differentiates
    to any order, since the rule is applied to itself, and works under `torch.vmap`. PennyLane's own rule refuses batches of
    trainable inputs (PennyLane issue 6078).

    Derived in book/foundations/parameter_shift; what it costs in gradient_cost: `1 + 2 * n_angles` circuits for each row.
    """

    @staticmethod
    def forward(f: Callable[[Tensor], Tensor], angles: Tensor) -> Tensor:
        if not angles.is_floating_point():
            raise TypeError(f"{ANGLES}, got {angles.dtype}: convert them, e.g. by `.float()`")
        with torch.no_grad():
            return f(angles.detach()).to(angles.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.f, angles = inputs
        ctx.save_for_backward(angles)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (angles,) = ctx.saved_tensors
        n_angles = angles.shape[-1]
        shifts = pi / 2 * torch.eye(n_angles, dtype=angles.dtype, device=angles.device)
        shifts = torch.cat([shifts, -shifts]).reshape(2 * n_angles, *[1] * (angles.ndim - 1), n_angles)
        plus, minus = ShiftRule.apply(ctx.f, angles + shifts).chunk(2)  # each (n_angles, *batch, n_outputs)
        return None, ((plus - minus) / 2 * grad).sum(dim=-1).movedim(0, -1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[None, int], f: Callable[[Tensor], Tensor], angles: Tensor) -> tuple[Tensor, int]:
        return ShiftRule.apply(f, angles.movedim(in_dims[1], 0)), 0
