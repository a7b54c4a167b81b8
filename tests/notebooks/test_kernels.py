"""A warm kernel is a fresh one: nothing but the time it takes tells it from a cold one."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from jupyter_client.manager import KernelManager
from running import is_alive, until

from hqnn_utils.notebooks import kernels, runs

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all kernels are cold")
pytestmark = linux


@contextmanager
def kernel(**options):
    """A kernel and what executes a cell in it: the text that the cell prints, or its error's name."""
    with runs._sockets() as connection:
        manager = KernelManager(**connection)
        yield from _started(manager, options)


def _started(manager: KernelManager, options: dict):
    manager.start_kernel(**{"stderr": subprocess.DEVNULL} | options)
    client = manager.client()
    client.start_channels()

    def run(cell: str) -> str:
        said = []

        def hear(message: dict) -> None:
            content = message["content"]
            said.append(content.get("text") or content.get("ename") or " ".join(content.get("data", [])))

        client.execute_interactive(cell, output_hook=hear, timeout=120)
        return "".join(said)

    try:
        client.wait_for_ready(timeout=120)
        yield manager, run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(autouse=True, scope="module")
def ancestor():
    """One that knows the variables of now: imports of other tests set some, and kernels that differ in them are cold."""
    if earlier := kernels._ancestors.pop(os.getpid(), None):
        earlier.close()


@contextmanager
def warm(**options):
    kernels.start()
    with open(os.devnull, "w") as nothing, kernel(**{"stderr": nothing} | options) as (manager, run):
        assert is_warm(manager)
        yield manager, run


def is_warm(manager: KernelManager) -> bool:
    return isinstance(manager.provisioner.process, kernels._Fork)


STATE = """
import gc, json, locale, logging, os, resource, signal, sys, threading, warnings
import matplotlib, matplotlib.pyplot as plt, numpy, pandas, torch
import hqnn_utils.notebooks.figures
plt.plot([1, 2])
print(json.dumps({
    "argv": [os.path.basename(word) for word in sys.argv[:2]], "path": sys.path, "folder": os.getcwd(),
    "environment": {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"},
    "signals": {str(n): str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
    "mask": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "threads": sorted(thread.name.partition("-")[0] for thread in threading.enumerate()),
    "matplotlib": {name: str(value) for name, value in matplotlib.rcParams.items()} | {"shows": plt.isinteractive()},
    "pandas": pandas.describe_option(_print_desc=False), "numpy": [numpy.geterr(), repr(numpy.get_printoptions())],
    "torch": [torch.get_num_threads(), torch.get_num_interop_threads(), str(torch.get_default_dtype())],
    "logs": str(logging.root.handlers), "locale": locale.getlocale(), "flags": str(sys.flags), "gc": gc.get_threshold(),
    "group": [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()], "umask": os.umask(0o022),
    "limits": [resource.getrlimit(n) for n in range(10)], "name": __name__, "files": len(os.listdir("/proc/self/fd")) < 40,
    "streams": [type(stream).__name__ for stream in (sys.stdin, sys.stdout, sys.stderr)], "caches": %s,
}))
"""
CACHES = """sum(
    f.cache_info().currsize for name, module in list(sys.modules.items()) if name.startswith("hqnn_utils")
    for f in vars(module).values() if hasattr(f, "cache_info")
)"""


def test_a_warm_kernel_is_as_a_cold_one(tmp_path):
    before = kernels._ancestors.pop(os.getpid(), None)
    with kernel(cwd=tmp_path) as (manager, run):
        assert not is_warm(manager)
        cold = run(STATE % CACHES)
    kernels._ancestors.update({os.getpid(): before} if before else {})
    with warm(cwd=tmp_path) as (_, run):
        found = run(STATE % CACHES)
    (cold, figure), (found, same_figure) = (said.split("\n") for said in (cold, found))
    assert json.loads(found) == json.loads(cold)
    assert "image/png" in figure and same_figure == figure


def test_a_warm_kernel_shows_a_figure_of_the_house_as_a_picture_and_as_a_drawing():
    cells = "from hqnn_utils.notebooks import figures; figures.style()", "figures.curves([0, 1], {'a': [0, 1]}, 'x', 'y');"
    with warm() as (_, run):
        said = [run(cell) for cell in cells][-1]
    assert "image/png" in said and "image/svg+xml" in said


def test_every_warm_kernel_has_random_numbers_of_its_own():
    cell = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    drawn = []
    for _ in range(2):
        with warm() as (_, run):
            drawn += run(cell).split()
    assert len(set(drawn)) == 6


