"""The source of the book within the built book: whoever has the pages has all that makes them."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pathspec import GitIgnoreSpec
from public_address import git
from sphinx.application import Sphinx

NAME = "hqnn-book-source.zip"


def files(root: Path) -> list[str]:
    """What belongs to the source, sorted: what git tracks, or where there is no git, what `.gitignore` lets through."""
    names = git(root, "ls-files", "-z").split("\0")
    return sorted(name for name in filter(None, names) if (root / name).is_file()) or sorted(_not_ignored(root))


def _not_ignored(root: Path) -> Iterator[str]:
    """Without a look into folders that are ignored: `.venv` has a hundred thousand files."""
    ignored = GitIgnoreSpec.from_lines([".git", *(root / ".gitignore").read_text(encoding="utf-8").splitlines()])
    for folder, folders, names in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not ignored.match_file(f"{(here / name).as_posix()}/")]
        yield from (path for name in names if not ignored.match_file(path := (here / name).as_posix()))


def write(root: Path, archive: Path) -> None:
    """The archive: one folder, and the same bytes from the same files, whenever and by whomever it is made."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with ZipFile(archive, "w", ZIP_DEFLATED) as packed:
        for name in files(root):
            entry = ZipInfo(f"hqnn-book-{version}/{name}")  # of 1980, where zip's time begins
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = (0o755 if (root / name).stat().st_mode & 0o100 else 0o644) << 16
            packed.writestr(entry, (root / name).read_bytes())


def add_archive(app: Sphinx, failed: Exception | None) -> None:
    if app.builder.name == "html" and not failed:
        write(Path(app.srcdir), Path(app.outdir) / NAME)


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", add_archive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
