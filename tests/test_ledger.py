"""The record of paid circuits survives what may happen to its files."""

import json
from pathlib import Path

import pytest

from hqnn_utils.ledger import Record, Task


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "tasks.jsonl"


def filled(path: Path) -> Record:
    """Two tasks of one circuit and one of another; the first has a result."""
    record = Record(path)
    for id, key in (("a", "x"), ("b", "x"), ("c", "y")):
        number, _ = record.token(key)
        record.add(Task(id, key, number, usd=0.5))
    record.keep("a", "the result of a")
    record.note("a", status="COMPLETED", usd=0.75, seconds=2.0)
    return record


def test_what_was_written_is_read_again(path):
    before, after = filled(path), Record(path)
    assert after.tasks == before.tasks and after.name == before.name
    assert after.tasks["a"] == Task("a", "x", 0, "COMPLETED", 0.75, 2.0)
    assert after.result("a") == "the result of a" and after.result("b") is None
    assert after.usd == pytest.approx(1.75)


def test_what_has_not_changed_is_not_written_again(path):
    record = filled(path)
    before = path.read_text()
    record.note("a", status="COMPLETED")
    assert path.read_text() == before


def test_the_same_circuit_in_the_same_place_has_the_same_token_in_every_run(path):
    record = Record(path)
    tokens = [record.token("x") for _ in range(3)]
    assert [number for number, _ in tokens] == [0, 1, 2] and len({token for _, token in tokens}) == 3
    assert Record(path).token("x") == tokens[0]  # none of them was written down as sent


def test_the_token_of_a_task_whose_line_was_lost_is_given_again(path):
    record = Record(path)
    tokens = [record.token("x") for _ in range(3)]
    for id, (number, _) in zip("abc", tokens, strict=True):
        record.add(Task(id, "x", number))
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"b"' not in line))
    assert Record(path).token("x") == tokens[1]  # that of b, and not a fourth one


def test_other_records_and_other_circuits_have_other_tokens(path, tmp_path):
    other = Record(tmp_path / "other.jsonl")
    record = Record(path)
    assert len({record.token("x")[1], record.token("y")[1], other.token("x")[1]}) == 3


@pytest.mark.parametrize("damage", ["cut off", "no line end", "nonsense", "a note without its task", "an empty line"])
def test_a_damaged_line_costs_nothing_else(path, damage):
    filled(path)
    whole = path.read_text()
    cut = whole[: whole.rindex('"c"') + 10]
    path.write_text(
        {
            "cut off": cut,
            "no line end": whole.rstrip("\n"),
            "nonsense": whole + "\0\0\0\n",
            "a note without its task": whole + json.dumps({"id": "z", "status": "FAILED"}) + "\n",
            "an empty line": whole + "\n",
        }[damage]
    )
    record = Record(path)
    assert {"a", "b"} <= set(record.tasks) and record.result("a") == "the result of a"
    record.add(Task("d", "z", 0))
    assert set(Record(path).tasks) == set(record.tasks)


def test_results_that_were_deleted_can_be_kept_again(path):
    record = filled(path)
    for file in record.results.iterdir():
        file.unlink()
    record.results.rmdir()
    again = Record(path)
    assert again.result("a") is None
    again.keep("a", "again")
    assert again.result("a") == "again"
