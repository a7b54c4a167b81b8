"""Engines: functions of a definition (its `key`), inputs `(rows, n_inputs)` and weights, to outputs `(rows, n_outputs)`.

Torch sees into `Exact`, and differentiates it. Into a sampler or a device of PennyLane it does not, and the shift rule does.
"""

import pickle
from collections.abc import Callable
from typing import Any

import pennylane as qml
import torch
from pennylane.devices import Device
from torch import Tensor

from hqnn_utils.checks import finite
from hqnn_utils.quantum.angles import CircuitAngles
from hqnn_utils.quantum.circuits import expval_z, qnode
from hqnn_utils.quantum.compilation import program, ready, ready_separate, sources
from hqnn_utils.quantum.gradients import ShiftRule
from hqnn_utils.quantum.inputs import require_eager, require_shots
from hqnn_utils.quantum.programs import Program
from hqnn_utils.quantum.tracing import Refused


class Exact:
    """Our engine where nothing is measured: torch computes it all, and differentiates it."""

    device: Device | None = None

    def __call__(self, key: str, n_inputs: int, x: Tensor, *weights: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and program(key, n_inputs).has_functions:  # whose graph a compiler does not take in
            return torch.compiler.disable(self.computed)(key, n_inputs, x, *weights)
        return ready(key, n_inputs, x.dtype, x.device).outputs(x, weights)

    @staticmethod
    def computed(key: str, n_inputs: int, x: Tensor, *weights: Tensor) -> Tensor:
        """The outputs."""
        return ready(key, n_inputs, x.dtype, x.device).outputs(x, weights)


class Opaque:
    """An engine into which torch does not see, differentiated by the shift rule.

    Its `rows` takes the angles of the data `(rows, …)`, and of the weights, for each row as well, to outputs.
    """

    device: Device | None = None
    rows: Callable[[str, int, Tensor, Tensor], Tensor]

    def __call__(self, key: str, n_inputs: int, x: Tensor, *weights: Tensor) -> Tensor:
        require_eager()
        if not x.numel():  # of nothing, nobody is asked
            return ready(key, n_inputs, x.dtype, x.device).outputs(x, weights)
        if torch.compiler.is_compiling():  # nor does a compiler see into it
            return torch.compiler.disable(self.differentiable)(key, n_inputs, x, *weights)
        return self.differentiable(key, n_inputs, x, *weights)

    def differentiable(self, key: str, n_inputs: int, x: Tensor, *weights: Tensor) -> Tensor:
        """The outputs with a gradient."""
        known = program(key, n_inputs)
        data, shared = known.separate.angles(sources(key, n_inputs, x.dtype, x.device).angles(x, weights))
        if known.measured.squared and torch.is_grad_enabled() and (data.requires_grad or shared.requires_grad):
            raise Refused(
                "the shift rule does not hold for a variance, which is no expectation value: take simulator='statevector' "
                "without shots, or torch.no_grad()"
            )
        n_data = data.shape[-1]

        def values(angles: Tensor) -> Tensor:
            rows = _finite(angles.reshape(-1, angles.shape[-1]), known, n_inputs)
            found = self.rows(key, n_inputs, rows[:, :n_data], rows[:, n_data:])
            return found.reshape(*angles.shape[:-1], known.n_outputs)

        # Every angle of every row is its own: expand adds up the gradients of shared weights.
        return ShiftRule.apply(values, torch.cat([data, shared.expand(len(x), -1)], dim=-1))


def _finite(angles: Tensor, known: Program, n_inputs: int) -> Tensor:
    """The angles `(rows, angles)`, those of the data first. Of NaN, samplers and devices would make numbers."""
    finite("angles", angles, row=range(len(angles)), angle=known.separate.names(n_inputs))
    return angles


class Sampled(Opaque):
    """Our engine for the shift rule: with shots seeded outcomes, which start anew in a copy as those of a device do."""

    def __init__(self, shots: int, seed: int | None):
        require_shots(shots, seed)
        self.shots, self.seed = int(shots), seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device) -> torch.Generator:
        """For tensors of a device of torch."""
        if device not in self.generators:
            generator = self.generators[device] = torch.Generator(device)
            generator.seed() if self.seed is None else generator.manual_seed(int(self.seed))
        return self.generators[device]

    def rows(self, key: str, n_inputs: int, data: Tensor, shared: Tensor) -> Tensor:
        """Means of the shots, or exact values."""
        steps, readout = ready_separate(key, n_inputs, data.dtype, data.device)
        if shared.shape[-1]:
            each = torch.vmap(lambda row, weights: steps.states(CircuitAngles(weights, row.unsqueeze(0))))
            psi = each(data, shared).squeeze(1)
        else:
            psi = steps.states(CircuitAngles(shared.new_zeros(0), data)).expand(len(data), -1)
        return readout.means(psi, self.shots, self.generator(data.device)) if self.shots else readout.exactly(psi)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"generators": {}}


