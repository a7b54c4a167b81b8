"""A quantum function as a program: from inputs and weights to what is measured, on our engine or gate by gate."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, no_type_check

import numpy as np
import pennylane as qml
import psutil
import torch
from pennylane.measurements import MeasurementProcess, StateMP
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from hqnn_utils.quantum.angles import CircuitAngles, Sources
from hqnn_utils.quantum.fusion import Plan
from hqnn_utils.quantum.readout import Measured, Readout
from hqnn_utils.quantum.small import LARGEST, Small, placed
from hqnn_utils.quantum.steps import Steps
from hqnn_utils.quantum.tracing import Fixed, Gate, Given, Noise, Refused, Rotation, Traced

CHECKED_BYTES = 2**26
"""From here on the free memory is asked for first, which takes longer than a small circuit."""


class Program:
    """A traced circuit, compiled.

    Attributes:
        traced: its gates, and where their angles come from.
        shapes: of its weights, by name.
        of_states: whether it gives states.
        measured: else what it gives.
        has_functions: whether a graph computes some of its angles, matrices and states.
        n_outputs: how many numbers a row of the input gives; 0 where it gives states.
    """

    def __init__(self, traced: Traced, shapes: Mapping[str, tuple[int, ...]]):
        self.traced, self.shapes, self.has_functions = traced, shapes, traced.sources.has_functions
        self.of_states = any(type(measured) is StateMP for measured in traced.measurements)
        if self.of_states and len(traced.measurements) > 1:
            raise Refused("the state is everything that can be known of a circuit: measure it alone")
        self.measured = Measured([] if self.of_states else traced.measurements, traced.wires)
        self.n_outputs = sum(self.measured.sizes)

    def planned(self, gates: Sequence[Gate], n_angles: tuple[int, int]) -> Plan:
        """Gates, and then those that the only setting needs."""
        if noise := next((gate for gate in gates if isinstance(gate, Noise)), None):
            raise Refused(
                f"{noise.gate.name} is noise, which leaves no pure state: take a noisy device, such as "
                "simulator=qml.device('default.mixed', wires=…)"
            )
        settings = self.measured.settings
        only = settings[0].gates if len(settings) == 1 else []
        return Plan([*gates, *only], self.traced.n_qubits, n_angles)

    @cached_property
    def plan(self) -> Plan:
        """The gates as steps."""
        sources = self.traced.sources
        return self.planned(self.traced.gates, (sources.shared.n_angles, sources.data.n_angles))

    @cached_property
    def separate(self) -> "Separate":
        """The circuit as a function of an angle for each of its rotations."""
        return Separate(self)


@no_type_check
class Ready(NamedTuple):
    """A program in a precision, on a device: a function of inputs `(rows, n_inputs)` and the list of weights."""

    program: Program
    sources: Sources
    steps: Steps
    readout: Readout
    kept: int
    """How many numbers are kept for the backward pass, for each amplitude of each row."""
    small: Small | None = None
    """The same for small batches, on the CPU."""

    def states(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Final states, `(rows, 2**n)` or `(1, 2**n)`, as the plan leaves them.

        Raises:
            MemoryError: before the allocation, if the states that the backward pass keeps cannot fit.
        """
        return self.steps.states(self.angles(x, weights))

    def angles(self, x: Tensor, weights: Sequence[Tensor]) -> CircuitAngles:
        """The angles, if there is memory for the states."""
        angles = self.sources.angles(x, weights)
        if not torch.compiler.is_compiling():  # which allocates nothing yet
            self.require_memory(x, x.shape[0] * max(mapped(angles.shared), mapped(angles.data)))
        return angles

    def require_memory(self, x: Tensor, rows: int) -> None:
        """Refuse what does not fit."""
        require_memory(self.program.traced.n_qubits, rows, self.kept * x.element_size(), x.device, self.program.plan.own)

    def outputs(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Exactly what is measured: `(rows, n_outputs)`, or the states, `(rows, 2**n)`, qubit 0 leftmost."""
        if self.program.of_states:
            found = _natural(self.states(x, weights), self.program.plan.layout)
        elif _is_watched() or self.small is None or not 0 < x.shape[0] << self.program.traced.n_qubits <= LARGEST:
            found = self.measured(self.angles(x, weights))
        else:
            self.require_memory(x, x.shape[0])
            shared_arrays, inputs = 0, [x, *weights]
            if self.small.of_angles:
                angles = self.sources.angles(x, weights)
                shared_arrays, inputs = len(angles.shared_arrays), [angles.shared, angles.data]
                inputs += [*angles.shared_arrays, *angles.data_arrays]
            found = _ByHand.apply(self, shared_arrays, *inputs)
        return found if found.shape[0] == x.shape[0] else found.expand(x.shape[0], -1)

    def measured(self, angles: CircuitAngles) -> Tensor:
        """What is measured, `(rows, n_outputs)` or `(1, n_outputs)`."""
        return self.readout.exactly(self.steps.states(angles))


def _is_watched() -> bool:
    """Whether more is wanted of torch than values and first derivatives: a transform, a compiler or a tracer is at work."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or is_in_torch_dispatch_mode()
        or forward_ad._current_level >= 0
    )


