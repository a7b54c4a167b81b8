"""What a sweep means: which runs, by which names, and what is refused before anything starts."""

import shutil
from pathlib import Path

import nbformat
import pytest

from hqnn_utils.errors import ChapterError, SweepError
from hqnn_utils.notebooks import runs
from hqnn_utils.sweeps import origins
from hqnn_utils.sweeps.description import Sweep, expected_seconds

PARAMETERS = """
depth: int = 2  # layers, in [1, 8]
rate: float = 0.1  # step, in (0, 1]
entangler: str = "ring"  # in {ring, linear}
datasets: list[str] = ["digits"]  # in {digits, mnist, any}
seed: int = 0  # in [0, 99]
"""


@pytest.fixture(scope="module")
def chapter(write_notebook, tmp_path_factory) -> Path:
    return write_notebook(tmp_path_factory.mktemp("book") / "toy.ipynb", "depth * rate", parameters=PARAMETERS)


@pytest.fixture
def sweep(chapter):
    return lambda **parts: Sweep(chapter=str(chapter), **parts)


def given(sweep: Sweep) -> list[dict]:
    return [dict(run.given) for run in sweep.runs()]


def test_a_grid_is_every_value_with_every_other_and_seeds_are_runs(sweep):
    found = given(sweep(fixed={"rate": 0.5}, grid={"depth": [1, 2], "entangler": ["ring", "linear"]}, seeds=2))
    assert len(found) == 8 and {"rate": 0.5, "depth": 2, "entangler": "ring", "seed": 1} in found


def test_rows_belong_together(sweep):
    rows = [{"depth": 1, "rate": 0.1}, {"depth": 2, "rate": 0.2}]
    assert given(sweep(rows=rows, seeds=[7])) == [row | {"seed": 7} for row in rows]


def test_a_sweep_without_parts_is_one_run_with_defaults(sweep):
    (run,) = sweep().runs()
    defaults = {"depth": 2, "rate": 0.1, "entangler": "ring", "datasets": ["digits"], "seed": 0}
    assert dict(run.given) == {} and dict(run.in_force) == defaults


def test_a_sample_lies_between_its_bounds_and_is_the_same_again_whatever_else_is_drawn(sweep):
    depth = {"low": 1, "high": 8}
    others = {"rate": {"low": 1e-3, "high": 1, "log": True}, "entangler": {"choices": ["ring", "linear"]}}
    several = {"runs": 200, "seed": 3} | others
    found = sweep(sample=several | {"depth": depth})._samples()
    assert {row["depth"] for row in found} == set(range(1, 9))
    assert all(1e-3 <= row["rate"] <= 1 for row in found)
    assert sum(row["rate"] < 0.0316 for row in found) == pytest.approx(100, abs=30)  # half of them: evenly in the logarithm
    assert {row["entangler"] for row in found} == {"ring", "linear"}
    alone = sweep(sample={"runs": 200, "seed": 3, "depth": depth})._samples()
    assert [row["depth"] for row in alone] == [row["depth"] for row in found]
    assert alone != sweep(sample={"runs": 200, "seed": 4, "depth": depth})._samples()


def test_seeds_are_one_run_where_a_chapter_trains_them_at_once(write_notebook, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", parameters="seeds: int = 3  # in [1, 99]\nfirst_seed: int = 0  # in [0, 99]")
    assert given(Sweep(chapter=str(path), seeds=[4, 5, 6])) == [{"first_seed": 4, "seeds": 3}]
    with pytest.raises(SweepError, match="follow each other"):
        Sweep(chapter=str(path), seeds=[4, 6]).runs()


def test_chapters_of_the_book_can_be_swept():
    assert len(Sweep(chapter="pqc", grid={"theta": [0.1, 0.2]}, seeds=3).runs()) == 6
    (run,) = Sweep(chapter="quantum_classifier", seeds=30).runs()
    assert run.given == {"first_seed": 0, "seeds": 30}


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"fixed": {"dept": 1}}, "unknown parameter 'dept': did you mean depth?"),
        ({"grid": {"layers": [1]}}, "unknown parameter 'layers': this chapter declares depth, rate"),
        ({"fixed": {"depth": 9}}, r"depth = 9 refused: allowed is in \[1, 8\]"),
        ({"fixed": {"depth": "2"}}, "depth = '2' refused: expected int"),
        ({"grid": {"depth": [1, 2.5]}}, "depth = 2.5 refused: expected int"),
        ({"rows": [{"depth": True}]}, "depth = True refused: expected int"),
        ({"grid": {"depth": []}}, "the grid is empty: depth has no value"),
        ({"grid": {"depth": 3}}, "expected a list of values"),
        ({"grid": {"entangler": "ring"}}, "expected a list of values"),
        ({"grid": {"depth": [1, 2, 1]}}, "two runs of this sweep are one and the same: depth = 1"),
        ({"grid": {"rate": [1, 1.0]}}, "one and the same: rate = 1.0"),
        ({"grid": {"depth": [1, 2]}, "fixed": {"depth": 1}}, "depth stands in two parts"),
        ({"fixed": {"seed": 1}, "seeds": 2}, "seed stands in two parts"),
        ({"seeds": 0}, "seeds must be a number of at least 1"),
        ({"seeds": "3"}, "seeds must be a number"),
        ({"sample": 3}, "sample must be a table"),
        ({"seeds": [1, -1]}, "seeds must be a number of at least 1"),
        ({"sample": {"runs": 0, "depth": {"low": 1, "high": 2}}}, "a sample needs runs"),
        ({"sample": {"runs": 2}}, "parameters to draw"),
        ({"sample": {"runs": 2, "depth": {"low": 0, "high": 2}}}, "depth = 0 refused"),
        ({"sample": {"runs": 2, "depth": {"low": 3, "high": 2}}}, "expected low < high"),
        ({"sample": {"runs": 2, "depth": [1, 2]}}, "expected {low, high}"),
        ({"sample": {"runs": 2, "entangler": {"choices": []}}}, "the sample is empty"),
        ({"sample": {"runs": 2, "entangler": {"low": 1, "high": 2}}}, "only numbers"),
        ({"rows": {"depth": 1}}, r"each under \[\[list\]\]"),
    ],
)
def test_a_slip_is_refused_before_anything_starts(sweep, parts, sentence):
    with pytest.raises(ChapterError, match=sentence):
        sweep(**parts).runs()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('chapter = "pqc"\nseed = 3', "unknown entry 'seed': did you mean seeds?"),
        ("seeds = 3", "names no chapter"),
        ("chapter = ", "is no TOML file that describes a sweep"),
        ('chapter = "pcq"', "unknown chapter 'pcq': did you mean pqc?"),
    ],
)
def test_a_file_that_describes_no_sweep_is_refused(tmp_path, text, sentence):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ChapterError, match=sentence):
        Sweep.read(tmp_path / "s.toml").runs()


