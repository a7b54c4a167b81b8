"""What networks of many seeds, and images of a test set, say: intervals and tests."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real
from numpy import ndarray
from scipy import special, stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.power import normal_sample_size_one_tail
from statsmodels.stats.weightstats import DescrStatsW

from hqnn_utils.checks import finite


class Interval(NamedTuple):
    """A value and the interval that goes with it, `low` ≤ `high`, all in one unit.

    `100 * interval` is the same in another unit, and `f"{interval:.1%}"` reads like 87.3% (85.1% to 89.2%).
    `results.record` writes it down as three results: its name, and the name with `_low` and `_high`.
    """

    value: float
    low: float
    high: float

    def __mul__(self, factor: int | float) -> "Interval":  # type: ignore[override]  # a tuple would be repeated
        """The interval in a unit that is so many times smaller; the factor is positive."""
        return Interval(*(factor * number for number in self))

    def __rmul__(self, factor: int | float) -> "Interval":  # type: ignore[override]
        return self * factor

    def __format__(self, form: str) -> str:
        return "{:{form}} ({:{form}} to {:{form}})".format(*self, form=form).replace("-", "−")


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean over seeds and its Student-t confidence interval: where the mean of many more seeds would lie.

    Args:
        values: one finite number a seed, at least two, else a ValueError.
        level: of confidence, in (0, 1), else a ValueError.
    """
    values = _of_seeds(values, "an interval")
    return _t_interval(values, values.std(ddof=1) / np.sqrt(len(values)), level)


def geometric_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Geometric mean over seeds and its interval: for ratios, of which 2 and ½ are equally far from 1.

    Args and returns as for `mean_interval`, of whose interval of the logarithms it is the exponential. It is nan throughout
    where a value is zero, since there is no such mean. If a value is negative, a ValueError.
    """
    values = np.asarray(list(values), dtype=float)
    if (values < 0).any():
        raise ValueError(f"a geometric mean is of numbers that are not negative, got {values.min()}")
    if (values == 0).any():
        return Interval(np.nan, np.nan, np.nan)
    return Interval(*(float(end) for end in np.exp(mean_interval(np.log(values), level))))


def run_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean over seeds and the Student-t prediction interval: where one further run would lie.

    A published number is one run, so this interval, not the narrower one of the mean, is what it is held against.

    Args and returns as for `mean_interval`. Source: Hahn and Meeker 1991, sec. 4.7.
    """
    values = _of_seeds(values, "an interval")
    return _t_interval(values, values.std(ddof=1) * np.sqrt(1 + 1 / len(values)), level)


def splits_interval(values: Iterable[float], train: int, test: int, level: float = 0.95) -> Interval:
    """Mean over splits that were drawn again and again from the same images, and its interval.

    Such splits share most of their training images, so their results vary less than results on new images would, and
    Student's interval of their mean is too narrow. The correction adds the share that all splits have in common.

    Args:
        values: one finite number a split, at least two, else a ValueError.
        train, test: images of each split, positive, else a ValueError.
        level: of confidence, in (0, 1).

    Source: Nadeau and Bengio 2003, "Inference for the generalization error", eq. (17).
    """
    values = _of_seeds(values, "an interval")
    if not (train > 0 and test > 0):
        raise ValueError(f"a split has training and test images, got {train} and {test}")
    return _t_interval(values, values.std(ddof=1) * np.sqrt(1 / len(values) + test / train), level)


def _of_seeds(values: Iterable, purpose: str) -> Float[ndarray, " seeds"]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"{purpose} over seeds needs one number for each, got an array of shape {values.shape}")
    if len(values) < 2:
        raise ValueError(f"{purpose} over seeds needs at least 2 of them, got {len(values)}")
    return finite("values over seeds", values, seed=range(len(values)))


def _t_interval(values: ndarray, scale: float, level: float) -> Interval:
    _check_level(level)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * scale
    return Interval(values.mean(), values.mean() - half, values.mean() + half)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level of confidence must be in (0, 1), got {level}")


def _check_counts(images: float | int, *counts: float | int) -> None:
    """Refuse what are no counts of correct images; at least one image."""
    if not images >= 1 or not all(0 <= count <= images for count in counts):
        raise ValueError(f"counts of correct images must be in 0 to {images}, got {' and '.join(map(str, counts))}")
    if any(number % 1 for number in (images, *counts)):
        raise ValueError(f"counts must be whole numbers, got {', '.join(map(str, counts))} of {images}")


def share_interval(correct: int, images: int, level: float = 0.95) -> Interval:
    """A share, and Wilson's score interval for it, e.g. of test images classified correctly. Source: Wilson 1927, by scipy.

    A ValueError: a count that is not whole or not in 0 … images, no images, or a level outside (0, 1).
    """
    _check_counts(images, correct)
    _check_level(level)
    low, high = stats.binomtest(int(correct), int(images)).proportion_ci(level, method="wilson")
    return Interval(correct / images, low, high)


