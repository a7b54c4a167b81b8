"""What may go into a circuit: real numbers of one precision, and sizes that are whole."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce, wraps
from numbers import Integral
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

PRECISIONS = torch.float32, torch.float64
"""In which everything is computed."""

COMPLEX = {torch.float16: torch.complex32, torch.float32: torch.complex64, torch.float64: torch.complex128}
REAL = {value: key for key, value in COMPLEX.items()}

ANGLES = "angles must be real floating-point numbers"


def one_dtype(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function of tensors under the one rule for dtypes, that of every engine and layer.

    All tensors must be real floating-point numbers, but the first may be complex where it is called `psi`. They are promoted
    to the widest precision among them, as torch promotes, and the result has that precision. It is computed in float32 at
    least: half precision is only that of inputs and outputs, also under `torch.autocast`.

    Raises:
        TypeError: integers, bools, and complex angles, which torch would turn into other numbers without a word.
    """
    of_states = next(iter(inspect.signature(function).parameters)) == "psi"

    @wraps(function)
    def at_once(*args: P.args, **options: P.kwargs) -> Tensor:
        """What nearly always is: all tensors have one of the two dtypes already, which takes a microsecond to see."""
        if options or torch._C._is_any_autocast_enabled() or torch.jit.is_tracing():
            return _promoted(function, of_states, args, options)
        seen = None
        for value in args:
            if isinstance(value, Tensor):
                dtype = value.dtype
                if seen is None:
                    seen = REAL.get(dtype, dtype) if of_states else dtype
                elif dtype is not seen:
                    return _promoted(function, of_states, args, options)
        return function(*args, **options) if seen in PRECISIONS else _promoted(function, of_states, args, options)

    return at_once


def _promoted(function: Callable[..., Tensor], of_states: bool, args: tuple, options: dict[str, Any]) -> Tensor:
    """The function of tensors of any precision, by the rule of `one_dtype`."""
    what = "states must be of floating-point or complex numbers and angles of real ones" if of_states else ANGLES
    tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor)]
    if not tensors:
        raise TypeError(f"{what} in tensors of torch, got {', '.join(type(value).__name__ for value in args)}")
    dtypes = [tensor.dtype for tensor in tensors]
    if of_states:
        dtypes[0] = REAL.get(dtypes[0], dtypes[0])
    for dtype in dtypes:
        if not dtype.is_floating_point:
            raise TypeError(f"{what}, got {dtype}: convert them, e.g. by `.float()`")
    precision = reduce(torch.promote_types, dtypes)
    real = torch.promote_types(precision, torch.float32)
    kind = tensors[0].device.type
    autocast = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)

    def wide(value: Any) -> Any:
        return value.to(COMPLEX[real] if value.is_complex() else real) if isinstance(value, Tensor) else value

    with (
        torch.autocast(kind, enabled=False) if autocast else nullcontext(),
        _untold() if torch.jit.is_tracing() else nullcontext(),
    ):
        result = function(*map(wide, args), **{name: wide(value) for name, value in options.items()})
    return result.to(COMPLEX.get(precision, torch.complex64) if result.is_complex() else precision)


@contextmanager
def _untold() -> Iterator[None]:
    """No word of a trace about widths and depths, which it takes as constants: they are those of the weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def is_count(value: object, least: int) -> bool:
    """Whether a value is a whole number of at least `least`; True and 2.0 are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def require_sizes(n_qubits: int, depth: int = 0) -> None:
    """Refuse a size of a layered circuit that is no size.

    Raises:
        ValueError: anything but whole numbers, `n_qubits` at least 1 and `depth` at least 0.
    """
    if not (is_count(n_qubits, 1) and is_count(depth, 0)):
        raise ValueError(
            f"a layer needs n_qubits >= 1 and depth >= 0, got n_qubits={n_qubits!r}, depth={depth!r}: give whole numbers"
        )


def require_shots(shots: int, seed: int | None = None) -> None:
    """Refuse what is no number of measurements, or no seed of them.

    Raises:
        ValueError: anything but whole numbers that are not negative; the seed may be `None`.
    """
    if not is_count(shots, 0):
        raise ValueError(f"shots must be 0 (exact) or positive, got {shots!r}: give a whole number of measurements")
    if seed is not None and not (is_count(seed, 0) and seed < 2**63):
        raise ValueError(f"a seed must be a whole number from 0 to 2**63 - 1, or None for a fresh one, got {seed!r}")


def require_eager() -> None:
    """Refuse a tracer that would keep, as a constant, what a device or a measurement answers.

    Raises:
        RuntimeError: under `torch.export` and `torch.jit.trace`.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        raise RuntimeError(
            "shots, devices and the shift rule cannot be exported or traced, only what torch computes itself: take "
            "simulator='statevector' without shots and without diff_method"
        )