def test_a_file_says_the_same_as_python(chapter, sweep, tmp_path):
    text = f"""
chapter = "{chapter}"
seeds = 2
[fixed]
datasets = "digits"
[grid]
depth = [1, 2]
[[list]]
rate = 0.5
[[list]]
rate = 0.25
"""
    (tmp_path / "mine.toml").write_text(text)
    read = Sweep.read(tmp_path / "mine.toml")
    same = sweep(fixed={"datasets": ["digits"]}, grid={"depth": [1, 2]}, rows=[{"rate": 0.5}, {"rate": 0.25}], seeds=2)
    assert read.runs() == same.runs() and len(read.runs()) == 8
    assert read.place == "runs/mine"


# -- names -----------------------------------------------------------------------------------------------------------


def name(path: Path, **changed: object) -> str:
    (run,) = Sweep(chapter=str(path), fixed=changed).runs()
    return run.name


def test_a_name_depends_on_code_parameters_package_and_data(chapter, tmp_path, monkeypatch):
    first = name(chapter)
    assert len(first) == 16 and int(first, 16) and first == name(chapter, depth=2)  # the default, said aloud
    assert first != name(chapter, depth=3)
    monkeypatch.setattr(origins, "package", lambda: "edited")
    assert first != name(chapter)
    monkeypatch.undo()
    monkeypatch.setattr(origins, "_checksums", lambda: {"digits": ["other"]})
    assert first != name(chapter)
    assert name(chapter, datasets="mnist") != first


def test_prose_and_comments_change_no_name_and_code_does(chapter, tmp_path):
    copy = tmp_path / "toy.ipynb"
    shutil.copy(chapter, copy)
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells[1].source = "depth  *  rate  # the product"
    notebook.cells.append(nbformat.v4.new_markdown_cell("A word more."))
    nbformat.write(notebook, copy)
    assert name(copy) == name(chapter)
    notebook.cells[1].source = "depth + rate"
    nbformat.write(notebook, copy)
    assert name(copy) != name(chapter)


def test_the_data_of_a_run_are_the_sets_that_its_parameters_name():
    digits, both = origins.data({"dataset": "digits", "epochs": 3}), origins.data({"datasets": ["digits", "hymenoptera"]})
    assert digits and both and digits != both
    assert origins.data({"datasets": ["hymenoptera", "digits"]}) == both
    assert origins.data({"epochs": 3, "optimizer": "adam"}) == ""
    assert origins.data({"datasets": ["any"]}) == origins.data({"datasets": list(origins._checksums())})


def test_the_package_counts_by_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(origins.files, "PACKAGE", tmp_path)

    def checksum(text: str) -> str:
        (tmp_path / "circuits.py").write_text(text)
        return origins.package.__wrapped__()

    assert checksum("x = 1") == checksum("x = 1  # one") != checksum("x = 2")


def test_expected_time_is_that_of_finished_runs_or_of_the_chapters_own(chapter):
    assert expected_seconds(Sweep(chapter="pqc"), [1.0, 3.0]) == 2.0
    assert expected_seconds(Sweep(chapter="pqc"), []) == runs.results.run_of(runs.find("pqc"))["wall_time_s"]
    assert expected_seconds(Sweep(chapter=str(chapter)), []) is None
