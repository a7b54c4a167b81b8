"""What the tests share: how hard hypothesis looks, the real MNIST, and a pen for small notebooks."""

import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run: a red test stays red until it is mended. The first example pays for PennyLane's start.
settings.register_profile(
    "book", max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("book")


@pytest.fixture(scope="session")
def mnist():
    """Skips a test that needs the real MNIST files, with the reason, where they are not at hand."""
    from hqnn_utils.datasets.catalogue import entry  # here, so that a type checker hooked in by pytest sees the import

    wanting = {file: state for file, state in entry("mnist").verify().items() if state != "ok"}
    if wanting:
        pytest.skip(f"needs intact MNIST files in {entry('mnist').folder}, got {wanting}: try `hqnn data fetch mnist`")


@pytest.fixture(scope="session")
def write_notebook():
    """Writes a notebook of code cells to a path and returns the path; `parameters` becomes the tagged first cell."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    def write(path: Path, *sources: str, parameters: str = "") -> Path:
        tagged = [new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=tagged + [new_code_cell(s) for s in sources], metadata={"kernelspec": kernel})
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return write


@pytest.fixture(scope="session")
def in_process() -> Callable[..., CompletedProcess]:
    """Runs a command of click here, where all is imported that a process of its own would import; variables go by names."""
    from click.testing import CliRunner

    def run(command, *arguments: object, **environment: str) -> CompletedProcess:
        asking = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        handlers = [signal.getsignal(number) for number in asking]
        try:
            done = CliRunner().invoke(command, [*map(str, arguments)], env=environment)
        finally:
            for number, handler in zip(asking, handlers, strict=True):
                signal.signal(number, handler)
        trace = "" if isinstance(done.exception, SystemExit | None) else "".join(traceback.format_exception(done.exception))
        return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr + trace)

    return run


@pytest.fixture(scope="session")
def hqnn(in_process) -> Callable[..., CompletedProcess]:
    """The command `hqnn`."""
    from hqnn_utils.cli import main

    return partial(in_process, main)


@pytest.fixture
def unchecked():
    """Shapes of annotations are not checked in a test that hands the package to a compiler, which would trace the checks."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
