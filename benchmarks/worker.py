"""One environment's systems, timed on request: a JSON line in, a JSON line out. Started by layer.py.

The first line out says what runs here. Then each line in names a step, `{"system", "case", "n", "depth", "batch",
"repeats"}`, and is answered by `{"seconds": […]}`, one number for each repetition, or by `{"error": "…"}`. A step is built,
compiled, checked and warmed up when it is first asked for; between requests the process waits and uses no processor.
"""

import json
import os
import sys
from pathlib import Path

# One thread for everyone, said before anything is imported. XLA counts the processors it may use, so it gets one.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
# Compiling takes longer than timing, and the second run need not wait for it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(sys.prefix) / "jax-cache"))

import importlib.metadata
import platform
import warnings
from functools import lru_cache
from time import perf_counter

import systems
import torch

PACKAGES = ("torch", "pennylane", "pennylane-lightning", "numpy", "jax", "tensorcircuit-ng", "pyqtorch", "deepquantum")

build = lru_cache(maxsize=2 * len(systems.SYSTEMS))(systems.build)


def about() -> dict:
    """Versions and threads, for the results."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "threads": torch.get_num_threads(), "versions": versions}


def answer(request: dict) -> dict:
    repeats = request.pop("repeats")
    name = request.pop("system")
    try:
        step = build(name, **request)
    except Exception as error:  # whatever goes wrong in a system is the reason why it has no time
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    if repeats > 1:  # other processes have had the caches meanwhile
        step()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        step()
        seconds.append(perf_counter() - start)
    return {"seconds": seconds}


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # What a system prints must not get between the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(about()), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
