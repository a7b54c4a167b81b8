"""What is made once of a quantum function: a program for each width of the input, and its tensors for each precision."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, wraps
from typing import Any

import pennylane as qml
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_map_only

from hqnn_utils.quantum.angles import Sources, converted
from hqnn_utils.quantum.programs import Program, Ready, require_memory
from hqnn_utils.quantum.readout import Readout, readout_of
from hqnn_utils.quantum.small import small_of
from hqnn_utils.quantum.steps import Steps
from hqnn_utils.quantum.tracing import Definition, trace
from hqnn_utils.quantum.verification import verify


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """What `make` returns for hashable arguments, made once, of real tensors whoever asks first.

    A tracer, a transform and inference mode hold for one thread, so another one makes what outlives them. Compilers take the
    result as it is; in a mode that has tensors of its own (fake ones) it enters as `torch.tensor` does.
    """

    @lru_cache
    def made(*arguments: Any) -> Any:
        if qml.QueuingManager.recording():  # PennyLane lets one thread record, and another would wait for ever
            with qml.QueuingManager.stop_recording():
                return make(*arguments)
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(make, *arguments).result()

    @wraps(make)
    def known(*arguments: Any) -> Any:
        tensors = made(*arguments)
        if not is_in_torch_dispatch_mode():
            return tensors
        return tree_map_only(Tensor, torch.ops.aten.lift_fresh, tensors)

    # The mark is torch.compiler.assume_constant_result, without its import of two seconds.
    vars(known).update(cache_clear=made.cache_clear, _dynamo_marked_constant=True)
    return known


DEFINITIONS: dict[str, Definition] = {}
"""All that this process knows. Compilers keep texts as constants, and neither functions nor numbers: so each has a name."""


@cache
def key_of(definition: Definition) -> str:
    """The name of a definition in this process, the same for equal ones."""
    key = f"circuit {len(DEFINITIONS)}"
    DEFINITIONS[key] = definition
    return key


@lru_cache(maxsize=256)
def _program(key: str, n_inputs: int) -> Program:
    definition = DEFINITIONS[key]
    if definition.wires is not None:  # known before a trace of so many takes its time
        _require_memory_of(len(definition.wires))
    traced = trace(definition, n_inputs)
    verify(traced, definition, n_inputs)
    return Program(traced, dict(definition.shapes))


@constant
def program(key: str, n_inputs: int) -> Program:
    """The program of a quantum function for inputs of a width.

    Raises:
        tracing.Refused: a circuit that cannot be traced, or whose trace does not tell everything.
        MemoryError: before it is traced, if not even the program fits.
    """
    return _program(key, n_inputs)


@constant
def sources(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> Sources:
    """Where its angles come from, in a precision and on a device."""
    return converted(_program(key, n_inputs).traced.sources, dtype, device)


@constant
def ready(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> Ready:
    """The program in a precision, on a device.

    Raises:
        tracing.Refused: as `program`.
        MemoryError: before anything is allocated, if not even the program fits.
    """
    made = _program(key, n_inputs)
    _require_memory_of(made.traced.n_qubits)
    readout = readout_of(made.measured, made.plan, dtype, device)
    steps, kept = made.plan.tensors(dtype, device), made.plan.kept + readout.kept
    drawn = converted(made.traced.sources, dtype, device)
    quick = small_of(steps, readout, drawn) if device.type == "cpu" else None
    return Ready(made, drawn, steps, readout, kept, quick)


@constant
def ready_separate(key: str, n_inputs: int, dtype: torch.dtype, device: torch.device) -> tuple[Steps, Readout]:
    """Steps and readout of the program as a function of an angle for each rotation."""
    made = _program(key, n_inputs)
    plan = made.separate.plan
    return plan.tensors(dtype, device), readout_of(made.measured, plan, dtype, device)


def _require_memory_of(n_qubits: int) -> None:
    """A step that exchanges amplitudes holds two places of each."""
    require_memory(n_qubits, 0, 0, torch.device("cpu"), 32)
