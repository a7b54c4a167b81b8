"""What may go into a circuit: the tests of each engine and layer say what becomes of the rest."""

import numpy as np
import pytest

from hqnn_utils.quantum.inputs import is_count


@pytest.mark.parametrize("value", [0, 1, 7, np.int64(3), 10**30])
def test_whole_numbers_are_counts(value):
    assert is_count(value, 0)


@pytest.mark.parametrize("value", [True, False, np.True_, -1, 2.0, np.float64(2), float("nan"), float("inf"), "3", None, [1]])
def test_nothing_else_is_a_count(value):
    assert not is_count(value, 0)


def test_a_count_may_have_to_be_positive():
    assert is_count(1, 1) and not is_count(0, 1)
