"""Many runs, one table: what its rows and columns are, its means, its figures, and when a committed one is refused."""

import json
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from hqnn_utils.errors import ChapterError
from hqnn_utils.evidence.statistics import mean_interval
from hqnn_utils.notebooks import results
from hqnn_utils.sweeps import averages, collected, origins
from hqnn_utils.sweeps.description import Sweep

RECORDED = {name: version(name) for name in results.RECORDED}


def executed(parameters: dict, found: dict, of_seeds: dict | None = None, failed: dict | None = None) -> str:
    """The text of an executed notebook that recorded this."""
    facts = [{"name": name, "value": value, "unit": "%", "tolerance": 0.5} for name, value in found.items()]
    more = [{"name": n, "seeds": [7, 8], "values": v, "unit": "%", "tolerance": 0.1} for n, v in (of_seeds or {}).items()]
    record = {"run": "r", "parameters": parameters, "date": "2026-01-02", "versions": {"python": "3.12.0"} | RECORDED}
    bundles = [{results.RUN: record}, {results.FOUND: {"run": "r", "results": facts, "of_seeds": more}}]
    outputs = [nbformat.v4.new_output("display_data", data=data, metadata={"hqnn": True}) for data in bundles]
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=outputs)
    known = {"run": "r", "chapter": "toy", "wall_time_s": 1.5, "code": "c", "data": "d"}
    own = known | ({"failed": failed} if failed else {})
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell], metadata={"hqnn": own}))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four runs of a sweep: two finished, one failed, one that waits; and a notebook that is not the sweep's."""
    runs = {f"{k:016x}": {"depth": k, "datasets": ["digits", "brain_tumor"]} for k in range(4)}
    index = {"chapter": "toy", "runs": {name: {"parameters": p, "data": "d"} for name, p in runs.items()}}
    (tmp_path / "sweep.json").write_text(json.dumps(index))
    for k, (name, parameters) in enumerate(runs.items()):
        found = {"digits_ent": 90.0 + k, "order_brain_tumor_clean_q": 80 + k, "verdict": "no, not shown", "all": 3}
        found |= {"claimed_mnist": 99}  # no data set of this run
        if k < 2:
            text = executed(parameters, found, {"digits_accuracy": [1.0 + k, 2.0 + k]})
            (tmp_path / f"{name}.ipynb").write_text(text)
        if k == 2:
            text = executed(parameters, found, failed={"error": "ValueError", "message": "no\nand more"})
            (tmp_path / f"{name}.failed.ipynb").write_text(text)
    (tmp_path / "stray.ipynb").write_text(executed({"depth": 9}, {"digits_ent": 1.0}))
    return tmp_path


@pytest.fixture
def table(folder) -> pd.DataFrame:
    return collected.long(str(folder))


def test_a_long_table_has_a_row_for_each_result_and_one_for_each_other_run(table):
    assert table["status"].value_counts().to_dict() == {"finished": 14, "failed": 1, "waiting": 1}
    (row,) = table[(table["result"] == "order_brain_tumor_clean_q") & (table["depth"] == 1)].to_dict("records")
    expected = {
        "chapter": "toy",
        "datasets": "digits, brain_tumor",
        "of_dataset": "brain_tumor_clean",
        "quantity": "order_q",
        "value": 81.0,
        "unit": "%",
        "tolerance": 0.5,
        "wall_time_s": 1.5,
        "date": "2026-01-02",
        "python": "3.12.0",
        "data": "d",
    }
    assert expected.items() <= row.items() and row["torch"] == RECORDED["torch"]
    assert table[table["status"] == "failed"]["error"].tolist() == ["ValueError: no"]
    assert set(table[table["result"] == "verdict"]["text"]) == {"no, not shown"}
    assert "stray" not in set(table["run"])


def test_values_of_seeds_have_a_row_each(table):
    rows = table[table["of_seed"].notna()]
    assert rows[["depth", "of_seed", "value"]].values.tolist() == [[0, 7, 1.0], [0, 8, 2.0], [1, 7, 2.0], [1, 8, 3.0]]


def test_a_wide_table_has_a_row_for_each_run_and_data_set_and_no_data_set_in_its_columns(table):
    wide = collected.wide(table).set_index(["depth", "of_dataset"])
    assert len(wide) == 6
    assert wide.loc[(1, "digits"), "ent"] == 91.0 and wide.loc[(1, "brain_tumor_clean"), "order_q"] == 81.0
    assert wide.loc[(1, "digits"), "all"] == wide.loc[(1, "brain_tumor_clean"), "all"] == 3.0
    assert (
        "claimed" not in wide.columns
        and wide["ent"].dtype == float
        and not [name for name in wide.columns if "digits" in name]
    )


