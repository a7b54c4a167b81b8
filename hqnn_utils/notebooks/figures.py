"""House style, and one function for each kind of figure; each returns the `Figure`.

Titles live in captions, not inside the axes. Every label carries its unit. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart, and each model keeps its colour, marker and dash through the whole book.

Matplotlib leaves out what is NaN or infinite, and nobody sees that a point is missing. So measurements must be finite, else a
`checks.NotFinite` says which is not. A NaN in a line is a gap, where the function is not defined.
"""

import textwrap
from collections.abc import Collection, Sequence

import IPython
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from hqnn_utils.checks import finite

BLACK, ORANGE, BLUE, GREEN, VERMILION, PURPLE, SKY, GREY = (
    *("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    "#888888",
)

WIDEST = 7.0
"""Of a figure, in inches: a page shows so much without making its letters smaller."""

MODELS: dict[str, dict] = {  # colour, marker, dash: quantum full and blue, classical dashed
    "quantum": dict(color=BLUE, marker="o", linestyle="-"),
    "sine": dict(color=ORANGE, marker="s", linestyle="--"),
    "sigmoid": dict(color=BLACK, marker="^", linestyle=":"),
    "tanh": dict(color=GREEN, marker="D", linestyle="-."),
    "relu": dict(color=PURPLE, marker="v", linestyle="--"),
    "stretched": dict(color=VERMILION, marker="P", linestyle="-"),
    "low sine": dict(color=SKY, marker="*", linestyle="-"),
    "classical": dict(color=BLACK, marker="^", linestyle="--"),
    "-Q": dict(color=ORANGE, marker="s", linestyle="-."),
    "-Q-Ent": dict(color=BLUE, marker="o", linestyle="-"),
}


def style() -> None:
    """Apply the house style to every figure made after this call.

    In a notebook a figure is kept twice: as PNG, which any front end shows and which runs are compared by, and as SVG, whose
    letters are letters and whose black is the book's own, in light, dark and print (`_ext/drawn_in_theme.py`). Words on a
    coloured ground that stays, as in a heat map, are therefore a dark grey.
    """
    if IPython.get_ipython():
        # Imported where no kernel runs yet, as before a warm one is forked, it would never show a figure.
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", "png", metadata={"Date": None, "Creator": None})
    mpl.rcParams.update(
        {
            "figure.figsize": (6.0, 3.4),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "savefig.bbox": "tight",
            "svg.fonttype": "none",
            "svg.hashsalt": "the same names in every run",
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PURPLE, BLACK]),
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "lines.markersize": 5,
        }
    )


def curves(
    x: Sequence, lines: dict[str, Sequence], xlabel: str, ylabel: str, points: dict[str, tuple] | None = None
) -> Figure:
    """Functions of one variable as lines, measurements as points with error bars.

    Args:
        x: abscissa of the lines, shape `(n,)`.
        lines: label → values `(n,)`; the names of `MODELS` take their style.
        xlabel, ylabel: with units.
        points: label → `(x, y)` or `(x, y, error)`, of at most seven labels, else a ValueError.
    """
    points = points or {}
    colors = _apart([VERMILION, PURPLE, GREEN, ORANGE, BLUE, BLACK, GREY], list(points), "kinds of points")
    figure, axes = plt.subplots()
    for label, y in lines.items():
        axes.plot(x, y, **(MODELS.get(label, {}) | {"marker": ""}), label=label)
    for (label, (px, py, *error)), color in zip(points.items(), colors, strict=True):
        for values in (px, py, *error):
            finite(f"points of {label!r}", values)
        axes.errorbar(px, py, error[0] if error else None, fmt="o", capsize=3, color=color, label=label, zorder=3)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _legend_above(axes)
    return figure


def _apart(looks: list, names: list[str], what: str) -> list:
    """A look for each name; a ValueError if there are not enough."""
    if len(names) > len(looks):
        raise ValueError(f"more than {len(looks)} {what} cannot be told apart, got {', '.join(names)}")
    return looks[: len(names)]


