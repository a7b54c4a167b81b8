"""Means of a result over many runs and seeds, with intervals, as a table and as a figure."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hqnn_utils.errors import ChapterError
from hqnn_utils.notebooks import figures


def grouped(
    table: pd.DataFrame, by: Sequence[str], metric: str, interval: Callable[[Any], tuple[float, float, float]]
) -> pd.DataFrame:
    """Means of a result over runs and seeds, with intervals, one row a group.

    Where a chapter recorded the result of each seed, these are averaged, else those of runs.

    Args:
        table: as of `collected.long`.
        by: columns that make a group.
        metric: a result's name, or what is left of it without the data set.
        interval: of at least two values: value, low, high, e.g. `statistics.mean_interval`.

    Returns:
        columns `by`, mean, low, high (empty for a single value), n, unit.

    Raises:
        ChapterError: no such column or result; names those there are.
    """
    if unknown := [name for name in by if name not in table.columns]:
        raise ChapterError(f"no column {', '.join(unknown)}: the table has {', '.join(table.columns)}")
    chosen = table[((table["result"] == metric) | (table["quantity"] == metric)) & table["value"].notna()]
    if chosen.empty:
        numbers = table[table["value"].notna()]["quantity"].unique()
        raise ChapterError(f"no finished run has a number {metric!r}: there are {', '.join(map(str, numbers)) or 'none'}")
    of_seeds = chosen[chosen["of_seed"].notna()]
    chosen = chosen if of_seeds.empty else of_seeds
    rows = []
    for key, group in chosen.groupby(list(by), sort=True, dropna=False) if by else [((), chosen)]:
        values = group["value"].to_numpy()
        mean, low, high = interval(values) if len(values) > 1 else (values[0], None, None)
        rows.append(dict(zip(by, key, strict=True)) | {"mean": mean, "low": low, "high": high, "n": len(values)})
        rows[-1]["unit"] = group["unit"].iloc[0]
    return pd.DataFrame(rows).astype({"low": float, "high": float})


def drawn(groups: pd.DataFrame, by: Sequence[str], metric: str) -> Figure:
    """Means and their intervals, as `grouped` gives them: over the first of `by`, with the others as labels.

    Raises:
        ChapterError: nothing to draw over, or more labels than can be told apart.
    """
    if not by:
        raise ChapterError("a figure needs something to draw over: name it with --group-by")
    places, over = list(dict.fromkeys(groups[by[0]])), list(by[1:])
    is_number = pd.api.types.is_numeric_dtype(groups[by[0]])
    rows = groups.fillna({"low": groups["mean"], "high": groups["mean"]})
    found: dict[str, dict] = {}
    for row in rows.to_dict("records"):
        label = ", ".join(str(row[name]) for name in over) or metric
        found.setdefault(label, {})[row[by[0]]] = (row["mean"], row["low"], row["high"])
    if missing := [label for label, values in found.items() if len(values) < len(places)]:
        raise ChapterError(f"{missing[0]} has no value at each {by[0]}: group by what is complete")
    x = places if is_number else list(range(len(places)))
    unit = f" ({groups['unit'].iloc[0]})" if groups["unit"].iloc[0] else ""
    try:
        figure = figures.intervals(x, {label: [v[p] for p in places] for label, v in found.items()}, by[0], f"{metric}{unit}")
    except ValueError as error:
        raise ChapterError(f"this cannot be drawn: {error}; group by fewer things") from None
    figure.axes[0].set_xticks(x, [str(place) for place in places])
    return figure
