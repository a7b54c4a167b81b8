"""What a chapter found: results recorded in the executed notebook, and read back from it."""

import ast
from dataclasses import dataclass
from pathlib import Path

from hqnn_utils.parameters import read


def glue(name: str, value: float | int | str, unit: str = "", tolerance: float = 0.0) -> None:
    """Record a result in the executed notebook, where prose can quote it and `results` reads it back.

    Args:
        name: of the result; prose quotes it as `{glue:text}`.
        value: a number or a string; numpy and torch scalars become plain numbers, which a format such as `:.3f` needs.
        unit: of the value, e.g. `"s"`.
        tolerance: by how much a run on another machine may differ, in the same unit.

    The output has the form that scrapbook defined and MyST-NB reads, plus unit and tolerance.
    """
    from IPython.display import display

    value = value.item() if hasattr(value, "item") else value
    prefix = "application/papermill.record/"  # stored, not shown
    scrap = {"scrapbook": {"name": name, "mime_prefix": prefix}, "hqnn": {"unit": unit, "tolerance": tolerance}}
    display({f"{prefix}text/plain": repr(value)}, raw=True, metadata=scrap)


@dataclass(frozen=True)
class Result:
    """A number or a string that a chapter glued."""

    value: object
    unit: str
    tolerance: float

    def agrees(self, other: "Result") -> bool:
        """Whether another run's result is the same within the tolerance that this one declares."""
        if isinstance(self.value, str) or isinstance(other.value, str):
            return self.value == other.value
        return self.value == other.value or abs(self.value - other.value) <= self.tolerance


def scrap(output: dict) -> tuple[str, Result] | None:
    """Name and result of a notebook output that `glue` made, or None for any other output."""
    metadata = output.get("metadata", {})
    if "hqnn" not in metadata:
        return None
    text = "".join(output["data"][metadata["scrapbook"]["mime_prefix"] + "text/plain"])
    facts = metadata["hqnn"]
    value = float(text) if text in ("nan", "inf", "-inf") else ast.literal_eval(text)
    return metadata["scrapbook"]["name"], Result(value, facts["unit"], float(facts["tolerance"]))


def of(path: Path) -> dict[str, Result]:
    """Everything that an executed notebook glued, by name."""
    outputs = [output for cell in read(path)["cells"] for output in cell.get("outputs", [])]
    return dict(found for output in outputs if (found := scrap(output)))


def record(path: Path) -> dict:
    """What `run` recorded in a notebook: chapter, parameters, date, wall time in seconds, cores, versions; or nothing."""
    return read(path)["metadata"].get("hqnn", {})
