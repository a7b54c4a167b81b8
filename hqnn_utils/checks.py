"""What no number may be: NaN or infinite. A sum, a mean or a comparison would hide it, so it is refused where it comes in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from hqnn_utils.errors import BookError


class NotFinite(BookError, ValueError):
    """A number that is NaN or infinite; the message says which, and where it stands."""


def finite(what: str, values: Any, **axes: Sequence) -> ndarray:
    """The values as an array, if each of them is a finite number.

    Args:
        what: the values are, for the message.
        values: a number, an array or a tensor.
        axes: what each leading axis counts, and what its entries are called, e.g. `seed=[0, 1, 2], image=range(34)`. Further
            axes belong to one entry.

    Raises:
        NotFinite: one is not; the message names the first, e.g. "outputs must be finite, got nan at seed 2, image 17".
    """
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    wrong = ~np.isfinite(values)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = ", ".join(f"{axis} {names[i]}" for (axis, names), i in zip(axes.items(), first, strict=False))
        raise NotFinite(f"{what} must be finite, got {values[first]}{where and f' at {where}'}")
    return values
