"""Intervals, tests and verdicts, against scipy, simulation, printed tables; and the slides' numbers against their counts."""

import inspect
import warnings
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hqnn_utils.checks import NotFinite
from hqnn_utils.evidence.claims import compare, published, verdict
from hqnn_utils.evidence.statistics import (
    Interval,
    best_of,
    crossed_interval,
    equivalence,
    geometric_interval,
    images_for_power,
    images_needed,
    judged,
    mcnemar,
    mcnemar_power,
    mean_interval,
    possible_pvalues,
    run_interval,
    share_interval,
    signed_rank,
    splits_interval,
)

samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)
PRINTED = [
    (experiment, model, claims["images"], claim)
    for experiment, claims in published()["quantum_entanglement"].items()
    for model, claim in claims.items()
    if model != "images"
]


def test_the_signed_rank_test_counts_the_signs_that_chance_could_have_dealt():
    """Five gains out of five: two of the 2**5 ways to deal the signs are as one-sided."""
    assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 2**5)
    assert signed_rank([-0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(4 / 2**5)


def test_pairs_that_never_differ_are_no_sign_of_a_difference():
    assert signed_rank([0.0, 0.0, 0.0]) == 1.0


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


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=20))
def test_the_geometric_interval_is_scipys_mean_and_turns_round_with_the_ratios(values):
    mean, low, high = geometric_interval(values)
    assert mean == pytest.approx(stats.gmean(values)) and low <= mean <= high
    assert geometric_interval(1 / np.array(values)) == pytest.approx((1 / mean, 1 / high, 1 / low))


def test_there_is_no_geometric_mean_with_a_zero_and_none_of_what_is_negative():
    assert np.isnan(geometric_interval([0.0, 1.0])).all()
    with pytest.raises(ValueError, match=r"not negative, got -1\.0"):
        geometric_interval([1.0, -1.0])


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
    assert share_interval(correct, images)[1:] == pytest.approx((low, high), abs=1e-3)


@given(st.integers(1, 300), st.data())
def test_the_interval_of_a_share_is_wilsons(images, data):
    correct = data.draw(st.integers(0, images))
    z, share = stats.norm.ppf(0.975), correct / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    assert share_interval(correct, images)[1:] == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_a_lower_level_gives_a_narrower_share():
    (_, low, high), (_, inner_low, inner_high) = share_interval(30, 34), share_interval(30, 34, level=0.8)
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


def test_a_public_notebook_prints_the_results_of_the_first_experiment():
    slides, textbook = published()["quantum_classifier"], published()["qiskit_textbook"]
    assert {quantity: textbook[quantity]["value"] for quantity in slides} == {q: c["value"] for q, c in slides.items()}


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40).map(lambda pairs: np.array(pairs).T)


def coin(only_first: int, only_second: int) -> float:
    """How likely a fair coin is at least as uneven, by scipy."""
    differing = only_first + only_second
    return stats.binomtest(only_first, differing).pvalue if differing else 1.0


@given(answers)
def test_mcnemar_tosses_a_fair_coin_for_each_image_that_one_alone_has_right(answers):
    first, second = answers
    assert mcnemar(first, second) == pytest.approx(coin((first & ~second).sum(), (second & ~first).sum()))


def test_mcnemar_takes_only_the_same_images():
    with pytest.raises(ValueError, match="on the same images, got 3 and 2 of them"):
        mcnemar(np.ones(3, dtype=bool), np.ones(2, dtype=bool))


@given(st.integers(1, 25), st.data())
def test_printed_counts_leave_the_p_values_of_every_overlap_possible(images, data):
    first, second = (data.draw(st.integers(0, images)) for _ in range(2))
    overlaps = [both for both in range(min(first, second) + 1) if first + second - both <= images]
    pvalues = [coin(first - both, second - both) for both in overlaps]
    assert possible_pvalues(first, second, images) == pytest.approx((min(pvalues), max(pvalues)))


@given(answers)
def test_the_p_value_of_two_classifiers_is_one_that_their_counts_leave_possible(answers):
    first, second = answers
    least, greatest = possible_pvalues(int(first.sum()), int(second.sum()), len(first))
    assert least <= mcnemar(first, second) <= greatest


@pytest.mark.parametrize(("experiment", "more"), [("mnist", 16), ("hymenoptera", 3), ("brain_tumor", 14), ("chessman", 1)])
def test_the_slides_counts_could_at_best_be_as_many_heads_in_a_row(experiment, more):
    claims = published()["quantum_entanglement"][experiment]
    classical, *_, entangled = (claim["correct"] for model, claim in claims.items() if model != "images")
    least, _ = possible_pvalues(classical, entangled, claims["images"])
    assert least == pytest.approx(2 / 2**more)


