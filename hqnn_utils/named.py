"""What a reader names: an attribute of a module that can be imported, or of a file of Python."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from hqnn_utils.errors import BookError


def attribute(named: str) -> Any:
    """What stands at `package.module:attribute` or `path/to/file.py:attribute`; the module is executed for it.

    Raises:
        BookError: another form of name, or there is none: says what happened on the way.
    """
    place, _, name = named.rpartition(":")
    if not place or not name:
        raise BookError(f"expected package.module:attribute or file.py:attribute, got {named!r}")
    try:
        if place.endswith(".py"):
            path = source(named)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        return getattr(module, name)
    except Exception as error:  # what a file of anyone's may raise
        raise BookError(f"{named!r} can't be had ({type(error).__name__}: {error})") from None


def source(named: str) -> Path:
    """The file in which it stands, of a name that `attribute` takes."""
    place = named.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place).expanduser().resolve(strict=True)
    spec = importlib.util.find_spec(place)
    assert spec is not None and spec.origin is not None, f"{place} has no file"
    return Path(spec.origin)
