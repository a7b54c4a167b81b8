"""Whatever runs a chapter, its parameters are held against what it declares, and its results are recorded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PARAMETERS = "%%time\ntheta: float = {}  # the angle, in [-10, 10]\nshots: int = 10**2  # measurements, in [1, 1000]"
CHAPTER = """
from hqnn_utils.notebooks.parameters import check_parameters
check_parameters(globals())
print(f"result {theta + 1}")
"""
FRONT_ENDS = {
    "papermill": "papermill {path} out.ipynb --inject-paths -p shots 7; cat out.ipynb",
    "hqnn run": "hqnn run {path} -o out.ipynb; cat out.ipynb",
    "nbclient": "jupyter execute {path} --output=out.ipynb; cat out.ipynb",
    "nbconvert": "jupyter nbconvert --to notebook --execute {path} --stdout",
    "a script": "jupyter nbconvert --to python {path}; python small.py",
    "%run": "ipython --colors=nocolor -c '%run {path}'",
}
"""Commands of the shell, each in a folder of its own."""


@pytest.fixture(scope="module")
def finished(write_notebook, tmp_path_factory) -> dict:
    """What each front end said of a good and of a bad value, all of them at once."""

    def start(name: str, command: str, theta: str) -> subprocess.Popen:
        folder = tmp_path_factory.mktemp("front")
        parameters = PARAMETERS if name != "a script" else PARAMETERS.removeprefix("%%time\n")
        path = write_notebook(folder / "small.ipynb", CHAPTER, parameters=parameters.format(theta))
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PAGER": "cat"}
        return subprocess.Popen(command.format(path=path.name), shell=True, cwd=folder, env=env, **pipes)

    started = {(name, theta): start(name, c, theta) for name, c in FRONT_ENDS.items() for theta in ("2 * 3", "99.0")}
    return {key: process.communicate(timeout=240)[0] for key, process in started.items()}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_chapter_runs_everywhere(finished, name):
    assert "result 7" in finished[name, "2 * 3"]


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_bad_parameter_is_refused_everywhere(finished, name):
    said = finished[name, "99.0"]
    assert "parameter theta = 99.0 refused: allowed is in [-10, 10]" in said and "result 100" not in said
