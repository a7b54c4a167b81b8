"""How the chapters are checked: nbval runs every cell again, and results are compared with the tolerance they declare."""

import os
from functools import cache
from pathlib import Path

import pytest

from hqnn_utils import catalogue, parameters, results

# Kernels run in their notebook's folder, where a relative data root would point elsewhere.
if root := os.environ.get("HQNN_DATA"):
    os.environ["HQNN_DATA"] = str(Path(root).expanduser().resolve())

try:
    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell
except ImportError:  # without nbval there are no notebook items to compare
    IPyNbCell = None


def _is_progress(output: dict) -> bool:
    """Whether an output is a progress bar, which moves at its own pace (and `hqnn run` does not keep)."""
    return output.get("name") == "stderr" and "\r" in output["text"]


def compare_with_tolerance(cell, test: list, ref: list, skip_compare=None) -> bool:
    """nbval's comparison, but for glued results: those must agree within the tolerance of the committed one."""
    committed, found = (dict(filter(None, map(results.scrap, outputs))) for outputs in (ref, test))
    apart = [
        f"{name}: committed {result.value!r} ± {result.tolerance}, found {getattr(found.get(name), 'value', 'nothing')!r}"
        for name, result in committed.items()
        if name not in found or not result.agrees(found[name])
    ] + [f"{name}: not in the committed outputs" for name in found.keys() - committed.keys()]
    if apart:
        cell.comparison_traceback = apart
        return False
    kept = [[o for o in outputs if not results.scrap(o) and not _is_progress(o)] for outputs in (test, ref)]
    return compare_exactly(cell, *kept, skip_compare)


def execute_with_history(kernel, source: str, allow_stdin=None) -> str:
    """nbval's execution, but kept in IPython's history as everywhere else: chapters read their declared parameters there."""
    return kernel.kc.execute(source, allow_stdin=allow_stdin, stop_on_error=False)


if IPyNbCell is not None:
    RunningKernel.execute_cell_input = execute_with_history
    compare_exactly = IPyNbCell.compare_outputs
    IPyNbCell.compare_outputs = compare_with_tolerance


@cache
def missing_data(notebook: Path) -> str:
    """Why a chapter cannot be run here with its default parameters; empty if it can."""
    declared = {name: p.default for name, p in parameters.of(notebook).items()}
    for name in declared.get("datasets", [declared[one] for one in ("dataset",) if one in declared]):
        if set(catalogue.verify(name).values()) != {"ok"}:
            return f"{name} is not under {catalogue.root()}: `hqnn data fetch {name}`"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if IPyNbCell is not None and isinstance(item, IPyNbCell) and (reason := missing_data(item.path)):
            item.add_marker(pytest.mark.skip(reason=reason))