@pytest.mark.parametrize("counts", [(-1, 3), (3, -1), (11, 3), (3, 11)])
def test_a_count_of_correct_images_is_at_most_their_number(counts):
    with pytest.raises(ValueError, match=f"must be in 0 to 10, got {counts[0]} and {counts[1]}"):
        possible_pvalues(*counts, images=10)


@pytest.mark.parametrize(
    ("gain", "discordant", "power", "level"),
    [
        (0.013, 0.04, 0.8, 0.95),
        (0.0065, 0.04, 0.8, 0.95),
        (0.02, 0.06, 0.8, 0.95),
        (0.05, 0.1, 0.8, 0.95),
        (0.02, 0.3, 0.8, 0.95),
        (0.02, 0.06, 0.95, 0.95),
        (0.02, 0.06, 0.5, 0.95),
        (0.02, 0.06, 0.8, 0.99),
    ],
)
def test_as_many_images_as_needed_show_the_gain_as_often_as_asked(gain, discordant, power, level):
    images = images_needed(gain, discordant, power, level)
    shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]  # only one, only the other, both or none
    only_first, only_second, _ = np.random.default_rng(0).multinomial(images, shares, size=20_000).T
    pvalues = 2 * stats.binom.cdf(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    assert np.mean(pvalues < 1 - level) == pytest.approx(power, abs=0.02)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("images", "gain", "discordant"), [(34, 0.03, 0.1), (153, 0.02, 0.04), (400, 0.04, 0.2), (9, 0.5, 0.5)]
)
def test_exact_power_is_the_share_of_simulated_test_sets_that_the_test_sees_through(images, gain, discordant, level):
    runs = 50_000
    shares = [(discordant - gain) / 2, (discordant + gain) / 2, 1 - discordant]
    only_first, only_second, _ = np.random.default_rng(0).multinomial(images, shares, size=runs).T
    pvalues = 2 * stats.binom.cdf(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    power = mcnemar_power(images, gain, discordant, level)
    assert np.mean(pvalues < 1 - level) == pytest.approx(power, abs=4 * np.sqrt(0.25 / runs))


@given(st.integers(1, 8), st.floats(0.01, 1), st.floats(0, 1), st.sampled_from([0.5, 0.75, 0.8, 0.9, 0.9375, 0.95]))
def test_exact_power_is_the_sum_over_all_answers_of_those_that_mcnemar_sees(images, discordant, share, level):
    """Every number of images that one classifier alone has right, tested by `mcnemar` itself."""
    gain, total = share * discordant, 0.0
    for first in range(images + 1):
        for second in range(images + 1 - first):
            right = np.arange(first + second) < first
            if not first + second or mcnemar(right, ~right) >= 1 - level:
                continue
            shares = [(discordant - gain) / 2, (discordant + gain) / 2, 1 - discordant]
            total += stats.multinomial.pmf([first, second, images - first - second], images, np.maximum(shares, 0))
    assert mcnemar_power(images, gain, discordant, level) == pytest.approx(total, abs=1e-6)


@given(st.integers(1, 300), st.floats(0.01, 1), st.floats(0.5, 0.99))
def test_where_there_is_nothing_to_see_power_is_a_false_alarm_and_rare_enough(images, discordant, level):
    assert mcnemar_power(images, 0.0, discordant, level) <= 1 - level + 1e-9


@pytest.mark.parametrize(("gain", "discordant"), [(0.0065, 0.04), (0.0294, 0.06), (0.05, 0.1), (0.4, 0.5), (1.0, 1.0)])
def test_one_image_fewer_than_the_exact_power_asks_for_is_too_few(gain, discordant):
    images = images_for_power(gain, discordant)
    assert mcnemar_power(images, gain, discordant) >= 0.8 > mcnemar_power(images - 1, gain, discordant)
    assert images == pytest.approx(images_needed(gain, discordant), rel=0.15), "the approximation is near"


@pytest.mark.parametrize("arguments", [(0, 0.1, 0.2), (10, 0.3, 0.2), (10, -0.1, 0.2), (10, 0.0, 0.0), (10, 0.1, 1.1)])
def test_exact_power_takes_images_and_shares(arguments):
    with pytest.raises(ValueError, match="got"):
        mcnemar_power(*arguments)


def test_six_images_are_needed_where_each_of_them_speaks_for_the_same_side():
    assert stats.binomtest(6, 6).pvalue < 0.05 < stats.binomtest(5, 5).pvalue
    assert images_needed(1.0, 1.0) == 6


@given(st.floats(0.01, 0.5), st.floats(0.01, 1), st.floats(0.1, 1))
def test_images_that_do_not_differ_do_not_count(discordant, share, rarer):
    needed = images_needed(share * discordant, discordant)
    assert rarer * images_needed(share * discordant * rarer, discordant * rarer) == pytest.approx(needed, abs=1.001)


@pytest.mark.parametrize(("gain", "discordant"), [(0.0, 0.1), (-0.01, 0.1), (0.11, 0.1), (0.5, 1.1)])
def test_a_gain_is_at_most_the_share_of_images_that_differ(gain, discordant):
    with pytest.raises(ValueError, match=rf"in \(0, discordant\] .* got {gain} and {discordant}"):
        images_needed(gain, discordant)


@pytest.mark.parametrize(("power", "level"), [(0.05, 0.9), (0.099, 0.9), (1.0, 0.9), (0.8, 0.0), (0.8, 1.0), (0.8, 1.1)])
def test_power_is_between_the_chance_of_a_false_alarm_and_one(power, level):
    with pytest.raises(ValueError, match=rf"power in \(1 - level, 1\), got {level} and {power}"):
        images_needed(0.01, 0.05, power, level)


EFFECTS = np.random.default_rng(1).exponential(size=12)  # skew, so that both ends differ


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("axis", [0, 1])
def test_where_only_seeds_or_only_images_matter_the_crossed_interval_is_scipys_bootstrap_of_them(axis, level):
    values = np.repeat(np.expand_dims(EFFECTS, 1 - axis), 7, axis=1 - axis)
    scipys = stats.bootstrap(
        [EFFECTS], np.mean, confidence_level=level, n_resamples=8000, method="percentile", rng=np.random.default_rng(2)
    )
    mean, low, high = crossed_interval(values, level, resamples=8000)
    assert mean == pytest.approx(EFFECTS.mean())
    assert (low, high) == pytest.approx(tuple(scipys.confidence_interval), abs=0.1 * scipys.standard_error)


def test_the_spread_of_seeds_and_that_of_images_add():
    values = EFFECTS[:, None] + 2 * EFFECTS
    spread = np.sqrt(1 + 2**2) * EFFECTS.std() / np.sqrt(12)
    _, low, high = crossed_interval(values, level=0.6827, resamples=8000)  # ± one standard deviation
    assert (high - low) / 2 == pytest.approx(spread, rel=0.05)


@pytest.fixture(scope="module")
def worlds():
    """How often an interval covers the true mean 0, where seeds matter, images matter more, and each answer is noisy."""
    generator = np.random.default_rng(3)
    covered = {crossed_interval: [], mean_interval: []}
    for _ in range(150):
        values = generator.normal(size=(20, 1)) + 3 * generator.normal(size=50) + generator.normal(size=(20, 50))
        for interval, data in ((crossed_interval, (values, 0.95, 200)), (mean_interval, (values.mean(axis=1),))):
            _, low, high = interval(*data)
            covered[interval].append(low < 0 < high)
    return {interval: np.mean(times) for interval, times in covered.items()}


def test_the_crossed_interval_covers_the_mean_over_other_seeds_and_other_images(worlds):
    assert 0.9 < worlds[crossed_interval] < 0.99


def test_the_interval_over_seeds_alone_does_not_speak_of_other_images(worlds):
    assert worlds[mean_interval] < 0.8


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 99))
def test_a_crossed_interval_follows_a_change_of_unit(seeds, images, seed):
    values = np.random.default_rng(seed).integers(-1, 2, size=(seeds, images))
    expected = [1 + 2 * end for end in crossed_interval(values, resamples=50)]
    assert crossed_interval(1 + 2 * values, resamples=50) == pytest.approx(expected)