def mcnemar(first: Bool[ndarray, " images"], second: Bool[ndarray, " as_many"]) -> float:
    """Exact two-sided McNemar p-value of two classifiers that answered on the same images.

    Only the images that one has right and the other wrong tell them apart: were both equally good, each would be a fair coin.

    Args:
        first, second: whether each image was classified correctly. No booleans, or another number of them, are a ValueError.

    Returns:
        p in [0, 1]; 1 where they differ on no image.

    Source: McNemar 1947, advised by Dietterich 1998; by statsmodels. Used in book/evidence/printed_numbers.
    """
    if not np.asarray(first).dtype == np.asarray(second).dtype == bool:
        raise ValueError("right and wrong answers must be arrays of booleans")
    if len(first) != len(second):
        raise ValueError(f"two classifiers are compared on the same images, got {len(first)} and {len(second)} of them")
    return mcnemar_pvalue(int((first > second).sum()), int((second > first).sum()))


def possible_pvalues(correct_first: int, correct_second: int, images: int) -> tuple[float, float]:
    """Exact McNemar p-values that two printed counts of correct images alone leave possible.

    The more images two classifiers differ on, the less a difference of their counts says. These images are fewest where the
    better one also has right what the worse one has, and most where the right answers overlap as little as they can.

    Returns:
        least p, 2 · 2^-|difference of the counts| or 1, and greatest p. A count that is not whole, or outside 0 … images, is
        a ValueError.

    Derived in book/evidence/printed_numbers.
    """
    counts = correct_first, correct_second
    _check_counts(images, *counts)
    overlaps = min(counts), max(0, sum(counts) - images)
    least, greatest = (mcnemar_pvalue(correct_first - both, correct_second - both) for both in overlaps)
    return least, greatest


def mcnemar_pvalue(only_first: int, only_second: int) -> float:
    """`mcnemar` from two counts: of the images that only the first classifier has right, and only the second."""
    return float(contingency_tables.mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue)


def images_needed(gain: float, discordant: float, power: float = 0.8, level: float = 0.95) -> int:
    """How many test images `mcnemar` needs to see that one classifier is better.

    Of the images on which the two differ, the better one has the share ½ + gain / (2 discordant): a proportion against ½, for
    which a normal approximation gives the number of such images. It is good for 10 or more of them (the result times
    `discordant`), and too small below.

    Args:
        gain: true difference of the accuracies, in (0, discordant].
        discordant: share of images that one has right and the other wrong, in (0, 1].
        power: chance to see the difference, in (1 - level, 1).
        level: of confidence, in (0, 1): seen means p < 1 - level. Any argument out of its range is a ValueError.

    Source: Connor 1987, by statsmodels; continuity correction of Fleiss, Levin, Paik 2003.
    """
    if not 0 < gain <= discordant <= 1:
        raise ValueError(f"gain must be in (0, discordant] and discordant in (0, 1], got {gain} and {discordant}")
    if not 0 < 1 - level < power < 1:
        raise ValueError(f"level must be in (0, 1) and power in (1 - level, 1), got {level} and {power}")
    beyond = gain / (2 * discordant)  # of ½
    spread = np.sqrt(0.25 - beyond**2)  # √(p (1 - p)) at p = ½ + beyond
    differing = normal_sample_size_one_tail(beyond, power, (1 - level) / 2, std_null=0.5, std_alternative=spread)
    return int(np.ceil((differing + 1 / beyond) / discordant))


def mcnemar_power(images: int, gain: float, discordant: float, level: float = 0.95) -> float:
    """Chance that `mcnemar` sees on so many test images that one classifier is better, computed and not approximated.

    Of the images D ~ Binomial(images, discordant) are right with one classifier alone, and of these the better one has
    Binomial(D, ½ + gain / (2 discordant)). The test is exact, so for each D it is known which of these counts it sees.

    Args:
        images: of the test set, a whole number of at least 1.
        gain, discordant: as for `images_needed`; a gain of 0 gives the chance of a false alarm, which is below 1 - level.
        level: of confidence, in (0, 1): seen means p < 1 - level. Any argument out of its range is a ValueError.

    Returns:
        a probability in [0, 1].

    Source: Duffy 1984, exact unconditional power of McNemar's test; tested against simulated answers.
    """
    _check_counts(images)
    _check_level(level)
    if not 0 <= gain <= discordant <= 1 or discordant == 0:
        raise ValueError(f"gain must be in [0, discordant] and discordant in (0, 1], got {gain} and {discordant}")
    differing = np.arange(int(images) + 1)
    most = stats.binom.ppf((1 - level) / 2, differing, 0.5)  # as few as this on one side are not yet seen; fewer are
    better = min(1.0, 0.5 + gain / (2 * discordant))
    seen = stats.binom.cdf(most - 1, differing, better) + stats.binom.sf(differing - most, differing, better)
    return float(stats.binom.pmf(differing, int(images), discordant) @ seen)


