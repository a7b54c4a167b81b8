"""Figures hide nothing: what would be left out of one is an error."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hqnn_utils import plotting
from hqnn_utils.checks import NotFinite

BAD, INTERVAL = [0.9, np.nan], (0.9, 0.8, 1.0)
FIGURES = {
    "points": lambda: plotting.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], BAD)}),
    "errors": lambda: plotting.curves([0, 1], {}, "x", "y", {"measured": ([0, 1], [0, 1], BAD)}),
    "histories": lambda: plotting.learning_curves({"-Q": np.array([BAD, BAD])}, "loss"),
    "seeds": lambda: plotting.seed_dots({"-Q": BAD}, {"-Q": INTERVAL}, "accuracy"),
    "interval of seeds": lambda: plotting.seed_dots({"-Q": [0.9]}, {"-Q": (*BAD, 1.0)}, "accuracy"),
    "panels": lambda: plotting.seed_panels({"digits": {"-Q": BAD}}, "accuracy"),
    "images": lambda: plotting.image_grid(np.full((1, 2, 2), np.nan), ["7"]),
    "histogram": lambda: plotting.histogram({"angles": np.array(BAD)}, "angle", "count"),
    "forest": lambda: plotting.forest({"digits": {"-Q": {"seeds": (*BAD, 1.0)}}}, "accuracy"),
    "durations": lambda: plotting.durations({"default.qubit": (*BAD, 1.0)}, {}, "s"),
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
    (line,) = plotting.curves([0, 1, 2], {"-Q": [0.1, np.nan, 0.3]}, "x", "y").axes[0].get_lines()
    assert np.isnan(line.get_ydata()[1])


def test_every_kind_of_points_is_drawn_in_a_colour_of_its_own_up_to_seven():
    def shown(kinds):
        points = {f"kind {k}": ([0], [k]) for k in range(kinds)}
        axes = plotting.curves([0], {}, "x", "y", points).axes[0]
        return {container.lines[0].get_color() for container in axes.containers}

    assert len(shown(7)) == 7
    with pytest.raises(ValueError, match=r"more than 7 kinds of points .* kind 7"):
        shown(8)


@pytest.mark.parametrize("labels", [["7"], ["7", "1", "4"]])
def test_every_image_is_shown_with_a_label(labels):
    with pytest.raises(ValueError, match="zip"):
        plotting.image_grid(np.zeros((2, 3, 3)), labels)
