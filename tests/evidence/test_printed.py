"""What printed accuracies can show: held against numbers that can be counted by hand."""

import re
from math import comb, inf

import numpy as np
import pytest

from hqnn_utils.evidence import printed
from hqnn_utils.evidence.printed import Count


@pytest.mark.parametrize(
    ("text", "images", "expected"),
    [
        ("0.9477", 153, Count(145, True)),
        ("94.77%", 153, Count(145, True)),
        ("94.8 %", 153, Count(145, True)),
        ("0.8950", 220, Count(197, False)),  # 197 of 220 is 0.8955
        ("1", 10, Count(10, True)),
        ("0.5", 3, Count(2, False)),
    ],
)
def test_the_count_behind_a_printed_accuracy(text, images, expected):
    assert printed.count(text, images) == expected


@pytest.mark.parametrize("text", ["1.2", "120%", "-0.1", "many", "", "nan"])
def test_what_is_no_accuracy_is_refused(text):
    with pytest.raises(ValueError, match=r"an accuracy is"):
        printed.count(text, 100)


def test_a_comparison_has_the_p_values_of_coins():
    row = printed.compared(153, {"A": 145, "B": 148}).loc[("B", "A")]
    assert row["gain"] == 3 and row["least p"] == pytest.approx(2 / 2**3)
    coins = sum(comb(13, k) for k in range(6)) * 2 / 2**13  # right answers that overlap in 140: 8 against 5
    assert row["greatest p"] == pytest.approx(coins)
    assert np.isnan(row["may differ on"])
    assert row["enough at best"] < row["enough at worst"]


def test_how_far_two_methods_may_differ_and_still_be_told_apart():
    seen = int(printed.compared(220, {"A": 197, "B": 206}).loc[("B", "A"), "may differ on"])
    assert printed.statistics.mcnemar_pvalue((seen + 9) // 2, (seen - 9) // 2) < 0.05
    assert printed.statistics.mcnemar_pvalue((seen + 11) // 2, (seen - 7) // 2) >= 0.05
    assert printed.compared(1000, {"A": 100, "B": 900}).loc[("B", "A"), "may differ on"] == inf


def test_several_comparisons_share_one_chance_of_a_false_alarm():
    two, three = {"A": 142, "B": 148}, {"A": 142, "B": 148, "C": 100}
    assert printed.compared(153, two).loc[("B", "A"), "least p"] == printed.compared(153, three).loc[("B", "A"), "least p"]
    assert printed.compared(153, two).loc[("B", "A"), "may differ on"] == 6  # 2 / 2^6 = 0.03 …
    assert np.isnan(printed.compared(153, three).loc[("B", "A"), "may differ on"])  # … is not below 0.05 / 3


def test_the_best_of_several_equals_what_simulated_networks_show():
    draws = np.random.default_rng(0).normal(size=(20000, 20)).max(axis=1)
    assert printed._best_normal(20) == pytest.approx(draws.mean(), abs=5 * draws.std() / 20000**0.5)
    assert printed._best_normal(1) == pytest.approx(0, abs=1e-9)


def test_the_command_says_what_numbers_can_show(hqnn, tmp_path):
    done = hqnn("claim", "--n", "153", "--correct", "145", "148")
    assert done.returncode == 0
    for part in ("method 2 over method 1: 3 images, 2.0 points", "0.25", "can't show a difference", "402 images at best"):
        assert part in done.stdout
    done = hqnn("claim", "--n", "220", "--accuracy", "A=0.8950", "B=93.64%", "--tried", "20", "--runs", "3")
    for part in ("fits none", "at most", "The best of 20", "p = 0.1"):
        assert part in done.stdout
    assert "whatever images" in hqnn("claim", "--n", "1000", "--correct", "100", "900").stdout
    assert "Equal counts show no difference" in hqnn("claim", "--n", "34", "--correct", "30", "30").stdout
    (tmp_path / "paper.csv").write_text(PAPER)
    assert "ahead on 3 of 3 sets" in hqnn("claim", "--table", str(tmp_path / "paper.csv"), "--correct").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "34", "--correct", "30"], "at least two methods, got 1"),
        (["--n", "34", "--correct", "30", "35"], "a whole number from 0 to 34, got '35'"),
        (["--n", "34", "--correct", "30", "-p"], "No such option"),
        (["--n", "34", "--accuracy", "0.9", "A=1.4"], "an accuracy is 0 to 1, or 0% to 100%, got '1.4'"),
        (["--n", "34", "--accuracy", "A=0.9", "A=0.8"], "'A' stands twice"),
        (["--n", "34", "0.9", "0.8"], "say what the numbers are"),
        (["--n", "34", "--accuracy"], "either --n and the numbers of one data set, or --table"),
        (["--table", "paper.csv", "--accuracy", "0.9"], "either --n and the numbers of one data set, or --table"),
        (["--table", "nowhere.csv", "--accuracy"], "nowhere.csv can't be read"),
        (["--n", "0", "--correct", "0", "0"], "0 is not in the range x>=1"),
    ],
)
def test_the_command_refuses_what_can_not_be(hqnn, words, said):
    done = hqnn("claim", *words)
    assert done.returncode == 2 and re.search(re.escape(said), done.stderr), done.stderr


PAPER = """set, images, A, B, C
ants and bees, 153, 145, 148, 147
chess, 34, 26, 27,
tumours, 220, 192, 206, 190
"""


def test_several_sets_are_read_and_told_one_by_one_and_together(tmp_path):
    (tmp_path / "paper.csv").write_text(PAPER)
    sets = printed.read(tmp_path / "paper.csv", True)
    assert {name: one.images for name, one in sets.items()} == {"ants and bees": 153, "chess": 34, "tumours": 220}
    assert [*sets["chess"].counts] == ["A", "B"]
    said = "\n".join(printed.told_of_sets(sets, runs=3))
    assert "7 comparisons: each is asked for p < 0.0071" in said and "B over A: 1 image, 2.9 points" in said
    together = said.partition("== Together")[2]
    least, greatest = 2 / 2**18, printed.statistics.mcnemar_pvalue(8 + 8 + 28, 5 + 7 + 14)
    assert "B over A: ahead on 3 of 3 sets, behind on 0, 18 images in all" in together
    assert f"sign test over sets: 0.25; of McNemar's test over all images: {least:.2g} to {greatest:.2g}" in together
    assert "C over A: ahead on 1 of 2 sets, behind on 1, 0 images in all" in together
    assert together.count("With 3 runs") == 1 and said.count("With 3 runs") == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PAPER, "", "can't be read"),
        ("images", "n", "needs the columns set, images and two methods or more"),
        ("34", "many", "row 2: expected another set and its number of images, got 'chess', 'many'"),
        ("chess", "tumours", "row 3: expected another set"),
        ("26, 27", "26, ", r"row 2 \(chess\): a comparison needs at least two methods, got 1"),
        ("206", "221", r"row 3 \(tumours\): a count of correct images is a whole number from 0 to 220, got '221'"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, old, new, said):
    (tmp_path / "paper.csv").write_text(PAPER.replace(old, new))
    with pytest.raises(ValueError, match=said):
        printed.read(tmp_path / "paper.csv", True)