def test_a_crossed_interval_can_be_repeated_and_drawn_anew():
    values = np.random.default_rng(4).normal(size=(5, 30))
    assert crossed_interval(values, seed=5) == crossed_interval(values, seed=5) != crossed_interval(values, seed=6)


def test_one_resample_has_no_spread():
    _, low, high = crossed_interval(np.random.default_rng(4).normal(size=(5, 30)), resamples=1)
    assert low == high


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_a_crossed_interval_needs_two_seeds_and_two_images(shape):
    with pytest.raises(ValueError, match=f"at least 2 of each, got {shape[0]} and {shape[1]}"):
        crossed_interval(np.zeros(shape))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.floats(0.01, 10))
def test_equivalence_is_two_one_sided_t_tests_of_scipy(differences, margin):
    if np.std(differences) > 1e-6:
        above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert equivalence(differences, margin) == pytest.approx(max(above, below))


@pytest.mark.parametrize(
    ("difference", "expected"), [(0.0, 0.0), (0.1, 0.0), (-0.1, 0.0), (0.2, 1.0), (-0.2, 1.0), (0.3, 1.0), (-0.3, 1.0)]
)
def test_equal_differences_are_equivalent_within_the_margin_and_only_there(difference, expected):
    with warnings.catch_warnings(action="error"):
        assert equivalence([difference] * 3, margin=0.2) == expected