def images_for_power(gain: float, discordant: float, power: float = 0.8, level: float = 0.95) -> int:
    """How many test images `mcnemar` needs, by its exact power: enough, where one image fewer would not be.

    More images mean more power but for small teeth, since counts are whole: a somewhat smaller number may do as well.

    Args, errors and purpose as for `images_needed`, which approximates. Used in book/evidence/printed_numbers.
    """
    enough = images_needed(gain, discordant, power, level)
    while mcnemar_power(enough, gain, discordant, level) < power:
        enough *= 2
    short = 0
    while enough - short > 1:
        middle = (enough + short) // 2
        if mcnemar_power(middle, gain, discordant, level) < power:
            short = middle
        else:
            enough = middle
    return enough


def crossed_interval(
    values: Real[ndarray, "seeds images"], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean and its bootstrap interval where both the seeds and the test images are samples.

    `mean_interval` of each seed's mean holds the test images fixed: it says what more seeds would give on this test set.
    This one also asks what other test images would give: rows and columns are drawn anew, independently of each other.
    It is too wide where all is noise of the single answers, and for few seeds their part is too narrow, by √(1 - 1/seeds).

    Args:
        values: one finite number a seed and image, e.g. right(second) - right(first). Fewer than two of either are a
            ValueError.
        level: of confidence, in (0, 1), else a ValueError.
        resamples, seed: how many bootstrap samples, at least one, and the seed of their generator.

    Source: the pigeonhole bootstrap of Owen 2007; percentile interval. Used in book/evidence/many_networks.
    """
    seeds, images = values.shape
    if min(values.shape) < 2:
        raise ValueError(f"an interval over seeds and images needs at least 2 of each, got {seeds} and {images}")
    if not resamples >= 1:
        raise ValueError(f"a bootstrap needs at least one sample, got resamples={resamples}")
    _check_level(level)
    finite("values", values, seed=range(seeds), image=range(images))
    draw = np.random.default_rng(seed).integers
    means = [values[draw(seeds, size=seeds)].mean(axis=0)[draw(images, size=images)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(values.mean(), low, high)


def equivalence(differences: Iterable[float], margin: float) -> float:
    """p-value for the claim that two models are equally good: two one-sided t tests that the mean lies within ± margin.

    A large p of a test for a difference is no evidence of none; a small p here is.

    Args:
        differences: paired, one finite number a seed, at least two, else a ValueError.
        margin: the greatest difference that would not matter, in their unit. If it is not positive and finite, a ValueError.

    Returns:
        p in [0, 1], the larger of both tests; for differences that are all equal 0 within the margin and 1 elsewhere.

    Source: Schuirmann 1987; by statsmodels.
    """
    differences = _of_seeds(differences, "a test")
    if not 0 < margin < np.inf:
        raise ValueError(f"the margin of equivalence must be positive and finite, got {margin}")
    if np.ptp(differences) == 0:  # no spread to divide by
        return float(abs(differences[0]) >= margin)
    return float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])


def judged(gain: tuple[float, float, float], margin: float) -> str:
    """What an interval of a gain says of a difference that matters: `"equal"`, `"ahead"`, `"behind"` or `"undecided"`.

    Args:
        gain: value, low and high end, as an `Interval`.
        margin: the greatest difference that would not matter, in their unit. If it is not positive and finite, a ValueError.

    Returns:
        `"equal"` where the whole interval lies within ± margin; `"ahead"` and `"behind"` where it lies on one side of zero.
    """
    if not 0 < margin < np.inf:
        raise ValueError(f"the margin of equivalence must be positive and finite, got {margin}")
    _, low, high = gain
    if -margin < low <= high < margin:
        return "equal"
    return "ahead" if low > 0 else "behind" if high < 0 else "undecided"


def signed_rank(differences: Iterable[float]) -> float:
    """Wilcoxon's two-sided signed-rank p-value: how often chance alone would make differences as one-sided as these.

    Args:
        differences: paired, one finite number a seed, at least two, else a ValueError.

    Returns:
        p in [0, 1]; 1 where no pair differs.

    Source: Wilcoxon 1945; by scipy. Used in book/experiments/quantum_classifier.
    """
    differences = _of_seeds(differences, "a test")
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def best_of(values: Real[ndarray, "*models n"], k: int) -> float | Float[ndarray, "*models"]:
    """Expected maximum of k of n values, drawn without replacement: what "the best of k seeds" reports.

    The i-th smallest is the best when it is drawn and k - 1 others of the i - 1 below it: Σ x₍ᵢ₎ C(i - 1, k - 1) / C(n, k).

    Args:
        values: one finite number a seed, in any order, else a ValueError.
        k: how many are drawn: 1 gives the mean, n the maximum. If it is not whole or outside 1 … n, a ValueError.

    Source: Tang et al. 2020. Derived in book/evidence/many_networks.
    """
    n = values.shape[-1]
    if not 1 <= k <= n or k % 1:
        raise ValueError(f"the best of k out of {n} values needs k in 1 to {n}, got {k}")
    finite("values", values.reshape(-1, n), model=range(values.size // n), seed=range(n))
    return np.sort(values) @ (special.comb(np.arange(n), k - 1) / special.comb(n, k))
