"""One environment, described in several places: they agree with each other and with what is installed here."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = re.split(r"\n(?=\S)", LOCK.strip())  # a requirement and, indented behind it, its hashes
LOCKED = [Requirement(entry.split("\\")[0]) for entry in ENTRIES if not entry.startswith("#")]
HERE = [requirement for requirement in LOCKED if requirement.marker is None or requirement.marker.evaluate()]
WANTED = [
    Requirement(text) for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()] for text in group
]


def named(name: str) -> list[Requirement]:
    """The lock's entries for a package: more than one where it differs between machines."""
    return [locked for locked in LOCKED if canonicalize_name(locked.name) == canonicalize_name(name)]


def pinned(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    return pin.version


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.name)
def test_the_lock_holds_a_version_that_the_project_wants(wanted):
    versions = [pinned(locked) for locked in named(wanted.name)]
    assert versions
    assert all(wanted.specifier.contains(locked, prereleases=True) for locked in versions)


def test_every_requirement_of_the_lock_has_a_hash():
    assert not [entry.split()[0] for entry in ENTRIES if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)]


def test_the_lock_names_no_address():
    assert "://" not in LOCK


def test_on_one_machine_the_lock_holds_each_package_once():
    names = [canonicalize_name(locked.name) for locked in HERE]
    assert len(names) == len(set(names)) > 100


def test_what_is_installed_here_is_what_the_lock_says():
    installed = {locked.name: version(locked.name).partition("+")[0] for locked in HERE}
    assert installed == {locked.name: pinned(locked) for locked in HERE}


def test_jupyter_book_is_the_last_of_its_first_kind():
    assert [pinned(locked) for locked in named("jupyter-book")] == ["1.0.4.post1"]


def test_the_conda_environment_is_python_from_conda_forge_and_the_lock():
    python, *others = CONDA["dependencies"]
    assert CONDA["channels"] == ["conda-forge"]
    assert others == ["pip", {"pip": ["-r requirements.lock"]}]
    assert re.fullmatch(r"python=3\.\d+", python)


def test_the_conda_environments_python_is_one_that_the_project_wants():
    python = CONDA["dependencies"][0].partition("=")[2]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+) – (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == newest[1] == PROJECT["version"] == version("hqnn-utils")
    assert str(citation["date-released"]) == newest[2]
