"""Where things lie, in a checkout or an installed package, and how they are written: whole, or not at all."""

import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import platformdirs
import psutil

from hqnn_utils.errors import ChapterError, DataError

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The checkout that this package is used from; `None` where it was installed from a wheel."""


def place(name: str) -> Path:
    """Where a file or folder of the repository lies, e.g. `"data/datasets.toml"`; a wheel carries its own copy."""
    return (CHECKOUT or PACKAGE / "shipped") / name


def table(name: str) -> dict:
    """A TOML file of `data/`."""
    return tomllib.loads(place(f"data/{name}").read_text(encoding="utf-8"))


def read_notebook(path: Path) -> dict:
    """A notebook, plainly as JSON: nbformat takes a second to import, which a refusal need not wait for.

    Raises:
        ChapterError: the file cannot be read, or is no notebook.
    """
    try:
        return parse_notebook(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ChapterError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        return parse_notebook("", path)


def parse_notebook(text: str, path: object) -> dict:
    """As `read_notebook`, of the text of a notebook from a place that an error names."""
    try:
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            cell["source"], cell["metadata"] = "".join(cell["source"]), dict(cell["metadata"])
            cell["metadata"]["tags"] = list(cell["metadata"].get("tags", []))
        return {"cells": notebook["cells"], "metadata": dict(notebook["metadata"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ChapterError(f"{path} is no notebook: a chapter is an .ipynb file, see `hqnn run --help`") from None


def cache() -> Path:
    """The folder for what can be fetched or computed again: `data/cache/` of the checkout, else the user's cache folder."""
    return CHECKOUT / "data" / "cache" if CHECKOUT else platformdirs.user_cache_path("hqnn")


def root() -> Path:
    """The data root: `$HQNN_DATA` if set and not empty, else `cache()`; absolute.

    Raises:
        DataError: `$HQNN_DATA` cannot be the name of a folder here.
    """
    given = os.environ.get("HQNN_DATA") or cache()
    try:
        folder = Path(given).expanduser().absolute()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError("it is a file")
    except (RuntimeError, OSError) as error:  # no such user; too long a name, or one that may not be looked up
        why = getattr(error, "strerror", None) or error
        raise DataError(f"HQNN_DATA is {given!s:.80}, which cannot be used: {why}; set it to a folder") from None
    return folder


@contextmanager
def scratch(folder: Path, suffix: str = "") -> Iterator[Path]:
    """An empty file in `folder`, removed at the end.

    What a killed process left of this kind in the same folder is removed at the start. The file can be read by whom the umask
    says, unlike those of `tempfile`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    temporary = folder / f".hqnn-{_host()}-{os.getpid()}-{uuid4().hex[:8]}.part{suffix}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A `scratch` file beside `path`, which takes its place at the end; after an error `path` is as it was.

    What is written is on the disk before it is renamed, so `path` is whole or old even if the power fails.
    """
    with scratch(path.parent, path.suffix) as temporary:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, as `beside`; text as UTF-8."""
    with beside(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk; does nothing where a system cannot."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def clear_leftovers(folder: Path) -> None:
    """Remove what `scratch` left in a folder when its process was killed: files of this machine whose process is gone."""
    for file in folder.glob(f".hqnn-{_host()}-*.part*"):
        owner = re.fullmatch(r"(\d+)-\w+\.part.*", file.name.removeprefix(f".hqnn-{_host()}-"))
        if owner and not psutil.pid_exists(int(owner[1])):
            file.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())[:40]
