"""A release: its version, what is compared before anything is built, and that the same files make the same archives."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from zipfile import ZipFile

import pytest
import release
import yaml

ROOT = Path(__file__).parents[1]
FILES = ["pyproject.toml", "CITATION.cff", "CHANGELOG.md", ".zenodo.json"]


@pytest.fixture
def working(tmp_path) -> Path:
    """The four files on any day, with something unreleased."""
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path)
    changes = tmp_path / "CHANGELOG.md"
    text = changes.read_text(encoding="utf-8")
    if "## Unreleased" not in text:
        changes.write_text(text.replace("\n## ", "\n## Unreleased\n\n- Something.\n\n## ", 1), encoding="utf-8")
    return tmp_path


@pytest.fixture
def copy(working) -> Path:
    """The four files on the day of a release, when nothing is unreleased any more."""
    changes = working / "CHANGELOG.md"
    changes.write_text(re.sub(r"## Unreleased\n.*?(?=\n## )", "", changes.read_text(encoding="utf-8"), flags=re.DOTALL))
    return working


def told(*words: str | Path) -> subprocess.CompletedProcess:
    """What `tools/release.py` says."""
    return subprocess.run([sys.executable, ROOT / "tools" / "release.py", *words], capture_output=True, text=True)


def test_our_files_agree_on_the_day_of_a_release(copy):
    assert release.disagreements(copy) == []


VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
CHANGES = [
    ("pyproject.toml", f'version = "{VERSION}"', 'version = "9.9.9"', "CITATION.cff is"),
    ("pyproject.toml", 'license = "BSD-3-Clause"', 'license = "MIT"', "licence"),
    ("pyproject.toml", 'name = "The HQNN book maintainers"', 'name = "Ada"', "authors in pyproject.toml"),
    ("CITATION.cff", f"version: {VERSION}", "version: 9.9.9", "CITATION.cff is 9.9.9"),
    ("CITATION.cff", "date-released: 20", "date-released: 19", "date of the newest entry"),
    ("CITATION.cff", 'title: "Hybrid', 'title: "Not hybrid', "title in .zenodo.json"),
    ("CHANGELOG.md", f"## {VERSION} –", "## 9.9.9 –", "CHANGELOG.md is 9.9.9"),
    (".zenodo.json", f'"version": "{VERSION}"', '"version": "9.9.9"', ".zenodo.json is 9.9.9"),
    (".zenodo.json", '"upload_type": "software"', '"upload_type": "book"', "upload_type"),
    (".zenodo.json", '"license": "BSD-3-Clause"', '"licence": "BSD-3-Clause"', "lacks license"),
    (".zenodo.json", '"name": "The HQNN book maintainers"', '"name": "Ada"', "creators"),
]


@pytest.mark.parametrize(("file", "was", "now", "named"), CHANGES, ids=[f"{change[0]}-{change[3]}" for change in CHANGES])
def test_a_release_is_refused_and_names_what_disagrees(copy, file, was, now, named):
    text = (copy / file).read_text(encoding="utf-8")
    assert was in text
    (copy / file).write_text(text.replace(was, now, 1), encoding="utf-8")
    done = told("--check", copy)
    assert done.returncode == 1 and named in done.stderr and "Traceback" not in done.stderr


def test_zenodo_and_citation_tell_the_same_keywords(copy):
    zenodo, citation = (copy / ".zenodo.json").read_text(), (copy / "CITATION.cff").read_text()
    assert json.loads(zenodo)["keywords"] == yaml.safe_load(citation)["keywords"]


def test_what_is_unreleased_is_refused_in_one_sentence_that_says_what_to_do(working):
    done = told("--check", working)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2
    assert "CHANGELOG.md are Unreleased" in done.stderr and "`make version NEW=…`" in done.stderr


def test_one_command_gives_what_is_unreleased_a_version_and_a_date_everywhere(working):
    before = {file: (working / file).read_text(encoding="utf-8").splitlines() for file in FILES}
    done = told("--version", "7.0.0", working)
    assert done.returncode == 0 and "commit it" in done.stdout, done.stderr
    assert told("--check", working).returncode == 0
    changed = {
        file: [
            (old, new) for old, new in zip(lines, (working / file).read_text("utf-8").splitlines(), strict=True) if old != new
        ]
        for file, lines in before.items()
    }
    assert [len(changed[file]) for file in FILES] == [1, 2, 1, 1]  # and nothing else, not one space
    assert changed["CHANGELOG.md"] == [("## Unreleased", f"## 7.0.0 – {date.today()}")]


@pytest.mark.parametrize("new", [VERSION, "0.0.9", "1.0", "v9.0.0", "9.0.0rc1", "", "9.0.0; echo"])
def test_what_is_no_later_version_is_refused_with_one_that_is(working, new):
    before = [(working / file).read_bytes() for file in FILES]
    done = told("--version", new, working)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "make version NEW=" in done.stderr
    assert before == [(working / file).read_bytes() for file in FILES]
    assert told("--version", re.search(r"NEW=([\d.]+)", done.stderr)[1], working).returncode == 0


def test_nothing_is_written_where_nothing_is_unreleased(copy):
    before = [(copy / file).read_bytes() for file in FILES]
    done = told("--version", "7.0.0", copy)
    assert done.returncode == 1 and "CHANGELOG.md has 0 lines" in done.stderr and "Traceback" not in done.stderr
    assert before == [(copy / file).read_bytes() for file in FILES]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with one commit, in place of ours."""
    monkeypatch.setattr(release, "ROOT", tmp_path)
    for name in ("GITHUB_REF_TYPE", "GITHUB_REF_NAME"):
        monkeypatch.delenv(name, raising=False)
    commit(tmp_path, "init", "--quiet")
    commit(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "One")
    return tmp_path


def commit(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *words], cwd=folder, check=True)


def test_a_release_is_made_of_a_commit_and_has_a_tag_of_its_own(checkout, monkeypatch):
    assert release.of_git("7.0.0") == []
    commit(checkout, "tag", "v7.0.0")
    assert release.of_git("7.0.0") == []  # once more, from the tag itself
    (checkout / "new").touch()
    (found,) = release.of_git("7.0.0")
    assert "not committed" in found and "?? new" in found
    commit(checkout, "add", "new")
    commit(checkout, "commit", "--quiet", "--message", "Two")
    (found,) = release.of_git("7.0.0")
    assert "v7.0.0 is the tag of another commit" in found
    monkeypatch.setenv("GITHUB_REF_TYPE", "tag")
    monkeypatch.setenv("GITHUB_REF_NAME", "v8.0.1")
    assert release.of_git("8.0.0") == ["The tag is v8.0.1, but the version is 8.0.0 in pyproject.toml."]
    shutil.rmtree(checkout / ".git")
    assert "no checkout of git" in release.of_git("7.0.0")[0]


def test_the_same_pages_make_the_same_archive_in_one_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "a").mkdir(parents=True)
        for file in ("a/b.html", "z.html")[:: 1 if name == "one" else -1]:
            (tmp_path / name / file).write_text(file)
        (tmp_path / "to" / name).mkdir(parents=True)
        release.pack(tmp_path / name, tmp_path / "to" / name / "site.zip")
    os.utime(tmp_path / "two" / "z.html", (1e9, 1e9))
    release.pack(tmp_path / "two", tmp_path / "to" / "two" / "site.zip")
    one, two = ((tmp_path / "to" / name / "site.zip").read_bytes() for name in ("one", "two"))
    assert one == two
    assert ZipFile(tmp_path / "to" / "one" / "site.zip").namelist() == ["site/a/b.html", "site/z.html"]
