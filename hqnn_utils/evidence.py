"""What a set of runs says about a published number: intervals, and the verdict that follows from them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from hqnn_utils.catalogue import table


def published() -> dict:
    """Every number that the slides print (`data/published.toml`), by experiment and quantity."""
    return table("published.toml")


def mean_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean over seeds and its Student-t confidence interval: where the mean of many more seeds would lie.

    Args:
        values: one number a seed, at least two.
        level: of confidence, in (0, 1).

    Returns:
        mean, low, high.
    """
    values = np.asarray(values, dtype=float)
    _at_least_two(values)
    return _t_interval(values, values.std(ddof=1) / np.sqrt(len(values)), level)


def run_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean over seeds and the Student-t prediction interval: where one further run would lie.

    A published number is one run, so this interval, not the narrower one of the mean, is what it is held against.

    Args and returns as for `mean_interval`. Source: Hahn and Meeker 1991, sec. 4.7.
    """
    values = np.asarray(values, dtype=float)
    _at_least_two(values)
    return _t_interval(values, values.std(ddof=1) * np.sqrt(1 + 1 / len(values)), level)


def _at_least_two(values: np.ndarray) -> None:
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 of them, got {len(values)}")


def _t_interval(values: np.ndarray, scale: float, level: float) -> tuple[float, float, float]:
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * scale
    return values.mean(), values.mean() - half, values.mean() + half


def share_interval(correct: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, e.g. of test images classified correctly. Source: Wilson 1927, by scipy."""
    low, high = stats.binomtest(int(correct), int(images)).proportion_ci(level, method="wilson")
    return low, high


def verdict(claimed: float, low: float, high: float, rounding: float = 0.0) -> str:
    """`"inside"`, `"below"` or `"above"`: where a published value, known to ± rounding, lies against an interval."""
    if claimed + rounding < low:
        return "below"
    return "above" if claimed - rounding > high else "inside"


def compare(claims: dict[str, dict], found: dict[str, Iterable[float]], level: float = 0.95) -> pd.DataFrame:
    """One row a claim: the published value, and mean, interval of one run and range over the seeds, and the verdict.

    Args:
        claims: of `published()`, by quantity: `{"printed": …, "value": …}`.
        found: by the same quantities, one value a seed.
    """
    rows = {}
    for quantity, claim in claims.items():
        values = np.asarray(found[quantity], dtype=float)
        mean, low, high = run_interval(values, level)
        decimals = len(claim["printed"].rstrip("%s").partition(".")[2]) + 2 * claim["printed"].endswith("%")
        rows[quantity] = {
            "published": claim["printed"],
            "mean": mean,
            "one run, low": low,
            "one run, high": high,
            "least": values.min(),
            "greatest": values.max(),
            "published value is": verdict(claim["value"], low, high, 0.5 * 10.0**-decimals),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