@pytest.mark.parametrize("differences", [[], [0.1]])
def test_equivalence_needs_two_seeds(differences):
    with pytest.raises(ValueError, match=f"at least 2 of them, got {len(differences)}"):
        equivalence(differences, margin=0.1)


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_of_equivalence_is_positive(margin):
    with pytest.raises(ValueError, match=f"must be positive and finite, got {margin}"):
        equivalence([0.1, 0.2], margin)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.data())
def test_the_best_of_k_is_the_mean_over_all_choices_of_k(values, data):
    k = data.draw(st.integers(1, len(values)))
    assert best_of(np.array(values), k) == pytest.approx(np.mean([max(c) for c in combinations(values, k)]), abs=1e-9)


def test_the_best_of_k_is_taken_for_each_model():
    values = np.random.default_rng(6).normal(size=(2, 3, 5))
    expected = [[best_of(seeds, 2) for seeds in models] for models in values]
    np.testing.assert_allclose(best_of(values, 2), expected)


@pytest.mark.parametrize("k", [0, 4])
def test_the_best_is_of_at_least_one_and_at_most_all(k):
    with pytest.raises(ValueError, match=f"out of 3 values needs k in 1 to 3, got {k}"):
        best_of(np.array([0.9, 0.8, 0.7]), k)


# Numbers that are no numbers

NOT_FINITE = [np.nan, np.inf, -np.inf]
unchecked = inspect.unwrap  # a function as it is outside the tests, where nobody holds its arguments against its annotations
a_bad_number = pytest.mark.parametrize("bad", NOT_FINITE)
OF_SEEDS = {
    "mean_interval": mean_interval,
    "run_interval": run_interval,
    "equivalence": lambda values: equivalence(values, 1.0),
    "signed_rank": signed_rank,
    "best_of": lambda values: best_of(np.array(values), 2),
    "crossed_interval": lambda values: crossed_interval(np.array([values, values]).T),
    "compare": lambda values: compare(CLAIMS, FOUND | {"loss": values}),
}


@pytest.mark.parametrize("summary", OF_SEEDS.values(), ids=OF_SEEDS)
@given(values=samples, bad=st.sampled_from(NOT_FINITE), data=st.data())
def test_a_seed_whose_value_is_not_finite_is_named(summary, values, bad, data):
    seed = data.draw(st.integers(0, len(values) - 1))
    values[seed] = bad
    with pytest.raises(NotFinite, match=f"must be finite, got {bad} at .*seed {seed}(,|$)"):
        summary(values)


@a_bad_number
def test_a_comparison_says_of_which_quantity_a_number_is_not_finite(bad):
    with pytest.raises(NotFinite, match=f"time found must be finite, got {bad} at seed 2"):
        compare(CLAIMS, FOUND | {"time": [1.0, 1.1, bad]})
    with pytest.raises(NotFinite, match=f"time published must be finite, got {bad}"):
        compare(CLAIMS | {"time": {"printed": "?", "value": bad}}, FOUND)


@a_bad_number
@pytest.mark.parametrize("place", range(4), ids=["claimed", "low", "high", "rounding"])
def test_there_is_no_verdict_on_what_is_not_finite(bad, place):
    numbers = [0.5, 0.4, 0.6, 0.0]
    numbers[place] = bad
    with pytest.raises(NotFinite, match=f"{('claimed', 'low', 'high', 'rounding')[place]} must be finite, got {bad}"):
        verdict(*numbers)