class OnDevice(Opaque):
    """A PennyLane device: by a method of its own, or by our shift rule, since PennyLane's refuses trainable batches."""

    device: Device

    def __init__(self, simulator: str | Device, diff_method: str, n_qubits: int, shots: int, seed: int | None):
        self.given = simulator, diff_method, n_qubits, shots, seed
        self.diff_method, self.shots = diff_method, shots
        options = {} if seed is None else {"seed": seed}
        self.device = qml.device(simulator, wires=n_qubits, **options) if isinstance(simulator, str) else simulator
        self.nodes: dict[Program, qml.QNode] = {}
        # Inside our rule nothing is differentiated, and devices compute faster with NumPy's numbers than with torch's.
        inside = diff_method == "parameter-shift"
        self.options: dict[str, Any] = dict(diff_method=None, interface=None) if inside else dict(diff_method=diff_method)
        qml.QNode(expval_z, self.device, **self.options)  # refuses a method that the device has not

    def node(self, known: Program) -> qml.QNode:
        """PennyLane's QNode, a function of the angles of all rotations: those of the data, and those of the weights."""
        if known not in self.nodes:
            separate, n = known.separate, known.traced.n_qubits
            self.nodes[known] = qnode(separate.apply, separate.measure, n, self.device, self.shots, **self.options)
        return self.nodes[known]

    def differentiable(self, key: str, n_inputs: int, x: Tensor, *weights: Tensor) -> Tensor:
        """The outputs with a gradient, by the shift rule or by the device's own method."""
        if self.diff_method == "parameter-shift":
            return super().differentiable(key, n_inputs, x, *weights)
        known = program(key, n_inputs)
        data, shared = known.separate.angles(sources(key, n_inputs, x.dtype, x.device).angles(x, weights))
        node = self.node(known)
        if self.diff_method != "backprop":
            _finite(torch.cat([data, shared.expand(len(x), -1)], dim=-1), known, n_inputs)
            if known.separate.has_words:  # whose rows PennyLane's adjoint mixes up
                return torch.cat([_gathered(node(row, shared), 1) for row in data]).to(x.dtype)
        return _gathered(node(data.mT, shared), len(x)).to(x.dtype)

    def rows(self, key: str, n_inputs: int, data: Tensor, shared: Tensor) -> Tensor:
        """What the device measures, which broadcasts over the rows."""
        angles = (rows.numpy(force=True).astype(float).T for rows in (data, shared))  # rows last, where gates broadcast
        return _gathered(self.node(program(key, n_inputs))(*angles), len(data)).to(data)

    def __deepcopy__(self, memo: dict) -> "OnDevice":
        return OnDevice(*self.given)  # a device that is no name is shared: not every one can be copied

    def __reduce__(self) -> tuple[type["OnDevice"], tuple]:
        try:
            pickle.dumps(self.given)
        except Exception as error:  # whatever a plugin holds
            raise pickle.PicklingError(
                f"the device {self.given[0]} cannot be pickled ({error}): give the layer its name, or save its state_dict()"
            ) from error
        return OnDevice, self.given


def _gathered(values: Any, rows: int) -> Tensor:
    """What a QNode returned, one measurement or several, as `(rows, n_outputs)`."""
    listed = values if isinstance(values, (list, tuple)) else [values]
    return torch.cat([torch.as_tensor(value).reshape(rows, -1) for value in listed], dim=-1)


def engine_for(
    simulator: str | Device, diff_method: str | None, n_qubits: int, shots: int, seed: int | None
) -> tuple[Exact | Opaque, str]:
    """The engine for the arguments of a layer, and how it is differentiated.

    Raises:
        ValueError: as the layers.
    """
    require_shots(shots, seed)
    exact = simulator in ("statevector", "default.qubit") and not shots
    diff_method = diff_method or ("backprop" if exact else "parameter-shift")
    if diff_method == "backprop" and shots:
        raise ValueError("shots leave nothing to go back through: use diff_method='parameter-shift'")
    if simulator != "statevector":
        return OnDevice(simulator, diff_method, n_qubits, shots, seed), diff_method
    if diff_method not in ("backprop", "parameter-shift"):
        raise ValueError(
            f"the state vector has the methods 'backprop' and 'parameter-shift', got {diff_method!r}: that needs a "
            "PennyLane device, e.g. simulator='lightning.qubit'"
        )
    return Exact() if diff_method == "backprop" else Sampled(shots, seed), diff_method
