"""Figures hide nothing: what would be left out of one is an error."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from hqnn_utils.checks import NotFinite
from hqnn_utils.notebooks import figures

BAD, INTERVAL = [0.9, np.nan], (0.9, 0.8, 1.0)
FIGURES = {
    "points": lambda: figures.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], BAD)}),
    "errors": lambda: figures.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], [0, 1], BAD)}),
    "histories": lambda: figures.learning_curves({"-Q": np.array([BAD, BAD])}, "loss"),
    "seeds": lambda: figures.seed_dots({"-Q": BAD}, {"-Q": INTERVAL}, "accuracy"),
    "interval of seeds": lambda: figures.seed_dots({"-Q": [0.9]}, {"-Q": (*BAD, 1.0)}, "accuracy"),
    "panels": lambda: figures.seed_panels({"digits": {"-Q": BAD}}, "accuracy"),
    "matrix": lambda: figures.matrix(np.array([BAD]), "column", "row", "entry"),
    "images": lambda: figures.image_grid(np.full((1, 2, 2), np.nan), ["7"]),
    "histogram": lambda: figures.histogram({"angles": np.array(BAD)}, "angle", "count"),
    "forest": lambda: figures.forest({"digits": {"-Q": {"seeds": (*BAD, 1.0)}}}, "accuracy"),
    "durations": lambda: figures.durations({"default.qubit": (*BAD, 1.0)}, {}, "s"),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_a_number_that_could_not_be_drawn_is_refused(figure):
    with pytest.raises(NotFinite, match="must be finite, got nan"):
        figure()


def test_a_line_may_have_a_gap():
    (line,) = figures.curves([0, 1, 2], {"-Q": [0.1, np.nan, 0.3]}, "x", "y").axes[0].get_lines()
    assert np.isnan(line.get_ydata()[1])


def test_every_kind_of_points_is_drawn_in_a_colour_of_its_own_up_to_seven():
    def shown(kinds):
        points = {f"kind {k}": ([0], [k]) for k in range(kinds)}
        axes = figures.curves([0], {}, "x", "y", points).axes[0]
        return {container.lines[0].get_color() for container in axes.containers}

    assert len(shown(7)) == 7
    with pytest.raises(ValueError, match=r"more than 7 kinds of points .* kind 7"):
        shown(8)


@pytest.mark.parametrize("labels", [["7"], ["7", "1", "4"]])
def test_every_image_is_shown_with_a_label(labels):
    with pytest.raises(ValueError, match="zip"):
        figures.image_grid(np.zeros((2, 3, 3)), labels)


def test_a_matrix_has_one_scale_on_which_white_is_zero():
    figure = figures.matrix(np.array([[0.0, 0.5], [-0.25, 0.0]]), "column", "row", "entry")
    (picture,) = figure.axes[0].get_images()
    assert picture.get_clim() == (-1, 1)
    red, green, blue, _ = picture.to_rgba(np.array([0.0]))[0]
    assert min(red, green, blue) > 0.95


def test_one_system_stands_out_among_all_whose_times_grow():
    times = pd.DataFrame({4: [2.0, 1.0, 3.0], 16: [2.5, 4.0, np.nan]}, index=["ours", "quick", "few"])
    axes = figures.scaling(times, "batch", "time (ms)", "ours").axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines.keys() == set(times.index) and axes.get_xscale() == axes.get_yscale() == "log"
    assert lines["ours"].get_linewidth() > max(lines[name].get_linewidth() for name in ("quick", "few"))
    assert list(lines["quick"].get_ydata()) == [1.0, 4.0] and np.isnan(lines["few"].get_ydata()[1])
    assert len({line.get_marker() for line in lines.values()}) == 3
