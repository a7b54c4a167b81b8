"""What a run depends on: its chapter, its parameters, the package and the data; by it a run is named.

Two runs of one name are the same run. The package counts by what its modules say and not by its version, which misses code
that was edited in a checkout, and which a release changes where no code is. Comments, line breaks and prose change no
number, and change no name.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hqnn_utils import files
from hqnn_utils.files import read_notebook

DIGITS = 16
"""Of a name, hexadecimal."""

NO_PART = "cli", "sweeps/"
"""Modules that start runs, or read them, and take no part in one: how their names begin."""


def name(chapter: str, in_force: Mapping[str, object]) -> str:
    """The name of a run, 16 hexadecimal digits.

    Args:
        chapter: the checksum of its code, by `code`.
        in_force: every parameter of the chapter, with the value of this run.
    """
    return _digest([chapter, dict(in_force), package(), data(in_force)])


def code(chapter: Path) -> str:
    """A checksum of what a chapter's code says, without the values that papermill wrote into it.

    Raises:
        ChapterError: the notebook cannot be read.
    """
    cells = [cell for cell in read_notebook(chapter)["cells"] if cell["cell_type"] == "code"]
    return _digest([_said(cell["source"]) for cell in cells if "injected-parameters" not in cell["metadata"]["tags"]])


def data(in_force: Mapping[str, object]) -> str:
    """A checksum of the data sets and weights that parameters name, from the catalogue's checksums of their files.

    `any` stands for all of the catalogue. Empty where no data set is named.
    """
    known = _checksums()
    words = {word for value in in_force.values() for word in (value if isinstance(value, list | tuple) else [value])}
    named = known if "any" in words else {name: sums for name, sums in known.items() if name in words}
    return _digest(named) if named else ""


@cache
def package() -> str:
    """A checksum of what the package's code says."""
    sources = sorted(path for path in files.PACKAGE.rglob("*.py") if files.PACKAGE / "shipped" not in path.parents)
    named = {path.relative_to(files.PACKAGE).with_suffix("").as_posix(): path for path in sources}
    taking_part = {name: path for name, path in named.items() if not name.startswith(NO_PART)}
    return _digest({name: _said(path.read_text(encoding="utf-8")) for name, path in taking_part.items()})


def _said(source: str) -> str:
    """Code without comments and line breaks; as it stands where it is not Python alone."""
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):
        return source


@cache
def _checksums() -> dict[str, list[str]]:
    """Data set → the SHA-256 of its files, as the catalogue declares them."""
    return {name: sorted(_sums(name, entry)) for name, entry in files.table("datasets.toml").items()}


def _sums(name: str, entry: Any) -> Iterator[str]:
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key == "sha256":
                yield value
            elif key == "size":  # of a set with a manifest
                yield from files.place(f"data/manifests/{name}.sha256").read_text(encoding="utf-8").splitlines()
            else:
                yield from _sums(key, value)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]