class _ByHand(torch.autograd.Function):
    """What is measured of a small batch. Of derivatives of the first one, torch takes care."""

    @staticmethod
    def forward(ctx: Any, ready: Any, n_shared: int, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.ready, ctx.n_shared = ready, n_shared
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN makes NaN
            found, ctx.back = ready.small.run([one.numpy() for one in inputs], n_shared)
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ready, inputs, needed = ctx.ready, ctx.saved_tensors, ctx.needs_input_grad[2:]
        again = torch.is_grad_enabled()  # for a derivative of this one
        if again or _is_watched() or _functorch.is_legacy_batchedtensor(grad):
            of_angles = ready.small.of_angles
            with torch.enable_grad():
                inputs = [one.view_as(one) for one in inputs]  # apart, where one is made of another
                wanted = [one for one, need in zip(inputs, needed, strict=True) if need]
                angles = placed(inputs, ctx.n_shared) if of_angles else ready.sources.angles(inputs[0], inputs[1:])
                value = ready.measured(angles)
            found = iter(torch.autograd.grad(value, wanted, grad, create_graph=again, allow_unused=True))
            return None, None, *(next(found) if need else None for need in needed)
        # What was kept is given up, as torch does it; who retains the graph and comes again has it computed again.
        with np.errstate(invalid="ignore", divide="ignore"):
            back, ctx.back = ctx.back or ready.small.run([one.numpy() for one in inputs], ctx.n_shared)[1], None
            grads = back(grad.numpy(), needed)
        each = zip(grads, inputs, needed, strict=True)
        return None, None, *(_tensor(one, like) if need and one is not None else None for one, like, need in each)


def _tensor(grad: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(grad.reshape(like.shape))


def _natural(psi: Tensor, layout: Sequence[int]) -> Tensor:
    """States whose qubits lie in their order, qubit 0 leftmost."""
    if layout == sorted(layout):
        return psi
    axes = [1 + layout.index(wire) for wire in range(len(layout))]
    return psi.unflatten(-1, [2] * len(layout)).permute(0, *axes).flatten(1)


def mapped(tensor: Tensor) -> int:
    """Over how many models `torch.vmap` maps a tensor: its own size does not tell."""
    inner = tensor
    while _functorch.is_functorch_wrapped_tensor(inner):
        inner = _functorch.get_unwrapped(inner)
    return 1 if inner is tensor else inner.numel() // max(tensor.numel(), 1)


def require_memory(n: int, rows: int, amplitude: int, device: torch.device, own: int = 0) -> None:
    """Refuse states of which each amplitude needs so many bytes, and the program `own` more, if they cannot fit."""
    needed = (rows * amplitude + own) * 2**n
    if needed < CHECKED_BYTES:
        return
    batch = f" and a batch of {rows}" if rows else ""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"{n} qubits{batch} need about {min(needed, 10**30) / 1e9:.3g} GB and {free / 1e9:.3g} GB are "
            "free: take fewer qubits, fewer layers or a smaller batch"
        )


# Gate by gate, for those who do not see inside


class Separate:
    """A program whose rotations have an angle each, as a shift rule needs them, or a device."""

    def __init__(self, program: Program):
        gates = program.traced.gates
        given = next((gate for gate in gates if isinstance(gate, Given)), None)
        if given is not None or program.of_states:
            what = "returns states" if given is None else "is given matrices or states that depend on inputs or weights"
            raise Refused(
                f"the shift rule and devices need expectation values that depend on rotation angles alone, and this circuit "
                f"{what}: take simulator='statevector' with diff_method='backprop'"
            )
        numbers = {wire: i for i, wire in enumerate(program.traced.wires)}
        self.measurements = [measured.map_wires(numbers) for measured in program.traced.measurements]
        self.gates: list[Gate] = []
        self.of_data, self.of_weights = list[int](), list[int]()
        for gate in gates:
            if isinstance(gate, Rotation):
                places = self.of_data if gate.data else self.of_weights
                places.append(gate.angle)
                gate = gate._replace(angle=len(places) - 1)
            elif isinstance(gate, (Fixed, Noise)) and gate.gate is not None:
                gate = gate._replace(gate=gate.gate.map_wires(dict(zip(gate.gate.wires, gate.wires, strict=False))))
            self.gates.append(gate)
        self.has_words = any(isinstance(gate, Rotation) and len(gate.wires) > 1 for gate in gates)
        self.program = program

    def names(self, n_inputs: int) -> list[str]:
        """Where each angle comes from, those of the data first."""
        shapes = [("x", (n_inputs,)), *self.program.shapes.items()]
        numbers = {name: [f"{name}[{', '.join(map(str, i))}]" for i in np.ndindex(*shape)] for name, shape in shapes}
        flat = [name for i in self.program.traced.sources.flat for name in numbers[shapes[1 + i][0]]]
        return [
            (known[i] if i < len(known) else f"{i} of {kind}")
            for known, places, kind in ((numbers["x"], self.of_data, "the data"), (flat, self.of_weights, "the weights"))
            for i in places
        ]

    @cached_property
    def plan(self) -> Plan:
        """The gates as steps."""
        return self.program.planned(self.gates, (len(self.of_weights), len(self.of_data)))

    def angles(self, known: CircuitAngles) -> tuple[Tensor, Tensor]:
        """Of each rotation that depends on the data `(rows, …)`, and of each that does not."""
        return known.data[:, self.of_data], known.shared.reshape(-1)[self.of_weights]

    def apply(self, data: Any, shared: Any) -> None:
        """The gates on a device of PennyLane, whose wires are 0 … n - 1."""
        for gate in self.gates:
            if isinstance(gate, Rotation):
                angle = (data if gate.data else shared)[gate.angle]
                if gate.word in ("X", "Y", "Z"):
                    getattr(qml, "R" + gate.word)(angle, gate.wires[0])
                elif set(gate.word) - {"I"}:
                    qml.PauliRot(angle, gate.word, gate.wires)
            elif isinstance(gate, (Fixed, Noise)) and gate.gate is not None:
                qml.apply(gate.gate)

    def measure(self) -> list[MeasurementProcess]:
        """What is measured on such a device."""
        return [qml.apply(measured) for measured in self.measurements]
