"""Exercises that check themselves: a cell leaves a number, an array, a function or a layer; a sentence says if it is right.

Nothing is ever raised, so a notebook runs from top to bottom with its exercises still to be done.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def check(
    answer: Any,
    right: Any,
    wanted: str,
    at: Sequence | np.ndarray = (),
    slips: Mapping | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Print in one sentence whether an answer is right, and what is wrong where it is not.

    Args:
        answer: what the reader wrote; `...` or None where nothing is written yet.
        right: the right number, array or function.
        wanted: what to write, with its name, e.g. "`slope`: the derivative of f, a function of one angle".
        at: inputs at which functions are compared, one argument each, or several where it is a tuple.
        slips: sentence → what one finds by this typical mistake, of the kind of `right`.
        tolerance: by how much an answer may differ, absolutely.
    """
    sentence = _sentence(answer, right, wanted, at, slips or {}, tolerance)
    print(" ".join(sentence.split()))


def _sentence(answer: Any, right: Any, wanted: str, at: Sequence | np.ndarray, slips: Mapping, tolerance: float) -> str:
    if answer is None or answer is ...:
        return f"Nothing here yet. Write {wanted}."
    if callable(answer) != callable(right):
        return f"Not yet: this is {'a function' if callable(answer) else 'no function'}. Write {wanted}."
    try:
        found = _values(answer, at)
    except Exception as error:  # whatever a reader's code may do
        return f"Not yet: this stops with {type(error).__name__}: {error}."
    if found.dtype.kind not in "biufc":
        return f"Not yet: {'the function returns' if callable(answer) else 'this is'} no number. Write {wanted}."
    expected = _values(right, at)
    if found.shape != expected.shape:
        mine, theirs = (values.shape[callable(answer) :] for values in (found, expected))
        return f"Not yet: the shape is {mine} and should be {theirs}."
    wrong = ~np.isclose(found, expected, rtol=0, atol=tolerance)
    if not wrong.any():
        return "Right."
    for slip, mistaken in slips.items():
        if np.allclose(found, _values(mistaken, at), rtol=0, atol=tolerance):
            return f"Not yet: {slip}."
    if callable(answer):
        places = [x for x, differs in zip(at, wrong, strict=True) if differs.any()]
        return f"Not yet: {len(places)} of {len(at)} inputs give something else, the first of them {places[0]}."
    which = f"{answer} is" if found.ndim == 0 else f"{wrong.sum()} of {wrong.size} entries are"
    return f"Not yet: {which} not right."


def _values(given: Any, at: Sequence | np.ndarray) -> np.ndarray:
    """A value as an array, or those of a function, one input a row."""
    if callable(given):
        return np.array([_values(given(*x) if isinstance(x, tuple) else given(x), ()) for x in at])
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
