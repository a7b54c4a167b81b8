"""What was computed is kept whole and found again, or not at all; and only one of many computes it."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqnn_utils.errors import DataError
from hqnn_utils.kept import Kept

CONTENT = b"what was computed"


@pytest.fixture
def kept(tmp_path) -> Kept:
    return Kept(tmp_path / "cache", "a name", "all that it depends on")


def refused() -> bytes:
    raise AssertionError("computed again")


def test_what_was_written_is_read_and_before_that_nothing(kept):
    assert kept.read() is None
    kept.write(CONTENT)
    assert kept.read() == CONTENT


@pytest.mark.parametrize(("name", "origin"), [("a name", "something else"), ("another name", "all that it depends on")])
def test_what_has_another_name_or_origin_is_another_thing(kept, name, origin):
    kept.write(CONTENT)
    other = Kept(kept.path.parent, name, origin)
    assert other.read() is None and other.path != kept.path


def test_a_file_in_the_place_of_another_is_not_taken_for_it(kept):
    kept.write(CONTENT)
    other = Kept(kept.path.parent, "a name", "something else")
    other.path.write_bytes(kept.path.read_bytes())
    with pytest.warns(UserWarning, match=f"{other.path.name} is not as it was kept, and is computed anew"):
        assert other.read() is None


@given(bit=st.integers(0, 8 * (32 + len(CONTENT)) - 1))
@settings(max_examples=100)
def test_a_flipped_bit_is_noticed_wherever_it_is(bit, tmp_path_factory):
    kept = Kept(tmp_path_factory.mktemp("cache"), "a name", "origin")
    kept.write(CONTENT)
    sealed = bytearray(kept.path.read_bytes())
    sealed[bit // 8] ^= 1 << bit % 8
    kept.path.write_bytes(sealed)
    with pytest.warns(UserWarning, match="is not as it was kept"):
        assert kept.read() is None


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_it_is_computed_once(kept, content):
    assert kept.once(lambda: content) == kept.once(refused) == content


def test_of_all_that_ask_at_the_same_time_one_computes(kept):
    together, computed = threading.Barrier(4), []

    def compute() -> bytes:
        computed.append(1)
        return CONTENT

    def ask(_) -> bytes:
        together.wait(10)
        return Kept(kept.path.parent, "a name", "all that it depends on").once(compute)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {CONTENT}
    assert computed == [1]


@pytest.mark.parametrize("error", [ValueError, OSError, DataError])
def test_a_computation_that_fails_is_not_tried_again_keeps_nothing_and_leaves_the_door_open(kept, error):
    def fail() -> bytes:
        tried.append(1)
        raise error("no")

    tried = []
    with pytest.raises(error, match="no"):
        kept.once(fail)
    assert tried == [1]
    assert kept.once(lambda: CONTENT) == CONTENT


def test_what_is_asked_for_fresh_is_computed_anew_and_kept(kept, monkeypatch):
    kept.write(b"old")
    monkeypatch.setenv("HQNN_FRESH", "1")
    assert kept.once(lambda: CONTENT) == CONTENT
    monkeypatch.setenv("HQNN_FRESH", "")
    assert kept.once(refused) == CONTENT


def test_where_nothing_can_be_kept_it_is_computed_once_all_the_same_with_a_warning(tmp_path):
    (tmp_path / "cache").write_text("a file")
    computed = []
    with pytest.warns(UserWarning, match=r"nothing can be kept in .*cache .*: make room, or mend its permissions"):
        assert Kept(tmp_path / "cache", "a name", "origin").once(lambda: computed.append(1) or CONTENT) == CONTENT
    assert computed == [1]


def test_what_cannot_be_written_at_the_end_is_not_computed_twice(kept, monkeypatch):
    def full(path: Path, content: bytes):
        raise OSError(28, "No space left on device")

    computed = []
    monkeypatch.setattr("hqnn_utils.files.write", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert kept.once(lambda: computed.append(1) or CONTENT) == CONTENT
    assert computed == [1]


def test_what_is_as_it_was_kept_is_read_without_a_word(kept):
    kept.write(CONTENT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.read()
