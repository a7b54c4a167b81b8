"""What was published, and the verdict on it: the slides' numbers, held against runs of many seeds."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from hqnn_utils.checks import finite
from hqnn_utils.evidence.statistics import run_interval
from hqnn_utils.files import table


def published() -> dict:
    """Every number that the slides print, by experiment and quantity, and the few of others (`data/published.toml`)."""
    return table("published.toml")


def related() -> dict:
    """What papers of others say and print of a gain by a circuit, by their name in the references (`data/related.toml`)."""
    return table("related.toml")


def verdict(claimed: float, low: float, high: float, rounding: float = 0.0) -> str:
    """`"inside"`, `"below"` or `"above"`: where a published value, known to ± rounding, lies against an interval.

    A ValueError: one of them is not finite, a negative rounding, or an interval whose low end is above its high end.
    """
    for what, value in dict(claimed=claimed, low=low, high=high, rounding=rounding).items():
        finite(what, value)
    if low > high or rounding < 0:
        raise ValueError(f"a verdict needs low ≤ high and rounding ≥ 0, got {low}, {high} and {rounding}")
    if claimed + rounding < low:
        return "below"
    return "above" if claimed - rounding > high else "inside"


def compare(claims: dict[str, dict], found: dict[str, Iterable[float]], level: float = 0.95) -> pd.DataFrame:
    """One row a claim: the published value, and mean, interval of one run and range over the seeds, and the verdict.

    Args:
        claims: of `published()`, by quantity: `{"printed": …, "value": …}`.
        found: by the same quantities, one finite value a seed, at least two, else a ValueError that names the quantity.
    """
    rows = {}
    for quantity, claim in claims.items():
        values = np.asarray(found[quantity], dtype=float)
        finite(f"{quantity} found", values, seed=range(values.size))
        finite(f"{quantity} published", claim["value"])
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
