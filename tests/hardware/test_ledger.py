"""The record of paid circuits survives what may happen to its files."""

import hashlib
import json
from pathlib import Path

import pytest

from hqnn_utils.hardware.ledger import PaidTask, Record

A = '{"of": "a"}'


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "tasks.jsonl"


def filled(path: Path) -> Record:
    """Two tasks of one circuit and one of another; the first has a result."""
    record = Record(path)
    for id, key in (("a", "x"), ("b", "x"), ("c", "y")):
        number = sum(task.key == key for task in record.tasks.values())
        record.add(PaidTask(id, key, number, usd=0.5))
    record.keep("a", A, status="COMPLETED", usd=0.75, seconds=2.0)
    return record


def test_what_was_written_is_read_again(path):
    before, after = filled(path), Record(path)
    assert after.tasks == before.tasks and after.name == before.name
    digest = hashlib.sha256(A.encode()).hexdigest()
    assert after.tasks["a"] == PaidTask("a", "x", 0, status="COMPLETED", usd=0.75, seconds=2.0, sha256=digest)
    assert after.result("a") == A and after.result("b") is None
    assert [task.usd for task in after.tasks.values()] == [0.75, 0.5, 0.5]


def test_what_has_not_changed_is_not_written_again(path):
    record = filled(path)
    before = path.read_text()
    record.note("a", status="COMPLETED")
    assert path.read_text() == before


def test_a_request_has_the_same_token_in_every_run_and_another_one_in_another_record(path, tmp_path):
    record, other = Record(path), Record(tmp_path / "other.jsonl")
    asked = [("x", 0), ("x", 1), ("y", 0)]
    tokens = [record.token(*request) for request in asked]
    assert [Record(path).token(*request) for request in asked] == tokens
    assert len({*tokens, other.token("x", 0)}) == 4


ODD = {
    "no object": "[1, 2]",
    "a number": "7",
    "null": "null",
    "a note without its task": '{"id": "z", "status": "FAILED"}',
    "no id": '{"key": "x", "number": 3, "usd": 1.0}',
    "an id that is a path": '{"id": "../../a", "key": "x", "number": 3}',
    "an id that is none": '{"id": {"a": 1}, "key": "x", "number": 3}',
    "a price that is none": '{"id": "a", "usd": NaN}',
    "a price without end": '{"id": "a", "usd": 1e999}',
    "a negative price": '{"id": "a", "usd": -5}',
    "a price in words": '{"id": "a", "usd": "much", "seconds": true}',
    "a number that is none": '{"id": "a", "number": "first", "key": 7}',
    "an unknown field": '{"id": "a", "colour": "red"}',
    "deep": "[" * 5000,
    "a long number": '{"id": "a", "usd": ' + "9" * 5000 + "}",
    "another header": '{"record": ["x"]}',
}


@pytest.mark.parametrize("line", [*(line.encode() for line in ODD.values()), b"\xff\xfe\x00"], ids=[*ODD, "no text"])
@pytest.mark.parametrize("first", [True, False])
def test_an_odd_line_changes_nothing_and_stays_where_it_is(line, first, path):
    before, whole = filled(path), path.read_bytes()
    path.write_bytes(line + b"\n" + whole if first else whole + line + b"\n")
    record = Record(path)
    assert record.tasks == before.tasks and record.name == before.name
    record.add(PaidTask("d", "z", 0))
    assert line in path.read_bytes() and set(Record(path).tasks) == {*before.tasks, "d"}


@pytest.mark.parametrize("name", ["tasks", "tasks.json", "a/../../tasks.jsonl"])
def test_a_record_has_a_name_that_leads_nowhere_else(name, tmp_path):
    with pytest.raises(ValueError, match=r"a record is a file NAME\.jsonl, its folder named without"):
        Record(tmp_path / name)


@pytest.mark.parametrize("found", [b"", b'{"of"', b'{"of": "b"}', b"\xff", b"[]"], ids=str)
def test_a_result_that_is_not_the_whole_of_what_was_kept_counts_as_none(found, path):
    record = filled(path)
    (record.results / "a.json").write_bytes(found)
    assert Record(path).result("a") is None


def test_a_result_that_was_kept_but_not_noted_is_there(path):
    record = filled(path)
    (record.results / "b.json").write_text('{"of": "b"}')
    assert Record(path).result("b") == '{"of": "b"}'


def test_an_older_record_can_be_read(path):
    lines = [
        {"record": "0" * 32},
        {"id": "a", "key": "x", "number": 0, "status": "CREATED", "usd": 0.5, "seconds": None},
        {"id": "a", "status": "COMPLETED", "usd": 0.75, "seconds": 2.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = Record(path)
    assert record.tasks["a"] == PaidTask("a", "x", 0, status="COMPLETED", usd=0.75, seconds=2.0) and record.name == "0" * 32


@pytest.mark.parametrize("damage", ["cut off", "no line end", "nonsense", "an empty line"])
def test_a_damaged_line_costs_nothing_else(path, damage):
    filled(path)
    whole = path.read_text()
    cut = whole[: whole.rindex('"c"') + 10]
    path.write_text(
        {
            "cut off": cut,
            "no line end": whole.rstrip("\n"),
            "nonsense": whole + "\0\0\0\n",
            "an empty line": whole + "\n",
        }[damage]
    )
    record = Record(path)
    assert {"a", "b"} <= set(record.tasks) and record.result("a") == A
    record.add(PaidTask("d", "z", 0))
    assert set(Record(path).tasks) == set(record.tasks)


def test_results_that_were_deleted_can_be_kept_again(path):
    record = filled(path)
    for file in record.results.iterdir():
        file.unlink()
    record.results.rmdir()
    again = Record(path)
    assert again.result("a") is None
    again.keep("a", A)
    assert again.result("a") == A
