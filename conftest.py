"""How the chapters are checked: nbval runs every cell again, compares results within their tolerance, and figures by look."""

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from chapters import missing_data
from PIL import Image

from hqnn_utils import files
from hqnn_utils.datasets import catalogue
from hqnn_utils.notebooks import kernels, results

# Kernels run in their notebook's folder, where a relative data root would point elsewhere.
if os.environ.get("HQNN_DATA"):
    os.environ["HQNN_DATA"] = str(catalogue.root().resolve())


def pytest_report_header() -> str:
    return f"hqnn_utils: {'that of the checkout' if files.CHECKOUT else 'installed'}, {files.PACKAGE}"


try:
    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell
except ImportError:  # without nbval there are no notebook items to compare
    IPyNbCell = None


def _is_progress(output: dict) -> bool:
    """Whether an output is a progress bar, which moves at its own pace (and `hqnn run` does not keep)."""
    return output.get("name") == "stderr" and "\r" in output["text"]


def compare_with_tolerance(cell, test: list, ref: list, skip_compare=None) -> bool:
    """nbval's comparison, but results must agree within their tolerance, and figures by look; the record is left out."""
    committed, found = (results.in_outputs(outputs) for outputs in (ref, test))
    apart = [
        f"{name}: committed {result.value!r} ± {result.tolerance}, found {getattr(found.get(name), 'value', 'nothing')!r}"
        for name, result in committed.items()
        if name not in found or not result.agrees(found[name])
    ] + [f"{name}: not in the committed outputs" for name in found.keys() - committed.keys()]
    old, new = ([o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})] for outputs in (ref, test))
    if len(old) != len(new):
        apart.append(f"{len(old)} figures committed, {len(new)} found")
    apart += [f"figure {n}: {why}" for n, pair in enumerate(zip(old, new), 1) if (why := different(*pair))]  # noqa: B905
    if apart:
        cell.comparison_traceback = apart
        return False
    kept = [[o for o in outputs if not results.is_record(o) and not _is_progress(o)] for outputs in (test, ref)]
    return compare_exactly(cell, *kept, (*(skip_compare or cell.parent.skip_compare), "image/svg+xml"))  # the PNG's figure


ALIKE = 0.8
"""Two runs' figures have an `ink` that correlates by more; those of different cells of the book by less, but for one pair."""


def different(committed: str, found: str) -> str:
    """Why two figures are not the same picture, within what a clock or another machine's fonts move; empty if they are."""
    old, new = (Image.open(io.BytesIO(base64.b64decode(png))) for png in (committed, found))
    if any(abs(a - b) > 0.05 * a for a, b in zip(old.size, new.size, strict=True)):
        return f"committed with {old.size} pixels, found with {new.size}"
    inks = ink(old), ink(new)
    if min(np.ptp(one) for one in inks) == 0:
        return "one of them is blank"
    alike = np.corrcoef(*map(np.ravel, inks))[0, 1]
    return "" if alike > ALIKE else f"their ink correlates by {alike:.2f} only"


def ink(image: Image.Image) -> np.ndarray:
    """Where a figure is not white, and in which colour, coarsely: `(48, 48, 3)`."""
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return 255.0 - np.asarray(ground.convert("RGB").resize((48, 48), Image.Resampling.BOX))


def execute_with_history(kernel, source: str, allow_stdin=None) -> str:
    """nbval's execution, but kept in IPython's history as everywhere else: chapters read their declared parameters there."""
    return kernel.kc.execute(source, allow_stdin=allow_stdin, stop_on_error=False)


if IPyNbCell is not None:
    RunningKernel.execute_cell_input = execute_with_history
    compare_exactly = IPyNbCell.compare_outputs
    IPyNbCell.compare_outputs = compare_with_tolerance


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if IPyNbCell is not None and isinstance(item, IPyNbCell) and (reason := missing_data(item.path)):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if IPyNbCell is not None and isinstance(item, IPyNbCell) and not item.get_closest_marker("skip"):
        started.add(item.path)
        if len(started) > 1:  # one kernel alone is as fast without
            kernels.start()


started: set[Path] = set()
"""The notebooks of which cells were run."""