@pytest.mark.parametrize("numbers", [(0.5, 0.6, 0.4, 0.0), (0.5, 0.4, 0.6, -0.1)])
def test_there_is_no_verdict_against_an_interval_that_is_turned_round(numbers):
    with pytest.raises(ValueError, match="a verdict needs low ≤ high and rounding ≥ 0"):
        verdict(*numbers)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, np.nan])
def test_a_level_of_confidence_is_between_zero_and_one(level):
    intervals = (
        lambda: mean_interval([0.1, 0.2], level),
        lambda: run_interval([0.1, 0.2], level),
        lambda: share_interval(3, 5, level),
        lambda: crossed_interval(np.eye(3), level),
        lambda: compare(CLAIMS, FOUND, level),
    )
    for interval in intervals:
        with pytest.raises(ValueError, match=rf"must be in \(0, 1\), got {level}"):
            interval()


@pytest.mark.parametrize(
    ("correct", "images"), [(-1, 5), (6, 5), (2.5, 5), (np.nan, 5), (0, 0), (1, np.nan), (1, np.inf), (3, 5.5)]
)
def test_counts_are_whole_and_at_most_all_images(correct, images):
    for count in (share_interval, partial(unchecked(possible_pvalues), 0)):
        with pytest.raises(ValueError, match=r"counts .* must be in 0 to|counts must be whole"):
            unchecked(count)(correct, images)


def test_answers_are_booleans_not_numbers():
    right, shares = np.array([True, False]), np.array([0.9, np.nan])
    for answers in ((right, shares), (shares, right), (shares, shares)):
        with pytest.raises(ValueError, match="must be arrays of booleans"):
            unchecked(mcnemar)(*answers)


@a_bad_number
def test_no_number_of_images_shows_a_gain_that_is_no_number(bad):
    for arguments in ((bad, 0.1), (0.01, bad), (0.01, 0.1, bad), (0.01, 0.1, 0.8, bad)):
        with pytest.raises(ValueError, match="must be in"):
            images_needed(*arguments)


@pytest.mark.parametrize("interval", [mean_interval, run_interval, equivalence])
def test_an_interval_over_seeds_takes_one_number_of_each(interval):
    with pytest.raises(ValueError, match=r"one number for each, got an array of shape \(3, 4\)"):
        unchecked(interval)(np.zeros((3, 4)), 0.5)


def test_a_bootstrap_needs_a_sample():
    with pytest.raises(ValueError, match="at least one sample, got resamples=0"):
        crossed_interval(np.eye(3), resamples=0)


def test_the_best_is_of_a_whole_number():
    with pytest.raises(ValueError, match=r"needs k in 1 to 3, got 1\.5"):
        unchecked(best_of)(np.array([0.9, 0.8, 0.7]), 1.5)


def test_an_interval_changes_its_unit_as_a_whole_and_is_read_as_a_sentence_has_it():
    interval = Interval(-0.02, -0.05, 0.01)
    assert 100 * interval == interval * 100 == pytest.approx((-2, -5, 1))
    assert f"{interval:.0%}" == "−2% (−5% to 1%)"
    assert isinstance(mean_interval([1.0, 2.0]), Interval) and share_interval(3, 4).value == 0.75


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.9, 0.9, "equal"), (0.1, 0.9, "equal"), (0.1, 1.1, "ahead"), (-2.0, -0.1, "behind"), (-0.1, 1.1, "undecided")],
)
def test_a_gain_is_judged_by_where_its_interval_lies(low, high, verdict):
    assert judged(Interval((low + high) / 2, low, high), 1.0) == verdict


def test_no_margin_is_no_margin():
    with pytest.raises(ValueError, match="margin of equivalence must be positive and finite, got 0"):
        judged(Interval(0.0, -1.0, 1.0), 0.0)


def test_splits_that_share_images_say_less_than_as_many_that_do_not():
    gains = [1.0, 2.0, 3.0, 6.0]
    mean, low, high = splits_interval(gains, 300, 100)
    scale = np.std(gains, ddof=1) * np.sqrt(1 / 4 + 1 / 3)  # Nadeau and Bengio 2003, eq. (17)
    assert (mean, high - mean) == pytest.approx((3.0, stats.t.ppf(0.975, 3) * scale)) and high - mean == pytest.approx(
        mean - low
    )
    assert high > mean_interval(gains).high
    assert splits_interval(gains, 10**12, 1).high == pytest.approx(mean_interval(gains).high)


def test_a_split_without_images_is_refused():
    with pytest.raises(ValueError, match="training and test images, got 0 and 10"):
        splits_interval([1.0, 2.0], 0, 10)
