"""What printed accuracies can show by themselves, without the data: of any paper, any methods, any test set."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import comb, inf, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from hqnn_utils.evidence import statistics


class Count(NamedTuple):
    """How many images a printed accuracy is, and whether that count prints so."""

    correct: int
    fits: bool


class Printed(NamedTuple):
    """What is printed of a data set."""

    images: int
    counts: dict[str, Count]
    """Of each method."""


def count(printed: str, images: int) -> Count:
    """The count of correct images behind a printed accuracy, such as `"0.9477"`, `"94.8%"` or `"94.8 %"`.

    A ValueError: no number, one outside 0 … 100 %, or no images.

    >>> count("0.8950", 220)
    Count(correct=197, fits=False)
    """
    statistics.share_interval(0, images)  # refuses what is no number of images
    digits = printed.strip().rstrip("%").strip()
    try:
        value = float(digits) / (100 if "%" in printed else 1)
    except ValueError:
        raise ValueError(f"an accuracy is printed as 0.948 or 94.8%, got {printed!r}") from None
    if not 0 <= value <= 1:
        raise ValueError(f"an accuracy is 0 to 1, or 0% to 100%, got {printed!r}")
    correct = round(value * images)
    rounding = 0.5 * 10.0 ** -(len(digits.partition(".")[2]) + 2 * ("%" in printed))
    return Count(correct, abs(correct / images - value) <= rounding * (1 + 1e-9))


def compared(
    images: int, correct: Mapping[str, int], level: float = 0.95, power: float = 0.8, comparisons: int = 0
) -> pd.DataFrame:
    """What counts of correct images alone can show: a row for each pair of methods, the better one first.

    Two counts don't say on which images the methods differ. So each row has two ends: the worse method may be right only where
    the better one is (*at best*), or the right answers overlap as little as they can (*at worst*).

    Args:
        images: of the test set.
        correct: how many each method has right, at least two methods.
        level: of confidence; with several pairs it is corrected for their number (Bonferroni).
        power: of the images that would be enough.
        comparisons: that share the confidence, if there are more of them than these pairs.

    Returns:
        `gain`, in images; `least p` and `greatest p` of McNemar's test; `may differ on`, the most images on which they may
        differ if the test is to see it, NaN if it can't, infinite if it always does; `enough at best` and `enough at worst`,
        images that show such a gain.

    Raises:
        ValueError: fewer than two methods, a count outside 0 … images, or a level or power outside (0, 1).

    Derived in book/evidence/printed_numbers.
    """
    if len(correct) < 2:
        raise ValueError(f"a comparison needs at least two methods, got {len(correct)}")
    ordered = sorted(correct, key=lambda name: -correct[name])
    pairs = list(combinations(ordered, 2))
    rows = {}
    for better, worse in pairs:
        first, second = correct[better], correct[worse]
        gain, most = first - second, first + second - 2 * max(0, first + second - images)
        least, greatest = statistics.possible_pvalues(first, second, images)
        seen = (1 - level) / (comparisons or len(pairs))
        discordant = range(gain, most + 1, 2)
        differing = [d for d in discordant if statistics.mcnemar_pvalue((d + gain) // 2, (d - gain) // 2) < seen]
        may_differ = inf if len(differing) == len(discordant) else max(differing, default=nan)
        enough = [
            statistics.images_for_power(gain / images, d / images, power, 1 - seen) if gain else nan for d in (gain, most)
        ]
        rows[better, worse] = {
            "gain": gain,
            "least p": least,
            "greatest p": greatest,
            "may differ on": may_differ,
            "enough at best": enough[0],
            "enough at worst": enough[1],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["better", "worse"])


def named(printed: Iterable[str], images: int, are_counts: bool) -> dict[str, Count]:
    """Counts of correct images by method, of texts such as `145`, `94.8%` or `ResNet18=0.9477`.

    A ValueError: a name that stands twice, no number, or a count or an accuracy that there can't be.
    """
    found = {}
    for number, text in enumerate(printed, 1):
        name, _, value = text.rpartition("=")
        name = name or f"method {number}"
        if name in found:
            raise ValueError(f"{name!r} stands twice: give each method a name of its own, as in A=145 B=148")
        if are_counts and not (value.isdecimal() and int(value) <= images):
            raise ValueError(f"a count of correct images is a whole number from 0 to {images}, got {value!r}")
        found[name] = Count(int(value), True) if are_counts else count(value, images)
    return found


def read(path: Path, are_counts: bool) -> dict[str, Printed]:
    """What a paper prints of several data sets: a `.csv` with the columns `set` and `images`, and one for each method.

    An empty cell is a method that was not tried on that set. A ValueError: no such table, a set that stands twice, or numbers
    that there can't be; names the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True).rename(columns=str.strip)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error})") from None
    methods = [name for name in table.columns if name not in ("set", "images")]
    if len(methods) < 2 or len(table.columns) - len(methods) != 2 or table.empty:
        raise ValueError(f"{path} needs the columns set, images and two methods or more, and a row for each data set")
    found: dict[str, Printed] = {}
    for number, row in enumerate(table.to_dict("records"), 1):
        name, images = str(row["set"]).strip(), str(row["images"]).strip()
        if name in found or not (images.isdecimal() and int(images)):
            raise ValueError(f"{path}, row {number}: expected another set and its number of images, got {name!r}, {images!r}")
        try:
            cells = [f"{method}={str(row[method]).strip()}" for method in methods if isinstance(row[method], str)]
            found[name] = Printed(int(images), named(cells, int(images), are_counts))
        except ValueError as error:
            raise ValueError(f"{path}, row {number} ({name}): {error}") from None
        if len(cells) < 2:
            raise ValueError(f"{path}, row {number} ({name}): a comparison needs at least two methods, got {len(cells)}")
    return found


