"""What a result is, and when two agree."""

from math import nan

import pytest

from hqnn_utils.results import Result, scrap


@pytest.mark.parametrize(
    ("mine", "theirs", "tolerance", "agree"),
    [
        (1.0, 1.05, 0.1, True),
        (1.0, 1.15, 0.1, False),
        (1, 1, 0.0, True),
        (1, 2, 0.0, False),
        ("inside", "inside", 0.0, True),
        ("inside", "above", 9.0, False),
        ("inside", 1.0, 9.0, False),
        (1.0, "inside", 9.0, False),
        (nan, 1.0, 9.0, False),
    ],
)
def test_results_agree_within_the_tolerance_that_they_declare(mine, theirs, tolerance, agree):
    assert Result(mine, "s", tolerance).agrees(Result(theirs, "s", 0.0)) is agree


def test_an_output_that_was_not_glued_is_no_result():
    assert scrap({"output_type": "stream", "text": "1.0"}) is None
