"""The package as others install it: from a wheel, without the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from chapters import missing_data

from hqnn_utils.notebooks import runs

ROOT = Path(__file__).parents[2]
HQNN = Path(sys.executable).parent / "hqnn"
LEFT = [  # what git does not track, and a killed run, an editor or Python leaves
    "book/.hqnn-host-1-abc.part.ipynb",
    "book/foundations/.pqc-x1.ipynb",
    "book/foundations/.ipynb_checkpoints/pqc-checkpoint.ipynb",
    "book/foundations/pqc.ipynb.bak",
    "hqnn_utils/.hqnn-host-1-abc.part.py",
    "hqnn_utils/__pycache__/cli.cpython-311.pyc",
    "data/cache/features/few/00000.f32",
    "data/manifests/.hqnn-host-1-abc.part.sha256",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of this checkout in which work was done."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for part in ("hqnn_utils", "book", "data", "benchmarks"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("cache", "__pycache__", ".*"))
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / file, source)
    for file in LEFT:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text("left behind")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", built]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = built.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder of packages that holds the wheel's, as `site-packages` would."""
    folder = tmp_path_factory.mktemp("installed")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def alone(installed, tmp_path, monkeypatch):
    """Runs a command as a user of the installed package does, from elsewhere; checks that nothing is written into it."""
    for name in ("HQNN_DATA", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)

    def contents() -> dict[Path, float]:
        files = [path for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {path: path.stat().st_mtime for path in files}

    before = contents()
    yield lambda *command: subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert contents() == before


def test_a_wheel_holds_the_package_the_chapters_and_the_tables_and_nothing_that_was_left_behind(wheel):
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hqnn_utils").rglob("[!.]*.py")} | {"hqnn_utils/py.typed"}
    tables = "data/**/[!.]*.toml", "data/results/[!.]*", "data/manifests/[!.]*", "benchmarks/[!.]*.json"
    for pattern in ("book/*/[!.]*.ipynb", *tables):
        wanted |= {f"hqnn_utils/shipped/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob(pattern)}
    assert names == wanted


def test_what_chapters_read_is_in_the_wheel(installed):
    read = set()
    for chapter in (ROOT / "book").rglob("[!.]*.ipynb"):
        read |= set(re.findall(r'files\.place\(\\"(.+?)\\"\)', chapter.read_text(encoding="utf-8")))
    assert read and not [name for name in read if not (installed / "hqnn_utils" / "shipped" / name).is_file()]


CHAPTERS = """
import json, sys, tomllib
from pathlib import Path
from papermill import execute_notebook
from hqnn_utils import files
from hqnn_utils.notebooks import kernels, parameters, results, runs

assert files.CHECKOUT is None
kernels.start()
brief = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
for path in runs.copy(Path("mine")):
    if path.stem not in sys.argv[2:]:
        continue
    declared = parameters.of(path)
    digits = {"dataset": "digits", "datasets": ["digits"]}
    given = brief.get(path.stem, {}) | {name: digits[name] for name in declared if name in digits}
    out = path.with_suffix(".out.ipynb")
    execute_notebook(path, out, given, progress_bar=False)
    found = {name: result.value for name, result in results.of(out).items()}
    print(json.dumps([path.stem, results.run_of(out)["finished"], found]), flush=True)
"""


def test_plain_papermill_runs_copies_on_digits_of_what_make_test_cannot_run_from_its_wheel(alone, tmp_path):
    """All chapters whose data are not here, and three that are run by either."""
    chosen = {name for name, path in runs.chapters().items() if missing_data(path)} | {
        "pqc",
        "quantum_classifier",
        "your_data",
    }
    done = alone(sys.executable, "-c", CHAPTERS, ROOT / "tests" / "brief.toml", *chosen)
    assert done.returncode == 0, done.stderr[-3000:]
    said = {name: (finished, found) for name, finished, found in map(json.loads, done.stdout.splitlines())}
    assert said.keys() == chosen
    for name, (finished, found) in said.items():
        assert finished and found.get("dataset", "digits") in ("digits", "wine"), name  # what comes with scikit-learn
        assert 0.5 < found.get("quantum_test_accuracy", 1) <= 1, name
    assert not (tmp_path / "user_cache" / "hqnn").exists() or not list((tmp_path / "user_cache" / "hqnn").glob("mnist*"))


def test_the_classifier_runs_on_digits_where_the_package_is_installed(alone, tmp_path):
    brief = tomllib.loads((ROOT / "tests" / "brief.toml").read_text(encoding="utf-8"))["quantum_classifier"]
    given = [str(word) for name, value in {"dataset": "digits", **brief}.items() for word in ("-p", name, value)]
    done = alone(HQNN, "run", "quantum_classifier", *given)
    assert done.returncode == 0 and re.search(r"^dataset +digits$", done.stdout, re.MULTILINE), done.stderr


def test_an_installed_package_lists_its_chapters_and_refuses_what_they_do_not_know(alone):
    listed, refused = alone(HQNN, "list"), alone(HQNN, "run", "pqc", "-p", "nosuch", "1")
    assert "Parameterized quantum circuits" in listed.stdout and "quantum_entanglement" in listed.stdout
    assert refused.returncode == 2 and "nosuch" in refused.stderr and "Traceback" not in refused.stderr


FEATURES = """
import numpy as np, torch
from PIL import Image
from pathlib import Path
from torchvision.models import resnet18
from hqnn_utils import files
from hqnn_utils.datasets import backbone, catalogue
from hqnn_utils.datasets.photos import Photos
assert files.CHECKOUT is None
Image.new("RGB", (8, 8)).save("0.png")
backbone.resnet18 = lambda weights: resnet18(weights=None).eval()
backbone.features(Photos("few", ["a"], [Path("0.png")], np.zeros(1, int), np.array(["train"]), "sha"))
print(catalogue.root())
"""


def test_what_an_installed_package_keeps_lies_in_the_users_cache(alone, tmp_path):
    done = alone(sys.executable, "-c", FEATURES)
    assert done.stdout.strip() == str(tmp_path / "user_cache" / "hqnn"), done.stderr
    assert len(list((tmp_path / "user_cache" / "hqnn" / "features").glob("few-*.kept"))) == 1


def test_an_installed_package_runs_a_chapter_and_writes_its_output_where_one_is(alone, tmp_path):
    done = alone(HQNN, "run", "pqc", "-p", "theta", "0.3")
    assert done.returncode == 0, done.stderr
    (output,) = (tmp_path / "runs").glob("[!.]*.ipynb")
    assert str(Path("runs") / output.name) in done.stdout
    assert os.listdir(tmp_path / "runs") == [output.name]
