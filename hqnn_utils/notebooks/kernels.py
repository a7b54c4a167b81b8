"""Kernels that have imported what a chapter imports before it asks.

Importing torch and PennyLane takes a kernel ten seconds. Here one process imports them and runs nothing, and kernels are forks
of it, each ready in less than one second and as fresh as a cold one: random numbers begin anew, and folder, environment,
output and signals are those of whoever asks. After `start` all kernels of this process are warm, whatever runs the notebooks.
They are cold, as usual, where a system has no safe fork, and where the environment differs in what libraries read when they
are imported, such as `OMP_NUM_THREADS`.

The process ends with the one that started it, and its kernels with it, however that ends.
"""

import atexit
import builtins
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import IO, Any

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

import hqnn_utils

LAUNCHER = [sys.executable, "-m", "ipykernel_launcher"]
# Its folder is no place to import from; a kernel will add that of its chapter.
PROGRAM = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import ancestor; ancestor(int(sys.argv[1]))"
READ_LATE = re.compile(
    r"(HQNN|AWS|JPY|PYTEST|PAPERMILL)_\w+|\w+_proxy|TMPDIR|PWD|OLDPWD|COLUMNS|LINES|KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)",
    re.IGNORECASE,
)
"""Variables that nothing reads while it is imported, and two that scikit-learn then sets itself, in whoever asks as in the
ancestor; two kernels that differ in others have no common ancestor."""
Stream = int | IO | None
"""As `Popen` takes one."""


def start() -> None:
    """Begin to import, in a process of its own, what kernels need; this Python's kernels that this process starts are warm."""
    if sys.platform == "linux" and os.getpid() not in _ancestors:
        _ancestors[os.getpid()] = _Ancestor()
        factory = KernelProvisionerFactory.instance()  # by which whatever runs notebooks here starts its kernels
        factory.provisioners["hqnn"] = EntryPoint("hqnn", f"{__name__}:WarmProvisioner", factory.GROUP_NAME)
        factory.default_provisioner_name = "hqnn"


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel as a fork if it can, and else as jupyter_client does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel; returns how to reach it."""
        if not (pid := _forked(cmd, **self._scrub_kwargs(kwargs))):
            return await super().launch_kernel(cmd, **kwargs)
        self.process = _Fork(pid)  # type: ignore[assignment]  # as `Popen`
        self.pid, self.pgid, self.cwd = pid, pid, kwargs.get("cwd") or os.getcwd()
        return self.connection_info


class _Fork:
    """What jupyter_client asks of a kernel's process, which here is no child of the one that asks; as `Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self) -> int | None:
        with suppress(psutil.NoSuchProcess):
            if self._process and self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        return 1  # how it ended, only its parent knows

    def wait(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _forked(
    cmd: list[str],
    env: dict[str, str],
    cwd: str | os.PathLike | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    **others: object,
) -> int | None:
    """The number of a warm kernel's process; `None` if this one must be cold."""
    ancestor = _ancestors.get(os.getpid())
    streams = [_descriptor(stream, own) for own, stream in enumerate((stdin, stdout, stderr))]
    if not ancestor or others or cmd[:3] != LAUNCHER:
        return None
    with open(os.devnull) as nothing:  # what a cold kernel reads, too, when it is given nothing
        streams[0] = nothing.fileno() if stdin is None else streams[0]
        order = {"arguments": cmd[3:], "environment": env, "folder": os.fspath(cwd or os.getcwd())}
        known = [stream for stream in streams if stream is not None]
        return ancestor.fork(order, known) if len(known) == len(streams) else None


def _descriptor(stream: Stream, own: int) -> int | None:
    """The file that a kernel writes to; `None` for a pipe, which only `Popen` makes."""
    number = own if stream is None else stream if isinstance(stream, int) else stream.fileno()
    return number if number >= 0 else None


class _Ancestor:
    """The process whose forks are kernels, and the line to it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready, self._turn = False, threading.Lock()
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C in a terminal is for who started it
            )
        atexit.register(self.close)

    def fork(self, order: dict, streams: list[int]) -> int | None:
        """The number of a new kernel's process; `None` if there can be none with this order."""
        with self._turn:
            try:
                self._ready = self._ready or self._line.recv(16) == b"ready"
                if not self._ready:
                    return None
                socket.send_fds(self._line, [json.dumps(order).encode()], streams)
                return int(self._line.recv(16) or 0) or None
            except OSError:  # it is gone, or the order is longer than a message can be
                return None
            except BaseException:  # an answer that nobody waited for would be taken for the next one's
                self.close()
                raise

    def close(self) -> None:
        """End the process, which may still import, and with it its kernels."""
        self._line.close()
        self._process.kill()
        self._process.wait()


_ancestors: dict[int, _Ancestor] = {}  # by the process they belong to, since a fork of it must have its own


def ancestor(line: int) -> None:
    """Import what chapters import, then fork a kernel for each order; all in the process that `start` makes.

    Whatever an import has to say a kernel must say itself, so then none is forked, and neither if an import started threads.

    Args:
        line: file descriptor of the socket to the process that started this one.
    """
    parent, environment, orders = os.getppid(), dict(os.environ), socket.socket(fileno=line)
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel does before any import
    # Pandas looks, while it is imported, for a terminal to fit its tables into.
    sys.stdout.reconfigure(encoding="UTF-8")  # type: ignore[union-attr]
    vars(builtins)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    _import_all()
    del vars(builtins)["get_ipython"]
    if not os.fork():
        os._exit(0)
    os.wait()
    # OpenBLAS ends its threads before a fork. Any others would be missing in a kernel, with the locks that they hold.
    if len(os.listdir("/proc/self/task")) > 1 or os.fstat(sys.stderr.fileno()).st_size:
        return
    gc.freeze()  # what is never collected is never copied
    orders.send(b"ready")
    while os.getppid() == parent:
        if select.select([orders], [], [], 1.0)[0]:
            message, streams, *_ = socket.recv_fds(orders, 1 << 20, 3)
            if not message:
                return
            order = json.loads(message) | {"parent": os.getpid()}
            same = _read_early(order["environment"]) == _read_early(environment)
            if same and not (pid := os.fork()):
                return _become_kernel(order, streams, orders)
            orders.send(str(pid if same else 0).encode())
            for stream in streams:
                os.close(stream)
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def _import_all() -> None:
    """All of the package but the command line and what needs an extra; and what its functions import when they are called.

    Torch imports its compilers, which take six seconds, when the first circuit is traced.
    """
    for module in pkgutil.walk_packages(hqnn_utils.__path__, "hqnn_utils."):
        if not re.match(r"hqnn_utils\.(cli|hardware)\b", module.name):
            importlib.import_module(module.name)
    for name in ("ipykernel.kernelapp", "pandas", "pennylane", "scipy.stats", "sklearn.linear_model", "torch._inductor"):
        importlib.import_module(name)


def _read_early(environment: dict) -> dict:
    return {name: value for name, value in environment.items() if not READ_LATE.fullmatch(name)}


def _become_kernel(order: dict, streams: list[int], orders: socket.socket) -> None:
    """Be in a fork what `python -m ipykernel_launcher` is in a process of its own."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, since ipykernel looks for its parent only later
    if os.getppid() != order["parent"]:
        return
    import ipykernel_launcher
    import numpy as np
    import torch
    from ipykernel.kernelapp import launch_new_instance

    orders.close()
    os.setsid()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    np.random.seed()  # Python's own generator does so by itself
    torch.default_generator.seed()
    sys.argv[:] = [ipykernel_launcher.__file__, *order["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    launch_new_instance()
