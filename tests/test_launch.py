"""Where else a chapter runs: the address that leads there, and the files that set a machine up.

None of them can be run here, so this is their shape: Pythons, versions and commands are those of the project.
"""

import importlib.util
import io
import json
import os
import re
import subprocess
import tomllib
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from public_address import Repository, of_checkout, repository

from hqnn_utils.files import read_notebook
from hqnn_utils.notebooks import runs

ROOT = Path(__file__).parents[1]
PYTHONS = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# -- the address -------------------------------------------------------------------------------------------------------

ACTIONS = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "ada/book"}
TAG = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1.0"}
BRANCH = {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "12/merge"}
OWN = {"GITHUB_SERVER_URL": "https://git.example.org", "GITHUB_REPOSITORY": "ada/book"}
ADA = Repository("https://github.com/ada/book", "github")


@pytest.mark.parametrize(
    ("environ", "remote", "found"),
    [
        (ACTIONS, "", ADA),
        (ACTIONS | TAG, "", Repository(ADA.url, "github", "v1.0")),
        (ACTIONS | BRANCH, "", ADA),
        (ACTIONS, "https://gitlab.com/bob/fork", ADA),
        (OWN, "", Repository("https://git.example.org/ada/book", "github")),
        ({}, "https://github.com/ada/book", ADA),
        ({}, "https://github.com/ada/book.git\n", ADA),
        ({}, "https://ada:secret@github.com/ada/book.git", ADA),
        ({}, "git@github.com:ada/book.git", ADA),
        ({}, "ssh://git@github.com:22/ada/book.git", ADA),
        ({}, "https://gitlab.com/group/sub/book.git", Repository("https://gitlab.com/group/sub/book", "gitlab")),
        ({}, "git@bitbucket.org:ada/my.book", Repository("https://bitbucket.org/ada/my.book", "bitbucket")),
        ({}, "", None),
        ({"GITHUB_REPOSITORY": "ada/book"}, "", None),
        ({}, "/srv/git/github.com/ada/book.git", None),
        ({}, "file:///srv/git/book.git", None),
        ({}, "../book", None),
        ({}, "http://127.0.0.1:3000/ada/book.git", None),
        ({}, "git@intranet:ada/book.git", None),
        ({}, "https://github.com.example.org/ada/book", None),
        ({}, "work:ada/book.git", None),
    ],
)
def test_the_address_is_the_workflows_or_the_remotes_or_none(environ, remote, found):
    assert repository(environ, remote) == found


def test_a_checkout_is_asked_for_its_remote_and_a_folder_is_not(tmp_path, monkeypatch):
    for name in ACTIONS:
        monkeypatch.delenv(name, raising=False)
    assert of_checkout(tmp_path) is None
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert of_checkout(tmp_path) is None
    subprocess.run(["git", "remote", "add", "origin", "git@github.com:ada/book.git"], cwd=tmp_path, check=True)
    assert of_checkout(tmp_path) == ADA
    (tmp_path / "within").mkdir()
    assert of_checkout(tmp_path / "within") is None, "the repository around a folder is another one"
    monkeypatch.setenv("PATH", "")
    assert of_checkout(tmp_path) is None, "without git"


def test_only_what_is_on_github_can_be_launched():
    assert set(ADA.launches("book/a")) == {"Colab", "Binder", "Codespaces"}
    assert Repository("https://gitlab.com/ada/book", "gitlab").launches("book/a") == {}


# -- Colab -------------------------------------------------------------------------------------------------------------

FIRST = {
    next(
        cell["source"]
        for cell in read_notebook(path)["cells"]
        if "hqnn_utils" in cell["source"] and cell["cell_type"] == "code"
    )
    for path in runs.chapters().values()
}


def test_all_chapters_begin_alike():
    assert len(FIRST) == 1


@pytest.fixture
def colab(monkeypatch):
    """Plays Colab to the first cell; returns what pip was told."""

    def play(opened: str, working: bool = True) -> list[str]:
        told = []

        class Shell:
            def run_line_magic(self, name, line):
                told.append(f"{name} {line}")

        def answer(address):
            assert address == "http://172.28.0.12:9000/api/sessions"
            return io.BytesIO(json.dumps([{"name": "a.ipynb", "path": f"fileId={quote(opened, safe='')}"}]).encode())

        monkeypatch.setenv("COLAB_JUPYTER_IP", "172.28.0.12")
        monkeypatch.setattr(urllib.request, "urlopen", answer)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: (told and working) or None)
        exec(next(iter(FIRST)), {"get_ipython": Shell})
        return told

    return play


