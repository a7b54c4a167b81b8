"""What a release compares before it builds anything."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import release
import yaml

ROOT = Path(__file__).parents[1]
FILES = ["pyproject.toml", "CITATION.cff", "CHANGELOG.md", ".zenodo.json"]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The four files on the day of a release, when nothing is unreleased any more."""
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path)
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text(re.sub(r"## Unreleased\n.*?(?=\n## )", "", changes.read_text(encoding="utf-8"), flags=re.DOTALL))
    return tmp_path


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
    ("CHANGELOG.md", f"## {VERSION} –", f"## Unreleased\n\n- Something.\n\n## {VERSION} –", "CHANGELOG.md is Unreleased"),
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
    done = subprocess.run([sys.executable, ROOT / "tools" / "release.py", "--check", copy], capture_output=True, text=True)
    assert done.returncode == 1 and named in done.stderr and "Traceback" not in done.stderr


def test_zenodo_and_citation_tell_the_same_keywords(copy):
    zenodo, citation = (copy / ".zenodo.json").read_text(), (copy / "CITATION.cff").read_text()
    assert json.loads(zenodo)["keywords"] == yaml.safe_load(citation)["keywords"]
