"""One environment, described in several places: they agree with each other and with what is installed here."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github" / "workflows").iterdir()
}
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


# -- workflows ---------------------------------------------------------------------------------------------------------

JOBS = [(file, name, job) for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()]
each_job = pytest.mark.parametrize("job", [job for _, _, job in JOBS], ids=[f"{file}-{name}" for file, name, _ in JOBS])


@each_job
def test_every_action_is_pinned_by_its_commit(job):
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used and not [action for action in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action)]


def test_every_pinned_action_says_which_version_it_is():
    lines = "".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir()).splitlines()
    used = [line for line in lines if "uses:" in line]
    assert used and not [line for line in used if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)]


@each_job
def test_a_checkout_leaves_no_credentials_behind(job):
    checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert not [step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False]


def test_a_workflow_grants_nothing_that_a_job_does_not_name():
    assert [workflow["permissions"] for workflow in WORKFLOWS.values()] == [{}] * len(WORKFLOWS)
    assert not [name for _, name, job in JOBS if "permissions" not in job]


@each_job
def test_a_job_that_may_write_runs_no_command(job):
    writes = "write" in job["permissions"].values()
    assert not writes or not [step for step in job["steps"] if "run" in step or "checkout" in step["uses"]]


# -- make --------------------------------------------------------------------------------------------------------------

make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture(autouse=True)
def no_make_above(monkeypatch):
    """What `make test` was told is not for the makes of the tests."""
    for variable in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(variable, raising=False)


def shown(root: str, *options: str, folder: Path = ROOT) -> str:
    """The data root that a recipe of the Makefile is given, where that of the user is `root`."""
    recipe = "--eval=show:;@printf '%s' \"$$HQNN_DATA\""
    command = ["make", "--silent", "--no-print-directory", *options, recipe, "show"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"HQNN_DATA": root}, capture_output=True, text=True, check=True
    ).stdout


ODD_ROOTS = [
    "/my data",
    "~/data",
    "/x/$(shell touch PWNED)",
    "/$HOME/$(HOME)/$$",
    "/a\"b'c",
    "/x;`id`#y",
    "/ünï\\cöde",
    "/%s:=*",
]


@make
@pytest.mark.parametrize("root", ODD_ROOTS)
def test_make_hands_a_data_root_on_as_it_is(root):
    assert shown(root) == root
    assert not (ROOT / "PWNED").exists()


@make
@pytest.mark.parametrize("root", ["../shared/data", "my data", "$(shell touch PWNED)"])
def test_make_makes_a_relative_data_root_absolute(root):
    assert shown(root) == f"{ROOT}/{root}"
    assert not (ROOT / "PWNED").exists()


@make
def test_an_empty_data_root_stays_empty_in_make():
    assert shown("") == ""


@make
def test_make_run_hands_chapter_and_arguments_on_as_they_were_typed(tmp_path):
    for file in ("requirements.lock", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / file, tmp_path)
    hqnn = tmp_path / ".venv" / "bin" / "hqnn"
    hqnn.parent.mkdir(parents=True)
    hqnn.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    hqnn.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    command = ["make", "--silent", "run", "CHAPTER=my book/a b.ipynb", "ARGS=-p name 'two words' -y 'a: 1'"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("<run><my book/a b.ipynb><-p><name><two words><-y><a: 1>")


# -- set-up ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A folder with what `make setup` reads, and an index of packages that holds one file that calls itself uv."""
    for file in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / file, tmp_path)
    (locked,) = named("uv")
    name = f"uv-{pinned(locked)}"
    (tmp_path / "index").mkdir()
    with ZipFile(tmp_path / "index" / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fake_uv.py", "import sys\ndef main(): print('uv ran:', *sys.argv[1:])\n")
        wheel.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {pinned(locked)}\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/entry_points.txt", "[console_scripts]\nuv = fake_uv:main\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    for variable, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(f"PIP_{variable}", value)
    return tmp_path


def setting_up(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "setup", f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True)


@make
def test_a_uv_that_is_not_the_locks_is_refused_and_never_runs(bare):
    done = setting_up(bare)
    assert done.returncode == 2 and "DO NOT MATCH THE HASHES" in done.stderr
    assert ".venv is not set up:" in done.stderr and "uv ran" not in done.stdout
    assert not (bare / ".venv" / ".ready").exists() and not (bare / ".venv" / "bin" / "uv").exists()


@make
def test_set_up_without_an_index_says_what_failed_and_what_to_do(bare):
    shutil.rmtree(bare / "index")
    done = setting_up(bare)
    assert done.returncode == 2 and "No matching distribution found for uv" in done.stderr
    assert "could not be had from the package index" in done.stderr and "Run make again" in done.stderr
    assert not (bare / ".venv" / ".ready").exists()


@make
def test_the_locks_uv_installs_the_lock_by_its_hashes(bare):
    (wheel,) = (bare / "index").iterdir()
    lock = f"a==1 \\\n    --hash=sha256:0\n{wheel.name[:2]}=={wheel.name.split('-')[1]} \\\n    --hash=sha256:"
    (bare / "requirements.lock").write_text(
        lock + hashlib.sha256(wheel.read_bytes()).hexdigest() + "\nz==1 \\\n    --hash=sha256:0\n"
    )
    done = setting_up(bare)
    assert done.returncode == 0, done.stderr
    assert re.search(r"uv ran: pip sync .*--require-hashes --no-build requirements\.lock", done.stdout)
    assert (bare / ".venv" / ".ready").exists()
