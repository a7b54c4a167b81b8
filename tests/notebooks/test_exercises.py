"""An exercise says in one sentence whether an answer is right, and what is wrong, and stops no notebook."""

import numpy as np
import pytest
import torch
from torch import nn

from hqnn_utils.notebooks import exercises
from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.layers import QuantumLayer

ANGLES = np.linspace(-3, 3, 7)
WANTED = "`slope`: the derivative of f, a function of one angle"
SLIPS = {"this is twice the derivative: the shift rule has a factor 1/2": lambda t: -2 * np.cos(t)}


@pytest.fixture
def said(capsys):
    """What `check` prints, which is one line, whatever it is asked."""

    def ask(answer, right, wanted="`answer`: a number", **more) -> str:
        assert exercises.check(answer, right, wanted, **more) is None
        (line,) = capsys.readouterr().out.splitlines()
        return line

    return ask


@pytest.fixture
def of_slope(said):
    return lambda answer: said(answer, lambda t: -np.cos(t), WANTED, at=ANGLES, slips=SLIPS)


@pytest.mark.parametrize("nothing", [None, ...])
def test_where_nothing_was_written_it_says_what_to_write(of_slope, nothing):
    assert of_slope(nothing) == f"Nothing here yet. Write {WANTED}."


@pytest.mark.parametrize("answer", [0.5, 0.5 + 1e-9, np.float32(0.5), np.array(0.5), torch.tensor(0.5, requires_grad=True)])
def test_a_right_number_is_right_whatever_holds_it(said, answer):
    assert said(answer, 0.5) == "Right."


@pytest.mark.parametrize("answer", [1, -0.5, np.nan])
def test_a_wrong_number_is_not(said, answer):
    assert said(answer, 0.5) == f"Not yet: {answer} is not right."


def test_the_tolerance_is_absolute_and_can_be_chosen(said):
    assert said(1000.01, 1000.0) != "Right." and said(1000.01, 1000.0, tolerance=0.1) == "Right."


@pytest.mark.parametrize("function", [lambda t: -np.cos(t), lambda t: torch.tensor(-np.cos(t))])
def test_a_right_function_is_right(of_slope, function):
    assert of_slope(function) == "Right."


def test_a_typical_slip_is_known_by_what_it_finds(of_slope, said):
    assert of_slope(lambda t: np.sin(t + np.pi / 2) * -2) == f"Not yet: {next(iter(SLIPS))}."
    assert said([2, 2], [1, 1], slips={"forgot a half": [2, 2]}) == "Not yet: forgot a half."


def test_a_wrong_function_is_told_where_and_not_what_is_right(of_slope):
    assert of_slope(lambda t: -np.cos(t) + (t > 0)) == "Not yet: 3 of 7 inputs give something else, the first of them 1.0."


def test_a_function_of_several_arguments_takes_tuples(said):
    at = [(1, 2), (3, 4)]
    assert said(lambda a, b: a * b, lambda a, b: b * a, at=at) == "Right."
    assert said(lambda a, b: a + b, lambda a, b: b * a, at=at).endswith(
        "2 of 2 inputs give something else, the first of them (1, 2)."
    )


def test_of_an_array_it_says_how_many_entries_are_wrong(said):
    assert said([1, 2, 3], np.array([1, 2, 4])) == "Not yet: 1 of 3 entries are not right."
    assert said([True, False], [True, False]) == "Right."
    assert said(np.array([1, 1j]) / np.sqrt(2), np.array([1, -1j]) / np.sqrt(2)).startswith("Not yet: 1 of 2")


@pytest.mark.parametrize(
    ("answer", "right", "sentence"),
    [
        ([1, 2], [1, 2, 3], "the shape is (2,) and should be (3,)"),
        ([1, 2], 1, "the shape is (2,) and should be ()"),
        (lambda t: [t, t], lambda t: t, "the shape is (2,) and should be ()"),
        (lambda t: t, 1, "this is a function. Write `answer`: a number"),
        (1, lambda t: t, "this is no function. Write `answer`: a number"),
        ("one", 1, "this is no number. Write `answer`: a number"),
        (lambda t: None, lambda t: t, "the function returns no number. Write `answer`: a number"),
    ],
)
def test_a_mistake_of_shape_or_kind_is_a_sentence(said, answer, right, sentence):
    assert said(answer, right, at=[1.0, 2.0]) == f"Not yet: {sentence}."


def test_an_error_of_the_readers_code_is_a_sentence(of_slope):
    assert of_slope(lambda t: 1 / 0) == "Not yet: this stops with ZeroDivisionError: division by zero."
    assert of_slope(lambda: 0).startswith("Not yet: this stops with TypeError: ")
    assert of_slope(lambda t: [t] * int(t + 3)).startswith("Not yet: this stops with ValueError: ")


def test_what_is_not_finite_is_not_right(said):
    assert said([np.nan, 1], [np.nan, 1]) == "Not yet: 1 of 2 entries are not right."
    assert said(lambda t: np.inf, lambda t: 0.0, at=[1]).startswith("Not yet: 1 of 1 inputs")


def test_a_circuit_layer_is_held_against_another(said):
    layer, twin = QuantumLayer(2, 1), QuantumLayer(2, 1)
    twin.load_state_dict(layer.state_dict())
    at = [torch.zeros(3, 2), torch.ones(3, 2)]
    assert said(layer, twin, at=at) == "Right."
    assert said(nn.Linear(2, 2), twin, at=at, slips={}).startswith("Not yet: 2 of 2 inputs")


def test_a_circuit_is_held_against_another_by_what_it_prepares(said):
    def state(circuit):
        return np.asarray(circuits.prepared_state(circuit, 2))

    assert said(lambda i: state(circuits.bell)[i], lambda i: state(circuits.bell)[i], at=range(4)) == "Right."
