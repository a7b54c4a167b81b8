"""Every way of computing the reference layer that the benchmark compares, all in one shape.

The reference layer is `quantum.circuits.layered`: H and R_Y(x_i) on each of n qubits, then `depth` times [CNOT ring,
R_Y(theta_li)], read out as ⟨Z_i⟩. A *step* is one forward and backward pass of the sum of its outputs, with gradients to
inputs and weights, in float32 wherever the system allows. The peers are imported where they are used, since only their own
environment has them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from math import pi
from typing import NamedTuple

import numpy as np
import pennylane as qml
import torch
from bridge import bridged
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import vector_to_parameters

from hqnn_utils.quantum import compilation, fusion
from hqnn_utils.quantum.circuits import cnot_pairs, expval_z, layered
from hqnn_utils.quantum.layers import QuantumLayer

TOLERANCE = 1e-4
"""What float32 may deviate from the definition in float64, in units of the largest entry (and of 1)."""

MODELS = 30
"""How many models the case "models" runs at once."""


# The systems. Each maker takes (n, depth) and returns a torch module whose parameters are theta, or, where the system cannot
# be used from torch, a function (x, theta) → ⟨Z⟩ of JAX arrays.


class Function(nn.Module):
    """A function (x, theta) → ⟨Z⟩ of torch tensors as a layer."""

    def __init__(self, function, n: int, depth: int):
        super().__init__()
        self.function, self.theta = function, nn.Parameter(torch.empty(depth, n))

    def forward(self, x):
        return self.function(x, self.theta)


def linear(n: int, depth: int):
    """No circuit at all: what any layer of n inputs and n outputs costs in torch."""
    return nn.Linear(n, n)


def pennylane(n: int, depth: int, device: str = "default.qubit", interface: str = "torch", diff_method: str = "backprop"):
    """The textbook circuit, which broadcasts over the batch: `inputs[..., i]`."""

    @qml.qnode(qml.device(device, wires=n), interface=interface, diff_method=diff_method)
    def node(inputs, theta):
        layered(inputs, theta)
        return expval_z(n)

    return node


def torch_layer(n: int, depth: int, **options):
    return qml.qnn.TorchLayer(pennylane(n, depth, **options), {"theta": (depth, n)})


def pennylane_jax(n: int, depth: int):
    import jax.numpy as jnp

    node = pennylane(n, depth, interface="jax")
    return lambda x, theta: jnp.stack(node(x, theta), axis=-1)


def tensorcircuit(n: int, depth: int, backend: str = "jax"):
    import tensorcircuit as tc

    def one(x, theta):
        if tc.backend.name != backend:  # the choice is global, and two systems of one process make different ones
            tc.set_backend(backend)
        circuit = tc.Circuit(n)
        for i in range(n):
            circuit.h(i)
            circuit.ry(i, theta=x[i])
        for layer in range(depth):
            for control, target in cnot_pairs(n, "ring"):
                circuit.cnot(control, target)
            for i in range(n):
                circuit.ry(i, theta=theta[layer, i])
        return tc.backend.real(tc.backend.stack([circuit.expectation_ps(z=[i]) for i in range(n)]))

    if backend == "pytorch":
        return Function(vmap(one, in_dims=(0, None)), n, depth)
    import jax

    return jax.vmap(one, in_axes=(0, None))


def tensorcircuit_bridge(n: int, depth: int):
    return Function(bridged(tensorcircuit(n, depth)), n, depth)


def pyqtorch(n: int, depth: int):
    import pyqtorch as pyq

    gates = [gate for i in range(n) for gate in (pyq.H(i), pyq.RY(i, f"x{i}"))]
    for layer in range(depth):
        gates += [pyq.CNOT(*pair) for pair in cnot_pairs(n, "ring")] + [pyq.RY(i, f"theta{layer},{i}") for i in range(n)]
    circuit = pyq.QuantumCircuit(n, gates).to(torch.complex64)
    signs = 1.0 - 2 * (torch.arange(2**n).unsqueeze(1) >> torch.arange(n - 1, -1, -1) & 1)  # (2**n, n), qubit 0 leftmost

    def run(x, theta):
        values = {f"x{i}": x[:, i] for i in range(n)}
        values |= {f"theta{layer},{i}": theta[layer, i] for layer in range(depth) for i in range(n)}
        psi = circuit.run(circuit.init_state(batch_size=len(x)), values)  # (2, …, 2, batch)
        return psi.reshape(2**n, -1).abs().square().T @ signs

    return Function(run, n, depth)


def deepquantum(n: int, depth: int):
    import deepquantum as dq

    circuit = dq.QubitCircuit(n)
    for i in range(n):
        circuit.h(i)
        circuit.ry(i, encode=True)
    for _ in range(depth):
        for pair in cnot_pairs(n, "ring"):
            circuit.cnot(*pair)
        for i in range(n):
            circuit.ry(i)
    for i in range(n):
        circuit.observable(i)

    class Circuit(nn.Module):
        def __init__(self):
            super().__init__()
            self.circuit = circuit

        def forward(self, x):
            self.circuit(x)
            return self.circuit.expectation()

    return Circuit()


class System(NamedTuple):
    """A name in the results, what is printed for it, the environment that has it, and how it is made."""

    label: str
    environment: str
    make: Callable
    torch: bool = True


SYSTEMS = {
    "linear": System("nn.Linear: the floor", "main", linear),
    "statevector": System("QuantumLayer, statevector", "main", QuantumLayer),
    "shift_rule": System(
        "QuantumLayer, default.qubit, batched shift rule",
        "main",
        partial(QuantumLayer, simulator="default.qubit", diff_method="parameter-shift"),
    ),
    "torch_layer": System("PennyLane TorchLayer, default.qubit, backprop, broadcast", "main", torch_layer),
    "lightning": System(
        "PennyLane TorchLayer, lightning.qubit, adjoint",
        "main",
        partial(torch_layer, device="lightning.qubit", diff_method="adjoint"),
    ),
    "deepquantum": System("DeepQuantum", "peers", deepquantum),
    "pyqtorch": System("pyqtorch", "peers", pyqtorch),
    "tensorcircuit_torch": System("tensorcircuit-ng, torch", "peers", partial(tensorcircuit, backend="pytorch")),
    "tensorcircuit_bridge": System("tensorcircuit-ng under jax.jit, behind a torch function", "peers", tensorcircuit_bridge),
    "tensorcircuit_jax": System("tensorcircuit-ng under jax.jit (not usable from torch)", "peers", tensorcircuit, False),
    "pennylane_jax": System("PennyLane default.qubit under jax.jit (not usable from torch)", "peers", pennylane_jax, False),
}
FLOOR, TEXTBOOK = "linear", "torch_layer"
"""What everything is compared with."""


def inputs(n: int, depth: int, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same x `(batch, n)` and theta `(depth, n)` for every system, float32."""
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, n)).astype("float32"), random.normal(size=(depth, n)).astype("float32")


