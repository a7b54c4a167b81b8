"""Files are written whole or not at all, and what a killed process left is cleared away."""

import os
import subprocess
import sys

import pytest

from hqnn_utils import files


def test_in_a_checkout_tables_and_chapters_are_those_of_the_checkout():
    assert files.place("data/datasets.toml") == files.CHECKOUT / "data" / "datasets.toml"
    assert "mnist" in files.table("datasets.toml")


def test_an_installed_package_writes_to_the_users_cache_and_not_beside_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "CHECKOUT", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache() == tmp_path / "hqnn"
    assert files.place("book") == files.PACKAGE / "shipped" / "book"


def test_a_written_file_has_the_mode_that_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        files.write(tmp_path / "a", "text")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    files.write(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), files.beside(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_what_a_killed_process_left_is_removed_by_the_next_write_and_nothing_else(tmp_path):
    leave = f"""
import os, signal
from pathlib import Path
from hqnn_utils import files
with files.beside(Path({str(tmp_path / "a.npz")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", leave]).returncode == -9
    (tmp_path / ".hqnn-notes").write_text("the reader's own")
    with files.beside(tmp_path / "b"):  # of a living process
        assert len(list(tmp_path.glob(".hqnn-*.part*"))) == 1
        files.write(tmp_path / "c", b"whole")
        assert len(list(tmp_path.glob(".hqnn-*.part*"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hqnn-notes", "b", "c"]
