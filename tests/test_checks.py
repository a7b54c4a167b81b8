"""Numbers that are no numbers: what is refused, and that the message says where it stands."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hqnn_utils.checks import NotFinite, finite

NOT_FINITE = st.sampled_from([np.nan, np.inf, -np.inf])
shapes = arrays.array_shapes(max_dims=3, max_side=4)
numbers = arrays.arrays(np.float64, shapes, elements=st.floats(allow_nan=False, allow_infinity=False))


@given(numbers)
def test_finite_numbers_come_back_as_they_are(values):
    assert np.array_equal(finite("values", values), values)


@given(numbers, NOT_FINITE, st.data())
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(values, bad, data):
    place = tuple(data.draw(st.integers(0, size - 1)) for size in values.shape)
    values[place] = bad
    axes = {f"axis{number}": range(size) for number, size in enumerate(values.shape)}
    where = ", ".join(f"axis{number} {i}" for number, i in enumerate(place))
    with pytest.raises(NotFinite, match=f"^values must be finite, got {bad} at {where}$"):
        finite("values", values, **axes)


def test_an_entry_is_called_by_the_name_of_its_axis():
    with pytest.raises(ValueError, match=r"outputs must be finite, got nan at seed 11, image 1$"):
        finite("outputs", torch.tensor([[0.0, 1.0], [2.0, torch.nan]], requires_grad=True), seed=[3, 11], image=range(2))


def test_a_single_number_needs_no_place():
    with pytest.raises(NotFinite, match=r"^loss must be finite, got inf$"):
        finite("loss", np.inf)
