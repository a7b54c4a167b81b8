"""Figures hide nothing: what would be left out of one is an error."""

import matplotlib.pyplot as plt
import numpy as np
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


def test_every_path_on_the_sphere_has_a_colour_of_its_own_up_to_five():
    figures.bloch_sphere({f"path {k}": np.eye(3)[0] for k in range(5)})
    with pytest.raises(ValueError, match=r"more than 5 paths cannot be told apart, got .* path 5"):
        figures.bloch_sphere({f"path {k}": np.eye(3)[0] for k in range(6)})


@pytest.mark.parametrize("labels", [["7"], ["7", "1", "4"]])
def test_every_image_is_shown_with_a_label(labels):
    with pytest.raises(ValueError, match="zip"):
        figures.image_grid(np.zeros((2, 3, 3)), labels)