def test_a_folder_of_single_runs_is_a_table_too(folder):
    (folder / "sweep.json").unlink()
    table = collected.long(str(folder))
    assert table[table["run"] == "stray"]["depth"].tolist() == [9] and len(set(table["run"])) == 4


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ChapterError, match="there are no runs in"):
        collected.long(str(tmp_path / "nothing"))


def test_a_parameter_may_be_called_like_a_column(tmp_path):
    (tmp_path / "a.ipynb").write_text(executed({"status": "mine", "all": 1}, {"all": 2}))
    table = collected.long(str(tmp_path))
    assert table["parameter_status"].tolist() == ["mine"] and table["status"].tolist() == ["finished"]
    assert collected.wide(table)["result_all"].tolist() == [2.0]


def test_a_mean_has_the_interval_of_its_values(table):
    (row,) = averages.grouped(table, [], "digits_ent", mean_interval).to_dict("records")
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(tuple(mean_interval([90.0, 91.0])))
    assert (row["n"], row["unit"]) == (2, "%")


def test_means_are_over_seeds_where_each_has_a_value(table):
    rows = averages.grouped(table, ["depth", "of_dataset"], "accuracy", mean_interval)
    assert rows[["depth", "of_dataset", "mean", "n"]].values.tolist() == [[0, "digits", 1.5, 2], [1, "digits", 2.5, 2]]


def test_a_single_value_has_no_interval(table):
    rows = averages.grouped(table, ["depth"], "ent", mean_interval)
    assert rows["mean"].tolist() == [90.0, 91.0] and rows["low"].isna().all() and rows["n"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("by", "metric", "sentence"),
    [
        (["depths"], "ent", "no column depths: the table has run, chapter"),
        (["depth"], "verdict", "no finished run has a number"),
    ],
)
def test_an_unknown_column_or_result_is_refused(table, by, metric, sentence):
    with pytest.raises(ChapterError, match=sentence):
        averages.grouped(table, by, metric, mean_interval)


def test_a_figure_shows_each_mean_at_its_place(table):
    groups = averages.grouped(table, ["depth"], "accuracy", mean_interval)
    figure = averages.drawn(groups, ["depth"], "accuracy")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("depth", "accuracy (%)")
    assert axes.lines[0].get_xydata().tolist() == [[0, 1.5], [1, 2.5]]
    words = averages.drawn(groups.assign(depth=["ring", "linear"]), ["depth"], "accuracy")
    assert [label.get_text() for label in words.axes[0].get_xticklabels()] == ["ring", "linear"]
    with pytest.raises(ChapterError, match="something to draw over"):
        averages.drawn(groups, [], "accuracy")
    with pytest.raises(ChapterError, match="has no value at each depth"):
        averages.drawn(groups.assign(of=["a", "b"]), ["depth", "of"], "accuracy")
    plt.close("all")