@lru_cache(maxsize=2)
def reference(n: int, depth: int, batch: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(⟨Z⟩, gradient to x, gradient to theta) by the definition: PennyLane's default.qubit, in float64."""
    x, theta = (torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in inputs(n, depth, batch, seed))
    values = torch.stack(pennylane(n, depth)(x, theta), dim=-1)
    return tuple(part.detach().numpy() for part in (values, *torch.autograd.grad(values.sum(), (x, theta))))


def deviation(found, n: int, depth: int, batch: int, seed: int = 0) -> float:
    """The largest difference of what a step returned from `reference`, in units of the largest entry (and of 1)."""
    values, grad_x, *grads = (np.asarray(part) for part in found)  # weights may be many small tensors
    pairs = zip(
        (values, grad_x, np.concatenate([grad.ravel() for grad in grads])), reference(n, depth, batch, seed), strict=True
    )
    return max(np.abs(ours.reshape(true.shape) - true).max() / max(1, np.abs(true).max()) for ours, true in pairs)


# Steps: functions without arguments, to be timed.


@lru_cache(maxsize=2)
def compiled(make: Callable, n: int, depth: int):
    """(x, theta, grad) → (⟨Z⟩, gradient to x, gradient to theta) of a JAX system, compiled."""
    import jax

    layer = make(n, depth)

    def run(x, theta, grad):
        values, pullback = jax.vjp(layer, x, theta)
        return values, *pullback(grad)

    return jax.jit(run)


def torch_module(name: str, n: int, depth: int, theta: np.ndarray) -> nn.Module:
    module = SYSTEMS[name].make(n, depth)
    if name != FLOOR:
        vector_to_parameters(torch.tensor(theta).flatten(), module.parameters())
    return module


def layer_step(name: str, n: int, depth: int, batch: int, seed: int = 0):
    """Forward and backward of the sum of the outputs; returns (⟨Z⟩, gradient to x, gradients to the weights)."""
    x, theta = inputs(n, depth, batch, seed)
    if not SYSTEMS[name].torch:
        import jax

        run, arguments = compiled(SYSTEMS[name].make, n, depth), jax.device_put((x, theta, np.ones_like(x)))
        return lambda: jax.block_until_ready(run(*arguments))
    return derivatives(torch_module(name, n, depth, theta), x)


def derivatives(module: nn.Module, x: np.ndarray):
    """The step of a torch module."""
    weights, x = list(module.parameters()), torch.tensor(x, requires_grad=True)

    def step():
        values = module(x)
        return values.detach(), *torch.autograd.grad(values.sum(), (x, *weights))

    return step


@contextmanager
def chosen(constant: str, value: int) -> Iterator[None]:
    """Our engine with one of its constants at another value. What it compiles here is not kept for others."""

    def forget():
        for name in ("_program", "program", "sources", "ready", "ready_separate"):
            getattr(compilation, name).cache_clear()

    usual = getattr(fusion, constant)
    forget()
    setattr(fusion, constant, value)
    try:
        yield
    finally:
        setattr(fusion, constant, usual)
        forget()


def choice_step(name: str, n: int, depth: int, batch: int, seed: int = 0, *, constant: str, value: int):
    """As `layer_step` of our engine, compiled with one of its constants at another value."""
    x, theta = inputs(n, depth, batch, seed)
    layer = torch_module(name, n, depth, theta)
    with chosen(constant, value):
        made = compilation.ready(layer.key, n, torch.float32, torch.device("cpu"))
    circuit = Function(lambda x, theta: made.outputs(x, [theta]), n, depth)
    circuit.load_state_dict(layer.state_dict())
    return derivatives(circuit, x)


def head_step(name: str, n: int, depth: int, batch: int, seed: int = 0):
    """A training step of the head: Linear 512 → n, tanh·π/2, the layer, Linear n → 2, cross-entropy, Adam."""
    torch.manual_seed(seed)
    layer, before, after = torch_module(name, n, depth, inputs(n, depth, batch, seed)[1]), nn.Linear(512, n), nn.Linear(n, 2)
    adam = torch.optim.Adam(nn.ModuleList([before, layer, after]).parameters(), lr=1e-3)
    features, labels = torch.randn(batch, 512), torch.arange(batch) % 2

    def step():
        adam.zero_grad()
        z = layer(torch.tanh(before(features)) * pi / 2).to(features.dtype)
        loss = nn.functional.cross_entropy(after(z), labels)
        loss.backward()
        adam.step()
        return loss.detach()

    return step


def models_step(name: str, n: int, depth: int, batch: int, seed: int = 0):
    """As `layer_step`, for `MODELS` models with weights and inputs of their own, in one call."""
    modules = [torch_module(name, n, depth, inputs(n, depth, batch, seed + i)[1]) for i in range(MODELS)]
    weights, buffers = stack_module_state(modules)
    x = torch.tensor(np.stack([inputs(n, depth, batch, seed + i)[0] for i in range(MODELS)]), requires_grad=True)
    every = vmap(lambda weights, buffers, x: functional_call(modules[0], (weights, buffers), (x,)))

    def step():
        values = every(weights, buffers, x)
        return values.detach(), *torch.autograd.grad(values.sum(), (x, *weights.values()))

    return step


def build(name: str, case: str, n: int, depth: int, batch: int, seed: int = 0, **choice):
    """The step of a system, warmed up (so compiled) and, where it is the bare layer, checked against the definition.

    Args:
        name: one of `SYSTEMS`.
        case: "layer", "choice", "head" or "models".
        choice: of the case "choice", `constant` and `value`.

    Raises:
        ValueError: values or gradients that are not those of the definition.
    """
    steps = {"layer": layer_step, "choice": choice_step, "head": head_step, "models": models_step}
    step = steps[case](name, n, depth, batch, seed, **choice)
    found = step()
    if case in ("layer", "choice") and name != FLOOR and not (off := deviation(found, n, depth, batch, seed)) < TOLERANCE:
        raise ValueError(f"deviates from the definition by {off:.1e}")
    return step