def test_a_warm_kernel_imports_hardly_a_module_to_trace_its_first_circuit():
    setup = "import sys, torch; from hqnn_utils.quantum.layers import QuantumLayer; before = set(sys.modules)"
    with warm() as (_, run):
        run(setup)
        late = run("QuantumLayer(2, 1)(torch.zeros(1, 2)); print(len(set(sys.modules) - before))")
    assert int(late) < 20  # of nine hundred


def test_what_one_kernel_changes_the_next_does_not_see(tmp_path):
    change = "import torch, matplotlib; torch.set_default_dtype(torch.float64); matplotlib.rcParams['lines.linewidth'] = 9"
    with warm() as (_, run):
        run(change + "; hqnn_left = 1")
    with warm() as (_, run):
        assert run("import torch, matplotlib; print(torch.get_default_dtype(), matplotlib.rcParams['lines.linewidth'])") == (
            "torch.float32 1.5\n"
        )
        assert run("hqnn_left") == "NameError"


def test_a_warm_kernel_has_the_folder_the_variables_and_the_streams_of_who_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("HQNN_DATA", "there")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with (tmp_path / "log").open("w") as log, warm(cwd=tmp_path, stdout=log, stderr=log) as (_, run):
        asked = "import os, tempfile; print(os.getcwd(), os.environ['HQNN_DATA'], tempfile.gettempdir())"
        assert run(asked) == f"{tmp_path} there {tmp_path}\n"
        run("import subprocess, sys; subprocess.run(['sh', '-c', 'echo out; echo err >&2; cat'])")
    assert {"out", "err"} <= set((tmp_path / "log").read_text().split())


def test_an_interrupt_ends_a_cell_and_a_kill_the_kernel_and_what_it_started():
    with warm() as (manager, run):
        threading.Timer(1.0, manager.interrupt_kernel).start()
        assert run("import time; time.sleep(60)") == "KeyboardInterrupt"
        child = int(run("import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"))
        assert manager.is_alive()
    assert until(lambda: not (is_alive(child) or is_alive(manager.provisioner.pid) or manager.is_alive()), 30)


def test_a_kernel_that_dies_is_seen_to_be_dead():
    with warm() as (manager, _):
        os.kill(manager.provisioner.pid, signal.SIGKILL)
        assert until(lambda: not manager.is_alive(), 30)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "PYTHONPATH"])
def test_a_kernel_with_another_environment_for_imports_is_cold(name, monkeypatch):
    kernels.start()
    monkeypatch.setenv(name, f"{os.environ.get(name, '')}1")
    with kernel() as (manager, _):
        assert not is_warm(manager)


OBSTACLES = {
    "a warning": "print('deprecated', file=sys.stderr)",
    "a thread": "__import__('threading').Thread(target=__import__('time').sleep, args=[60], daemon=True).start()",
    "an error": "1 / 0",
}


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_if_an_import_speaks_or_starts_threads_or_fails_kernels_are_cold(obstacle, monkeypatch):
    program = f"import sys; from {kernels.__name__} import ancestor; from hqnn_utils.notebooks import kernels as k; "
    monkeypatch.setattr(kernels, "PROGRAM", program + f"k._import_all = lambda: {obstacle}; ancestor(int(sys.argv[1]))")
    alone = kernels._Ancestor()
    assert alone.fork({"environment": dict(os.environ)}, [0, 1, 2]) is None
    alone.close()


OWNER = """
import os, sys, time
from jupyter_client.manager import KernelManager
from hqnn_utils.notebooks import kernels
nothing = "sys.modules['hqnn_utils.notebooks.kernels']._import_all = int"
kernels.PROGRAM = kernels.PROGRAM.replace("; ancestor", f"; {nothing}; ancestor")
kernels.start()
manager = KernelManager(transport="ipc")
manager.start_kernel()
print(type(manager.provisioner.process).__name__, kernels._ancestors[os.getpid()]._process.pid, manager.provisioner.pid)
sys.stdout.flush()
if sys.argv[1] == "KILL":
    time.sleep(60)
"""


@pytest.mark.parametrize("end", ["KILL", "its own"])
def test_nothing_outlives_the_process_that_started_it(end, tmp_path):
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    with subprocess.Popen([sys.executable, "-c", OWNER, end], **pipes) as owner:
        kind, *pids = owner.stdout.readline().split()
        if end == "KILL":
            owner.kill()
    assert kind == "_Fork" and len(pids) == 2
    assert until(lambda: not any(is_alive(int(pid)) for pid in pids), 30)