@pytest.mark.parametrize("ref", ["v1.0", "main", "HEAD"])
def test_in_colab_the_first_cell_installs_what_its_page_came_from_and_torch_for_cpus(colab, ref):
    (told,) = colab(f"https://github.com/ada/book/blob/{ref}/book/foundations/pqc.ipynb")
    wanted = (
        f"pip install -q --extra-index-url https://download.pytorch.org/whl/cpu https://github.com/ada/book/archive/{ref}.zip"
    )
    assert told == wanted


@pytest.mark.parametrize(
    ("opened", "working"),
    [("1oXyZ", True), ("https://github.com/ada/book/blob/main/book/foundations/pqc.ipynb", False)],
    ids=["from a drive", "pip fails"],
)
def test_in_colab_a_package_that_could_not_be_had_is_told_of(colab, opened, working):
    with pytest.raises(SystemExit, match="No hqnn_utils: `pip install`"):
        colab(opened, working)


# -- Binder, containers ------------------------------------------------------------------------------------------------


def test_binder_has_a_python_of_the_project_and_the_versions_of_the_lock_with_torch_for_cpus(tmp_path):
    """Its script runs here with a Python that does nothing but write down what it is told."""
    name, version = text(".binder/runtime.txt").strip().split("-")
    assert name == "python" and PYTHONS.contains(version)
    written = f'while [ "$1" != --constraint ]; do shift; done; cp "$2" {tmp_path}/constraints.txt'
    (tmp_path / "python").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n{written}\n')
    (tmp_path / "python").chmod(0o755)
    subprocess.run([ROOT / ".binder/postBuild"], cwd=ROOT, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    told = (tmp_path / "told").read_text().split()
    assert told[:3] == ["-m", "pip", "install"] and told[-2:] == ["--editable", ".[book]"]
    assert told[told.index("--extra-index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    constraints = [Requirement(line) for line in (tmp_path / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    lock = [Requirement(line.rstrip("\\ ")) for line in text("requirements.lock").splitlines() if re.match(r"\w", line)]
    assert constraints == lock and len(lock) > 100
    (torch,) = [one.specifier for one in constraints if one.name == "torch"]
    assert torch.contains(f"{next(iter(torch)).version}+cpu"), "a wheel without CUDA has that version, too"


def test_the_container_for_editors_has_a_python_of_the_project_and_is_set_up_by_make():
    about = json.loads(text(".devcontainer/devcontainer.json"))
    image, version = about["image"].split(":")
    assert image == "mcr.microsoft.com/devcontainers/python" and PYTHONS.contains(version)
    make, *targets = about["postCreateCommand"].split()
    assert make == "make" and set(targets) <= TARGETS
    assert about["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_the_image_has_a_python_of_the_project_and_is_set_up_and_started_by_make():
    steps = [line.split(None, 1) for line in text("Dockerfile").splitlines() if line and line[0] not in "# "]
    image, version = next(rest for name, rest in steps if name == "FROM").split(":")
    assert image == "python" and PYTHONS.contains(version.split("-")[0])
    assert ["RUN", "make setup"] in steps and "setup" in TARGETS
    command, target, *variables = json.loads(steps[-1][1])
    assert steps[-1][0] == "CMD" and command == "make" and target in TARGETS
    assert [name.split("=")[0] for name in variables] == ["ARGS"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    dry = subprocess.run([command, "--dry-run", target, *variables], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert dry.stdout.rstrip().endswith("/jupyter lab book --ip=0.0.0.0 --no-browser")
    assert steps.index(["USER", "reader"]) < steps.index(["RUN", "make setup"]), "not as root"


def test_nothing_private_and_nothing_large_goes_into_the_image():
    left_out = set(text(".dockerignore").splitlines())
    assert {".git", ".venv", "_build", "data/cache", "runs"} <= left_out


# -- publishing --------------------------------------------------------------------------------------------------------


def test_the_workflow_that_publishes_tells_the_build_where_the_pages_will_stand():
    job = yaml.safe_load(text(".github/workflows/publish.yml"))["jobs"]["build"]
    (asked,) = [step for step in job["steps"] if "configure-pages" in step.get("uses", "")]
    (build,) = [step for step in job["steps"] if step.get("run", "") == "make book"]
    assert build["env"] == {"BOOK_ADDRESS": f"${{{{ steps.{asked['id']}.outputs.base_url }}}}"}
    assert any("tools/release.py --check" in step.get("run", "") for step in job["steps"][: job["steps"].index(build)])
    assert job["steps"].index(asked) < job["steps"].index(build) and job["permissions"]["pages"] == "read"