def _legend_above(axes: Axes) -> None:
    """A legend that never covers data."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def matrix(values: np.ndarray, xlabel: str, ylabel: str, label: str) -> Figure:
    """The entries of a matrix as colours, red where positive and blue where negative, white at 0.

    Args:
        values: `(rows, columns)`, in [-1, 1].
        xlabel, ylabel: what columns and rows are.
        label: what an entry is.
    """
    finite("values", values, row=range(len(values)), column=range(np.shape(values)[1]))
    figure, axes = plt.subplots(figsize=(4.2, 3.4))
    picture = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(False)
    figure.colorbar(picture, label=label)
    return figure


def scaling(times: pd.DataFrame, xlabel: str, ylabel: str, own: str) -> Figure:
    """How the times of several systems grow, one line a system with its name at its end, on logarithmic axes.

    Args:
        times: a row a system, a column a size; a size that a system was not asked for is NaN, and a gap in its line.
        xlabel, ylabel: what the sizes and the times are, with units.
        own: the row that is drawn as a thick line.
    """
    figure, axes = plt.subplots(figsize=(4.6, 4.6))
    ends = {}
    for k, (system, row) in enumerate(times.sort_values(times.columns[0]).iterrows()):
        look = dict(lw=3, color=BLUE) if system == own else dict(lw=1.2, ls=("--", "-.", ":")[k % 3])
        (line,) = axes.plot(row.index, row, marker="os^vDPX*"[k % 8], label=system, **look)
        ends[str(system)] = (row.last_valid_index(), row.dropna().iloc[-1], line.get_color())
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    axes.set_xticks(times.columns, times.columns)
    axes.minorticks_off()
    _named_at_the_end(figure, axes, ends)
    return figure


def _named_at_the_end(figure: Figure, axes: Axes, ends: dict[str, tuple], wide: int = 30) -> None:
    """Name → where a line ends, and its colour: the names stand right of the axes, in the order of the ends."""
    words = {name: textwrap.wrap(name, wide) for name in sorted(ends, key=lambda name: ends[name][1])}
    heights = np.array([1.15 * len(lines) + 0.35 for lines in words.values()])
    line = 10 / 72 / (figure.get_size_inches()[1] * axes.get_position().height)  # as a share of the axes
    below = line * (np.cumsum(heights) - heights / 2)
    wanted = np.array([axes.transAxes.inverted().transform(axes.transData.transform(ends[name][:2]))[1] for name in words])
    # Each name as near to its end as it may be, with the room of those between: monotone in what is left without that room.
    room = 1 - line * heights.sum()  # what is left above all names, where they begin at the foot of the axes
    places = below + np.clip(isotonic_regression(wanted - below).x, min(0.0, room), room)
    for (name, lines), y in zip(words.items(), places, strict=True):
        x, value, color = ends[name]
        axes.annotate(
            "\n".join(lines),
            (x, value),
            (1.08, y),
            textcoords="axes fraction",
            va="center",
            arrowprops=dict(arrowstyle="-", color=color, lw=0.8, shrinkA=1, shrinkB=3, relpos=(0, 0.5)),
        )


def angle_axis(figure: Figure) -> Figure:
    """Label the horizontal axis of a figure in multiples of π/2, over the range it shows."""
    axes = figure.axes[0]
    names = {-4: "−2π", -3: "−3π/2", -2: "−π", -1: "−π/2", 0: "0", 1: "π/2", 2: "π", 3: "3π/2", 4: "2π"}
    low, high = axes.get_xlim()
    shown = {k: name for k, name in names.items() if low <= k * np.pi / 2 <= high}
    axes.set_xticks([k * np.pi / 2 for k in shown], shown.values())
    return figure


def log_axis(figure: Figure, ticks: Sequence[int | float]) -> Figure:
    """Make the horizontal axis of a figure logarithmic, with a tick at each of these positive values and at no other."""
    axes = figure.axes[0]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return figure


def learning_curves(histories: dict[str, np.ndarray], ylabel: str, points: int = 1) -> Figure:
    """Mean over seeds in the course of training, with the band between the least and the greatest seed.

    Args:
        histories: model → values `(epochs * points, seeds)`, as of `training.fit`.
        ylabel: what they are.
        points: values an epoch.
    """
    figure, axes = plt.subplots()
    for name, values in histories.items():
        values = finite(f"history of {name!r}", values, row=range(len(values)), seed=range(np.shape(values)[-1]))
        epochs = np.arange(1, len(values) + 1) / points
        look = MODELS.get(name, {})
        axes.plot(epochs, values.mean(axis=1), **look, label=name)
        axes.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=look.get("color"), alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel=f"{ylabel}\nmean of {values.shape[1]} seeds")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    _legend_above(axes)
    return figure


def intervals(
    x: Sequence[int | float],
    found: dict[str, Sequence[tuple]],
    xlabel: str,
    ylabel: str,
    lines: dict[str, tuple[Sequence, Sequence]] | None = None,
) -> Figure:
    """Measurements with their intervals at a few places, those of one place beside each other, and functions as lines.

    Args:
        x: the places, shape `(n,)`.
        found: label → (value, low, high) of each place; the names of `MODELS` take their style, at most four others one of
            their own, else a ValueError. An interval that leaves out its value reaches to it.
        xlabel, ylabel: with units.
        lines: label → (abscissa, values); the label of a measurement gives its colour, and stands once in the legend.
    """
    others = [label for label in found if label not in MODELS]
    free = [dict(color=color, marker=marker) for color, marker in zip((BLUE, ORANGE, GREEN, VERMILION), "os^D", strict=True)]
    looks = MODELS | dict(zip(others, _apart(free, others, "kinds of points"), strict=True))
    figure, axes = plt.subplots()
    for label, (line, y) in (lines or {}).items():
        look = {"color": BLACK} | looks.get(label, {}) | {"marker": ""}
        axes.plot(line, y, **look, lw=1.5, label=None if label in found else label)
    for number, (label, rows) in enumerate(found.items()):
        value, low, high = finite(f"intervals of {label!r}", rows, place=x).T
        look = looks[label] | {"linestyle": "none"}
        aside = mpl.transforms.ScaledTranslation((number - (len(found) - 1) / 2) / 15, 0, figure.dpi_scale_trans)
        low, high = np.minimum(low, value), np.maximum(high, value)
        axes.update_datalim(np.transpose([[*x, *x], [*low, *high]]))  # what is moved aside is not counted by itself
        look |= dict(capsize=3, elinewidth=1.5, label=label, transform=axes.transData + aside)
        axes.errorbar(x, value, [value - low, high - value], **look)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _legend_above(axes)
    return figure


def layer_panels(panels: dict[str, dict[str, Sequence[Sequence]]], layers: Sequence[str], ylabel: str) -> Figure:
    """One panel a stage of training, one place a layer: the models beside each other, each a point and its bars.

    Args:
        panels: label of the stage → model of `MODELS` → for each layer an odd number of values, in any order: the middle one
            is the point, the outermost end the thin bar, and of five or more the next ones the thick bar.
        layers: their names.
        ylabel: with units.
    """
    size = (WIDEST, 3.4)
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, (stage, models) in zip(grid.flat, panels.items(), strict=True):
        for number, (name, rows) in enumerate(models.items()):
            values = np.sort(finite(f"values of {name!r} {stage}", rows, layer=layers), axis=1)
            x = np.arange(len(layers)) + (number - (len(models) - 1) / 2) * 0.18
            color, marker = MODELS[name]["color"], MODELS[name]["marker"]
            axes.vlines(x, values[:, 0], values[:, -1], color=color, lw=1)
            axes.vlines(x, values[:, 1], values[:, -2], color=color, lw=4, alpha=0.6)
            axes.plot(x, values[:, values.shape[1] // 2], marker, color=color, label=name)
        axes.set_xlabel(stage)
        axes.set_xticks(range(len(layers)), layers)
    grid[0, 0].set_ylabel(ylabel)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def seed_dots(
    values: dict[str, Sequence[int | float]],
    intervals: dict[str, tuple],
    xlabel: str,
    marks: dict | None = None,
    published: dict | None = None,
) -> Figure:
    """One row a model: every seed a dot, the mean and its interval as a bar beside them.

    Args:
        values: model → one value a seed.
        intervals: model → (mean, low, high).
        xlabel: what the values are.
        marks: label → published value, drawn as a vertical line.
        published: model → published value of its own, drawn on its row.
    """
    figure, axes = plt.subplots(figsize=(6.0, 0.9 + 0.6 * len(values)))
    for row, (name, seeds) in enumerate(values.items()):
        look = MODELS.get(name, {"color": BLUE, "marker": "o"})
        finite(f"values of {name!r}", seeds, seed=range(len(seeds)))
        mean, low, high = finite(f"interval of {name!r}", intervals[name])
        spread = np.linspace(-0.12, 0.12, len(seeds))
        axes.plot(seeds, row + spread, look["marker"], color=look["color"], alpha=0.45, ms=4, lw=0)
        bar = [[mean - low], [high - mean]]
        axes.errorbar(mean, row - 0.28, xerr=bar, fmt=look["marker"], color=look["color"], capsize=4, lw=2)
    for label, value in (marks or {}).items():
        axes.axvline(value, color=VERMILION, ls="-.", lw=1.5, label=label)
    for name, value in (published or {}).items():
        axes.plot(value, list(values).index(name), "|", color=VERMILION, ms=26, mew=2.5)
    if published:
        axes.plot([], [], "|", color=VERMILION, ms=11, mew=2.5, label="published")
    axes.set(yticks=range(len(values)), yticklabels=list(values), ylim=(len(values) - 0.5, -0.6), xlabel=xlabel)
    if marks or published:
        _legend_above(axes)
    return figure


def image_grid(images: np.ndarray, labels: Sequence[str], columns: int = 6) -> Figure:
    """Images in rows, each with a line of text below it.

    Args:
        images: grey `(n, height, width)` or in colour `(n, height, width, 3)`, values in [0, 1].
        labels: one for each image, else a ValueError.
    """
    finite("images", images, image=range(len(images)))
    rows = -(-len(images) // columns)
    size = (WIDEST / 6 * columns, 1.55 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, label in zip(grid.flat[: len(images)], images, labels, strict=True):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axes.text(0.5, -0.04, label, transform=axes.transAxes, ha="center", va="top")
    return figure


def histogram(values: dict[str, np.ndarray], xlabel: str, ylabel: str, bins: int = 60) -> Figure:
    """Distributions over one axis, drawn as steps so that they do not hide one another."""
    for label, v in values.items():
        finite(f"values of {label!r}", np.ravel(v), row=range(np.size(v)))
    figure, axes = plt.subplots()
    edges = np.histogram_bin_edges(np.concatenate([np.ravel(v) for v in values.values()]), bins)
    for label, v in values.items():
        axes.hist(np.ravel(v), edges.tolist(), histtype="stepfilled", alpha=0.35, label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _legend_above(axes)
    return figure


def bloch_sphere(paths: dict[str, np.ndarray]) -> Figure:
    """Bloch vectors as arrows in the unit sphere; several in a row trace a path that ends in the arrow.

    Args:
        paths: label → `(steps, 3)` or `(3,)` Bloch vectors (⟨X⟩, ⟨Y⟩, ⟨Z⟩), at most five, else a ValueError.
    """
    figure = plt.figure(figsize=(4.2, 4.2))
    axes = figure.add_subplot(projection="3d", computed_zorder=False)
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 37), np.linspace(0, np.pi, 19))
    axes.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color=GREY, lw=0.3, alpha=0.5)
    for axis, (low, high) in zip(np.eye(3), (("|−⟩", "|+⟩"), ("|−i⟩", "|+i⟩"), ("|1⟩", "|0⟩")), strict=True):
        axes.plot(*np.outer([-1, 1], axis).T, color=GREY, lw=0.8)
        for end, name in ((-1.25, low), (1.25, high)):
            axes.text(*(end * axis), name, ha="center", va="center")
    colors = _apart([BLUE, VERMILION, GREEN, PURPLE, ORANGE], list(paths), "paths")
    for (label, path), color in zip(paths.items(), colors, strict=True):
        path = np.atleast_2d(path)
        axes.plot(*path.T, color=color, lw=1.5, ls="--")
        axes.quiver(0, 0, 0, *path[-1], color=color, lw=2, arrow_length_ratio=0.12, label=label)
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    axes.view_init(elev=18, azim=-50)
    axes.set_axis_off()
    axes.legend(loc="lower left", bbox_to_anchor=(-0.1, -0.08))
    return figure


def forest(
    panels: dict[str, dict[str, dict[str, tuple]]],
    xlabel: str,
    marks: dict[str, dict[str, float]] | None = None,
    reference: float | None = None,
) -> Figure:
    """One panel a group, one row a comparison: its intervals below each other, and what was published a cross.

    Args:
        panels: group → row → kind of interval → (value, low, high); the first group has all rows, others may lack some. One
            kind alone may be called "": the caption says what it is.
        xlabel: what the values are.
        marks: group → row → published value.
        reference: drawn as a vertical line, e.g. 0 for no difference.

    Raises:
        ValueError: a kind without a name among others, or beside marks.
    """
    rows = list(next(iter(panels.values())))
    size = (min(1.9 * len(panels) + 1.6, WIDEST), 1.2 + 0.45 * len(rows))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    looks = [dict(color=BLUE, marker="o"), dict(color=ORANGE, marker="s"), dict(color=GREEN, marker="D")]
    named = {}
    for axes, (group, of_row) in zip(grid.flat, panels.items(), strict=True):
        if reference is not None:
            axes.axvline(reference, color=GREY, lw=1)
        for name, intervals in of_row.items():
            for place, (kind, interval) in enumerate(intervals.items()):
                value, low, high = finite(f"{kind!r} of {name!r} in {group!r}", interval)
                y = rows.index(name) + 0.26 * (place - (len(intervals) - 1) / 2)
                axes.plot([low, high], [y, y], "|-", color=looks[place]["color"], ms=7)
                named[kind] = axes.plot(value, y, lw=0, **looks[place])[0]
        for row, value in (marks or {}).get(group, {}).items():
            named["published"] = axes.plot(value, rows.index(row), "X", color=VERMILION, ms=8, mec="white", lw=0, zorder=3)[0]
        axes.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5), xlabel=group)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
    figure.supxlabel(xlabel, fontsize="medium")
    if len(named) > 1 and "" in named:
        raise ValueError("what is drawn beside other things needs a name")
    if len(named) > 1:
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3)
    return figure


def _levels(choices: pd.Series) -> list:
    """What was chosen: categories in their order, all else sorted."""
    if choices.dtype == "category":
        return [*choices.cat.remove_unused_categories().cat.categories]
    return sorted({*choices.dropna()})


def specification_curve(gains: pd.DataFrame, choices: pd.DataFrame, ylabel: str, bins: int = 30) -> Figure:
    """Gains of many universes in their order, with their intervals; below, which choices stand behind them.

    In the lower part a field is dark where a choice stands behind more of these universes than of all, and white where it
    stands behind none; a choice that does not matter has one shade from left to right.

    Args:
        gains: a row a universe: finite `value`, `low` and `high`.
        choices: of the same universes, a column a decision; NaN where it is none of theirs. Categories keep their order.
        ylabel: what the gains are, with units.
        bins: into how many parts the universes are divided.

    Source: Simonsohn, Simmons and Nelson 2020.
    """
    finite("gains", gains[["value", "low", "high"]], universe=list(gains.index))
    order = gains["value"].to_numpy().argsort()
    value, low, high = gains[["value", "low", "high"]].to_numpy()[order].T
    levels = [(column, level) for column in choices for level in _levels(choices[column])]
    known = [(choices[column].to_numpy()[order] == level).astype(float) for column, level in levels]
    shares = [[part.mean() / row.mean() for part in np.array_split(row, bins)] for row in known]
    size = (WIDEST, 2.8 + 0.2 * len(levels))
    figure, (top, panel) = plt.subplots(2, 1, figsize=size, height_ratios=[2.4, 0.2 * len(levels)], layout="constrained")
    sides = {BLUE: low > 0, VERMILION: high < 0, GREY: (low <= 0) & (high >= 0)}
    for color, chosen in sides.items():
        top.vlines(np.flatnonzero(chosen), low[chosen], high[chosen], color=color, lw=0.6, alpha=0.5, rasterized=True)
    top.plot(value, color=BLACK, lw=1.5)
    top.axhline(0, color=BLACK, lw=0.8)
    top.set(ylabel=ylabel, xlim=(-0.5, len(value) - 0.5))
    extent = (-0.5, len(value) - 0.5, len(levels) - 0.5, -0.5)
    panel.imshow(shares, cmap="Greys", vmin=0, vmax=2.2, aspect="auto", extent=extent)
    panel.set_yticks(range(len(levels)), [f"{column}: {level}" for column, level in levels])
    for row, (column, _) in enumerate(levels):
        if row and column != levels[row - 1][0]:
            panel.axhline(row - 0.5, color=BLUE, lw=0.8)
    panel.set_xlabel("universes, in the order of their gain")
    panel.grid(False)
    return figure


def durations(measured: dict[str, tuple], published: dict[str, float], xlabel: str, hollow: Collection[str] = ()) -> Figure:
    """One row a device, on a logarithmic axis: median and range of what was measured, and what was published a cross.

    Args:
        measured: row → (median, least, greatest).
        published: row → published value; rows without a measurement come last.
        xlabel: with units.
        hollow: rows that are drawn so, e.g. because they are emulated.
    """
    rows = [*measured, *(name for name in published if name not in measured)]
    figure, axes = plt.subplots(figsize=(6.0, 0.9 + 0.32 * len(rows)))
    for name, times in measured.items():
        median, low, high = finite(f"times of {name!r}", times)
        fill = "white" if name in hollow else BLUE
        bar = [[median - low], [high - median]]
        axes.errorbar(median, rows.index(name), xerr=bar, fmt="o", color=BLUE, mfc=fill, capsize=3)
    shown = [rows.index(name) for name in published]
    axes.plot(list(published.values()), shown, "X", color=VERMILION, ms=8, mec="white", label="published", zorder=3)
    axes.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel, xscale="log")
    _legend_above(axes)
    return figure
