"""Which chapters can be run here."""

from functools import cache
from pathlib import Path

from hqnn_utils.datasets import catalogue
from hqnn_utils.notebooks import parameters


@cache
def missing_data(notebook: Path) -> str:
    """Why a chapter cannot be run here with its default parameters; empty if it can."""
    declared = {name: p.default for name, p in parameters.of(notebook).items()}
    names = declared.get("datasets", [declared[one] for one in ("dataset", "photographs") if one in declared])
    sets = [name for name, entry in catalogue.entries().items() if entry.kind != "weights"]
    for name in sets if names == ["any"] else names:
        if "missing" in catalogue.entry(name).verify().values():  # altered files are no reason: the chapter will say so
            return f"{name} is not under {catalogue.root()}: `hqnn data fetch {name}`"
    return ""
