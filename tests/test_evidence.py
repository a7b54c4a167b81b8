"""Intervals and verdicts, against scipy and printed tables; and the slides' numbers against their own counts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hqnn_utils.evidence import compare, mean_interval, published, run_interval, share_interval, verdict

samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)
PRINTED = [
    (experiment, model, claims["images"], claim)
    for experiment, claims in published()["quantum_entanglement"].items()
    for model, claim in claims.items()
    if model != "images"
]


@given(samples, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_of_the_mean_is_scipys(values, level):
    mean, low, high = mean_interval(values, level)
    if np.std(values) > 1e-6:  # scipy gives nan for a spread of nothing
        expected = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(values))


def test_the_interval_of_the_mean_is_the_textbooks():
    # 1…5: mean 3, s = √2.5, t(0.975, 4) = 2.776
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(
        (3, 3 - 2.776 * np.sqrt(0.5), 3 + 2.776 * np.sqrt(0.5)), abs=1e-3
    )


@given(samples)
def test_one_run_scatters_more_than_the_mean_by_the_square_root_of_n_plus_one(values):
    _, low, high = mean_interval(values)
    mean, run_low, run_high = run_interval(values)
    assert run_high - run_low == pytest.approx((high - low) * np.sqrt(len(values) + 1))
    assert run_high - mean == pytest.approx(mean - run_low, abs=1e-9)


@given(samples)
def test_intervals_follow_a_change_of_unit(values):
    scaled = [1 + 2 * value for value in values]
    assert run_interval(scaled) == pytest.approx([1 + 2 * end for end in run_interval(values)], abs=1e-6)


@pytest.mark.parametrize("interval", [mean_interval, run_interval])
@pytest.mark.parametrize("values", [[], [0.9]])
def test_an_interval_needs_two_seeds(interval, values):
    with pytest.raises(ValueError, match=f"needs at least 2 of them, got {len(values)}"):
        interval(values)


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"), [(146, 153, 0.909, 0.978), (148, 153, 0.926, 0.986), (0, 10, 0.0, 0.278)]
)
def test_the_interval_of_a_share_is_the_published_one(correct, images, low, high):
    assert share_interval(correct, images) == pytest.approx((low, high), abs=1e-3)


@given(st.integers(1, 300), st.data())
def test_the_interval_of_a_share_is_wilsons(images, data):
    correct = data.draw(st.integers(0, images))
    z, share = stats.norm.ppf(0.975), correct / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    assert share_interval(correct, images) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_a_lower_level_gives_a_narrower_share():
    (low, high), (inner_low, inner_high) = share_interval(30, 34), share_interval(30, 34, level=0.8)
    assert low < inner_low < inner_high < high


@pytest.mark.parametrize(
    ("claimed", "rounding", "expected"),
    [
        (0.5, 0.0, "inside"),
        (0.4, 0.0, "inside"),
        (0.6, 0.0, "inside"),
        (0.39, 0.0, "below"),
        (0.61, 0.0, "above"),
        (0.39, 0.005, "below"),
        (0.395, 0.005, "inside"),
        (0.604, 0.005, "inside"),
        (0.606, 0.005, "above"),
    ],
)
def test_a_verdict_says_where_the_claim_lies(claimed, rounding, expected):
    assert verdict(claimed, 0.4, 0.6, rounding) == expected


CLAIMS = {
    "accuracy": {"printed": "98.6%", "value": 0.986},
    "loss": {"printed": "-0.50", "value": -0.5},
    "time": {"printed": "0.3093s", "value": 0.3093},
}
FOUND = {"accuracy": [0.90, 0.92, 0.94], "loss": [-0.5, -0.52, -0.48], "time": [1.0, 1.1, 1.2]}


def test_a_comparison_has_one_row_a_claim_with_what_was_found():
    table = compare(CLAIMS, FOUND)
    mean, low, high = run_interval(FOUND["time"])
    assert list(table.index) == list(CLAIMS)
    row = table.loc["time", ["published", "mean", "one run, low", "one run, high", "least", "greatest"]]
    assert row.tolist() == ["0.3093s", mean, low, high, 1.0, 1.2]


def test_a_comparison_gives_each_claim_its_verdict():
    assert compare(CLAIMS, FOUND)["published value is"].to_dict() == {
        "accuracy": "inside",
        "loss": "inside",
        "time": "below",
    }


@pytest.mark.parametrize(
    ("printed", "value", "rounding"),
    [("0.9870", 0.987, 5e-5), ("100%", 1.0, 5e-3), ("98.6%", 0.986, 5e-4), ("2.5s", 2.5, 0.05)],
)
def test_a_claim_is_known_to_half_a_unit_of_its_last_printed_digit(printed, value, rounding):
    def judged(beyond):
        """The verdict on a claim that lies `beyond` its rounding below an interval which is a point."""
        found = {"quantity": [value + rounding * beyond] * 2}
        return compare({"quantity": {"printed": printed, "value": value}}, found)["published value is"].item()

    assert [judged(0.9), judged(1.1)] == ["inside", "below"]


def test_a_level_narrows_a_comparison():
    def width(level):
        table = compare(CLAIMS, FOUND, level)
        return table["one run, high"] - table["one run, low"]

    pd.testing.assert_series_equal(width(0.5) < width(0.95), pd.Series(True, index=list(CLAIMS)))


@pytest.mark.parametrize(("experiment", "model", "images", "claim"), PRINTED, ids=[f"{e}-{m}" for e, m, *_ in PRINTED])
def test_a_printed_accuracy_is_its_count_of_images_rounded(experiment, model, images, claim):
    rounded = f"{claim['correct'] / images:.4f}"
    if (experiment, model) == ("brain_tumor", "ResNet18-Q"):  # the one that fits no count
        assert claim["printed"] == "0.8950"
        assert claim["printed"] not in {f"{correct / images:.4f}" for correct in range(images + 1)}
        assert rounded == "0.8955"
    else:
        assert rounded == claim["printed"]


def claims_of(table: dict):
    """Every `{printed, value}` of a nested table."""
    for entry in table.values():
        if isinstance(entry, dict):
            yield from [entry] if "printed" in entry else claims_of(entry)


def test_every_printed_value_reads_as_its_meaning():
    slip = "0.986%"  # 98.6 % is meant
    for claim in claims_of(published()):
        number = float(claim["printed"].rstrip("%s"))
        percent = claim["printed"].endswith("%") and claim["printed"] != slip
        assert claim["value"] == pytest.approx(number / 100 if percent else number), claim