@pytest.mark.parametrize("ending", ["csv", "parquet", "html"])
def test_a_table_is_written_and_read_back(table, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("fastparquet")
    output = tmp_path / "tables" / f"t.{ending}"
    collected.write(table, output)
    if ending == "html":
        assert output.read_text(encoding="utf-8").count("<tr") == len(table) + 1
        return
    again = {"csv": pd.read_csv, "parquet": pd.read_parquet}[ending](output)
    assert list(again.columns) == list(table.columns)
    assert again["value"].to_list() == pytest.approx(table["value"].to_list(), nan_ok=True)


def test_a_table_of_another_kind_is_refused(table, tmp_path):
    with pytest.raises(ChapterError, match=r"written as \.csv, \.parquet, \.html"):
        collected.write(table, tmp_path / "t.xlsx")


# -- tables that chapters read ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(table, tmp_path, monkeypatch) -> Path:
    """A committed table of finished runs."""
    table = table[table["status"] == "finished"].copy()
    table["data"] = origins.data({"datasets": ["digits", "brain_tumor"]})
    monkeypatch.setattr(collected.files, "place", lambda name: tmp_path / name)
    collected.write(collected.wide(table), tmp_path / "data" / "results" / "depth.csv")
    return tmp_path / "data" / "results" / "depth.csv"


def test_a_committed_table_that_fits_is_read(kept, table):
    found, expected = collected.committed("depth"), collected.wide(table[table["status"] == "finished"])
    assert found["run"].tolist() == expected["run"].tolist() and list(found.columns) == list(expected.columns)
    assert found.select_dtypes("number").stack().size > 0


def test_what_a_chapter_takes_as_text_is_read_as_text(kept):
    row = {"chapter": "universe", "labels": "true", "learning_rates": "[0.001]", "depth": 2, "run": "12", "hqnn-utils": ""}
    pd.DataFrame([row]).to_csv(kept, index=False)
    found = collected._read(kept).iloc[0]
    assert (found["labels"], found["run"], found["depth"]) == ("true", "12", 2)


def test_a_committed_table_of_other_data_is_refused_with_the_command(kept):
    text = kept.read_text(encoding="utf-8")
    kept.write_text(text.replace(origins.data({"datasets": ["digits", "brain_tumor"]}), "0" * 16), encoding="utf-8")
    with pytest.raises(ChapterError, match=r"was made from other data.*`make results` in a checkout of the book renews it"):
        collected.committed("depth")


def test_a_release_shuts_no_table(kept):
    """A new number on the same code, else every chapter that reads one would wait for hours of sweeps."""
    text = kept.read_text(encoding="utf-8")
    kept.write_text(text.replace(RECORDED["hqnn-utils"], "0.0.1"), encoding="utf-8")
    assert set(collected.committed("depth")["hqnn-utils"]) == {"0.0.1"}


def test_a_run_of_a_table_is_of_this_code_until_chapter_package_parameter_or_data_are_edited(kept, monkeypatch):
    """The names of its rows are those that a sweep gives, read back from what the table says as text."""
    grid = {"depth": [1, 2], "learning_rate": [0.001, 0.5], "entangler": ["ring", "linear"]}
    sweep = Sweep(chapter="many_networks", fixed={"dataset": "digits"}, grid=grid)
    rows = [{"run": run.name, "chapter": "many_networks"} | dict(run.in_force) for run in sweep.runs()]
    pd.DataFrame(rows).to_csv(kept, index=False)
    assert collected.of_other_code() == {"depth": ""}
    pd.DataFrame([*rows[1:], rows[0] | {"depth": 3}]).to_csv(kept, index=False)
    assert collected.of_other_code()["depth"].startswith("1 of 8 runs are of another code")
    for part in ("package", "data", "code"):
        with monkeypatch.context() as edited:
            edited.setattr(origins, part, lambda *of: "edited")
            collected._code.cache_clear()
            assert collected.of_other_code()["depth"].startswith("8 of 8")
    collected._code.cache_clear()
    pd.DataFrame({"value": [1]}).to_csv(kept, index=False)
    assert collected.of_other_code() == {"depth": "does not say by which code it was made"}


def test_the_command_says_which_tables_another_code_has_made(kept, hqnn, monkeypatch):
    done = hqnn("results", "--check")
    assert done.returncode == 1 and done.stdout.startswith("depth            2 of 2 runs are of another code")
    monkeypatch.setattr(collected, "of_other_code", lambda: {"depth": ""})
    done = hqnn("results", "--check")
    assert done.returncode == 0 and done.stdout == "depth            all runs are of this code\n"
    assert hqnn("results").returncode == 2


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ChapterError, match="there is no table"):
        collected.committed("nothing")


def test_a_row_is_run_anew_with_its_own_parameters(monkeypatch):
    executed = []

    class Execution:
        def __init__(self, path, declared, values):
            executed.append((path.stem, values))
            self.notebook = {"cells": [], "metadata": {}}

        def run(self, progress):
            assert not progress, "a chapter's page shows no bar"

    monkeypatch.setattr(collected.runs, "Execution", Execution)
    row = {"chapter": "many_networks", "run": "0" * 16, "dataset": "digits", "depth": 3, "learning_rate": 0.003, "alone": 1.0}
    assert collected.anew(row) == {}
    assert executed == [("many_networks", {"dataset": "digits", "depth": 3, "learning_rate": 0.003})]


def test_a_row_whose_parameters_the_chapter_no_longer_takes_is_refused():
    with pytest.raises(ChapterError, match="parameter depth = 99 refused"):
        collected.anew({"chapter": "many_networks", "dataset": "digits", "depth": 99})
