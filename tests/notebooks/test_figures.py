"""Figures hide nothing: what would be left out of one is an error."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from hqnn_utils.checks import NotFinite
from hqnn_utils.notebooks import figures

BAD, INTERVAL = [0.9, np.nan], (0.9, 0.8, 1.0)
FIGURES = {
    "points": lambda: figures.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], BAD)}),
    "errors": lambda: figures.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], [0, 1], BAD)}),
    "histories": lambda: figures.learning_curves({"-Q": np.array([BAD, BAD])}, "loss"),
    "intervals": lambda: figures.intervals([1], {"-Q": [(*BAD, 1.0)]}, "x", "y"),
    "layers": lambda: figures.layer_panels({"before": {"relu": [(*BAD, 1.0)]}}, ["conv 1"], "gradient"),
    "seeds": lambda: figures.seed_dots({"-Q": BAD}, {"-Q": INTERVAL}, "accuracy"),
    "interval of seeds": lambda: figures.seed_dots({"-Q": [0.9]}, {"-Q": (*BAD, 1.0)}, "accuracy"),
    "matrix": lambda: figures.matrix(np.array([BAD]), "column", "row", "entry"),
    "images": lambda: figures.image_grid(np.full((1, 2, 2), np.nan), ["7"]),
    "histogram": lambda: figures.histogram({"angles": np.array(BAD)}, "angle", "count"),
    "forest": lambda: figures.forest({"digits": {"-Q": {"seeds": (*BAD, 1.0)}}}, "accuracy"),
    "curve": lambda: figures.specification_curve(
        pd.DataFrame({"value": BAD, "low": [0.8, 0.8], "high": [1.0, 1.0]}), pd.DataFrame({"depth": [1, 2]}), "gain", 1
    ),
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


def test_every_path_on_the_sphere_has_a_colour_of_its_own_up_to_five():
    figures.bloch_sphere({f"path {k}": np.eye(3)[0] for k in range(5)})
    with pytest.raises(ValueError, match=r"more than 5 paths cannot be told apart, got .* path 5"):
        figures.bloch_sphere({f"path {k}": np.eye(3)[0] for k in range(6)})


def test_intervals_of_one_place_stand_beside_each_other_with_their_ends_where_they_belong():
    found = {"sine": [(0.5, 0.4, 0.7)], "mine": [(0.5, 0.1, 0.6)]}
    figure = figures.intervals([2], found, "x", "y", {"sine": ([1, 3], [0.5, 0.5])})
    (axes,) = figure.axes
    drawn = [container.lines for container in axes.containers]
    ends = [bars[0].get_segments()[0][:, 1] for _, _, bars in drawn]
    np.testing.assert_allclose(ends, [(0.4, 0.7), (0.1, 0.6)])
    first, second = (point.get_transform().transform((2, 0.5)) for point, _, _ in drawn)
    assert second[0] > first[0] + 3 and second[1] == first[1]  # pixels
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["sine", "mine"]
    assert axes.get_lines()[0].get_color() == drawn[0][0].get_color()  # the line is the sine's too


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_every_interval_lies_within_the_axes(scale):
    figure = figures.intervals([1, 9], {"-Q": [(0.5, 0.1, 0.6), (5, 4, 7)], "mine": [(2, 1, 3)] * 2}, "x", "y")
    figures.log_axis(figure, [1, 9])
    (axes,) = figure.axes
    axes.set_yscale(scale)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 1 and right > 9 and bottom < 0.1 and top > 7


def test_an_interval_without_its_value_reaches_to_it():
    axes = figures.intervals([1], {"-Q": [(0.5, 0.6, 0.7)]}, "x", "y").axes[0]
    np.testing.assert_allclose(axes.containers[0].lines[2][0].get_segments()[0][:, 1], (0.5, 0.7))


def test_more_measurements_than_can_be_told_apart_are_refused():
    with pytest.raises(ValueError, match=r"more than 4 kinds of points .* kind 4"):
        figures.intervals([0], {f"kind {k}": [(0, 0, 0)] for k in range(5)}, "x", "y")


def test_a_logarithmic_axis_has_the_ticks_that_were_asked_for():
    figure = figures.log_axis(figures.curves([1, 30], {"-Q": [0, 1]}, "x", "y"), [1, 2.5, 30])
    figure.canvas.draw()
    assert figure.axes[0].get_xscale() == "log" and list(figure.axes[0].get_xticks()) == [1, 2.5, 30]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2.5", "30"]
    assert not len(figure.axes[0].get_xticks(minor=True))


@pytest.mark.parametrize("rows", [[(3, 1, 9)], [(0, 1, 3, 7, 9)]], ids=["an interval", "quantiles"])
def test_a_layer_has_its_middle_value_as_a_point_and_the_outermost_as_a_bar(rows):
    axes = figures.layer_panels({"before": {"relu": rows}}, ["conv 1"], "gradient").axes[0]
    (point,), (thin, thick) = axes.get_lines(), axes.collections
    assert point.get_ydata() == [3]
    assert tuple(thin.get_segments()[0][:, 1]) == (min(rows[0]), 9)
    assert tuple(thick.get_segments()[0][:, 1]) == ((1, 7) if len(rows[0]) == 5 else (3, 3))


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


def test_a_duration_is_hollow_because_it_is_said_to_be_and_not_for_its_name():
    rows = {"SV1, emulated": (2.0, 1.0, 3.0), "SV1": (2.0, 1.0, 3.0)}
    axes = figures.durations(rows, {}, "s", hollow=["SV1"]).axes[0]
    assert [bar.lines[0].get_markerfacecolor() for bar in axes.containers] == [figures.BLUE, "white"]


def test_a_published_value_of_a_model_stands_on_its_own_row():
    figure = figures.seed_dots(
        {"-Q": [0.9, 0.8], "-Q-Ent": [0.7, 0.6]},
        {"-Q": (0.85, 0.8, 0.9), "-Q-Ent": (0.65, 0.6, 0.7)},
        "accuracy",
        published={"-Q-Ent": 0.75},
    )
    ticks = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "|" and line.get_ms() > 20]
    assert ticks == [[[0.75, 1.0]]]


def test_a_specification_curve_sorts_universes_and_shows_where_each_choice_stands():
    gains = pd.DataFrame({"value": [3.0, -2.0, 0.5, -1.0], "low": [2.0, -3.0, -1.0, -3.0], "high": [4.0, -1.0, 2.0, 1.0]})
    choices = pd.DataFrame({"depth": [2, 1, 2, 1], "rival": ["a", None, "a", "a"]})
    top, panel = figures.specification_curve(gains, choices, "gain", bins=2).axes
    assert top.lines[0].get_ydata().tolist() == [-2.0, -1.0, 0.5, 3.0]
    ahead, behind, between = ([path.vertices[:, 0][0] for path in lines.get_paths()] for lines in top.collections)
    assert (ahead, behind, between) == ([3], [0], [1, 2])
    assert panel.images[0].get_array().tolist() == [[2, 0], [0, 2], [2 / 3, 4 / 3]]  # of depth 1, depth 2 and rival a
    assert [label.get_text() for label in panel.get_yticklabels()] == ["depth: 1", "depth: 2", "rival: a"]


def test_names_stand_at_the_ends_of_their_lines_in_their_order_and_none_on_another():
    ends = {f"a system with a name as long as that of number {k}": [1.0, 1.0 + k / 10] for k in range(8)} | {
        "far": [1.0, 900.0]
    }
    figure = figures.scaling(pd.DataFrame(ends, index=[1, 2]).T, "size", "ms", "far")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend() is None
    boxes = {text.get_text().replace("\n", " "): Text.get_window_extent(text) for text in axes.texts}
    assert list(boxes) == list(ends)
    heights = [(box.y0, box.y1) for box in boxes.values()]
    assert all(below[1] <= above[0] for below, above in pairwise(heights))
    assert min(box.x0 for box in boxes.values()) > axes.get_window_extent().x1


def test_a_kind_without_a_name_is_refused_beside_others():
    panels = {"digits": {"-Q": {"": INTERVAL}}}
    assert not figures.forest(panels, "accuracy").legends
    with pytest.raises(ValueError, match="beside other things needs a name"):
        figures.forest(panels, "accuracy", {"digits": {"-Q": 0.9}})