def told_of_sets(sets: Mapping[str, Printed], runs: int = 1, tried: int = 1) -> list[str]:
    """Lines that say what the numbers of several data sets can show, one by one and together.

    Together: how often each method is ahead, as a sign test sees it, and McNemar's test on the images of all sets. Its p is
    least where on every set one of two methods is right wherever the other is, and greatest where right answers overlap least.
    """
    comparisons = sum(len(one.counts) * (len(one.counts) - 1) // 2 for one in sets.values())
    lines = []
    for name, one in sets.items():
        lines += [f"== {name}", *told(one.images, one.counts, 1, tried, comparisons), ""]
    lines.append("== Together")
    pairs = dict.fromkeys(pair for one in sets.values() for pair in combinations(one.counts, 2))
    for first, second in pairs:
        both = [one for one in sets.values() if {first, second} <= one.counts.keys()]
        right = [(one.counts[first].correct, one.counts[second].correct) for one in both]
        gains = np.array([b - a for a, b in right])
        ahead, behind, gain = int((gains > 0).sum()), int((gains < 0).sum()), int(gains.sum())
        sign = stats.binomtest(ahead, ahead + behind).pvalue if ahead + behind else 1.0
        most = np.array([a + b - 2 * max(0, a + b - one.images) for (a, b), one in zip(right, both, strict=True)])
        least, greatest = (
            statistics.mcnemar_pvalue(int(((d + gains) // 2).sum()), int(((d - gains) // 2).sum())) for d in (abs(gains), most)
        )
        lines += [
            f"{second} over {first}: ahead on {ahead} of {len(both)} sets, behind on {behind}, {_images(gain)} in all",
            f"  p of a sign test over sets: {sign:.2g}; of McNemar's test over all images: {least:.2g} to {greatest:.2g}.",
        ]
    return [*lines, *_of_runs(runs)]


def told(images: int, counts: Mapping[str, Count], runs: int = 1, tried: int = 1, comparisons: int = 0) -> list[str]:
    """Lines that say what such numbers can show.

    Args:
        images: of the test set.
        counts: as of `named`.
        runs: networks of each method that the numbers come from.
        tried: settings, epochs or seeds of which the best was printed.
        comparisons: that share the chance of a false alarm, if there are more than those of these counts.

    Raises:
        ValueError: as `compared`.
    """
    correct = {name: found.correct for name, found in counts.items()}
    table, lines = compared(images, correct, comparisons=comparisons), [f"{images} test images"]
    for name, (right, fits) in counts.items():
        nearest = "" if fits else "   (the nearest count: what is printed fits none)"
        lines.append(f"  {name:16} {right:6} right   {100 * statistics.share_interval(right, images):.1f} %{nearest}")
    if (number := comparisons or len(table)) > 1:
        lines.append(f"{number} comparisons: each is asked for p < {0.05 / number:.2g}, so that all together are at 0.05.")
    for (better, worse), row in table.iterrows():
        lines += [
            "",
            f"{better} over {worse}: {_images(int(row['gain']))}, {100 * row['gain'] / images:.1f} points",
            *_shown(row),
        ]
    if tried > 1:
        share = np.mean(list(correct.values())) / images
        luck = 100 * _best_normal(tried) * (share * (1 - share) / images) ** 0.5
        lines += ["", f"The best of {tried} equally good networks whose answers are independent is {luck:.1f} points above"]
        lines += ["their mean: so much a printed best may owe to the choice. Networks that answer alike owe less."]
    return [*lines, *_of_runs(runs)]


def _of_runs(runs: int) -> list[str]:
    """What so few runs can show at best."""
    if runs == 1:
        return []
    return ["", f"With {runs} runs of each method a rank test can't give less than p = {2 / comb(2 * runs, runs):.2g}."]


def _shown(row: pd.Series) -> list[str]:
    """What one comparison can show."""
    if not row["gain"]:
        return ["  Equal counts show no difference, whatever images they are of."]
    p = f"  p of McNemar's test: {row['least p']:.2g} if one is right wherever the other is, up to {row['greatest p']:.2g}."
    enough = f"{row['enough at best']:,.0f} images at best, {row['enough at worst']:,.0f} at worst"
    if np.isnan(row["may differ on"]):
        said = "  These counts can't show a difference, however the right answers overlap."
    elif np.isinf(row["may differ on"]):
        said = "  They show a difference, whatever images they are of."
    else:
        said = f"  They show a difference if the two differ on at most {row['may differ on']:.0f} images: ask for the answers."
    return [p, said, f"  To see such a gain in four of five tries takes {enough}."]


def _images(number: int) -> str:
    return f"{number} image{'' if abs(number) == 1 else 's'}"


def _best_normal(k: int) -> float:
    """The expected greatest of k standard normal numbers."""
    x = np.linspace(-8, 8, 4001)
    density = k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1)
    return float(np.trapezoid(x * density, x))
