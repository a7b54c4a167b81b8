"""Where the runs of a sweep are kept: in a folder, or below a URL that fsspec can write, such as `s3://bucket/folder`.

A file is there whole or not at all, so a run is finished if its notebook is there. A run that goes on is claimed by a lock of
the operating system, which a killed process gives back by itself: sweeps on one folder do not run one run twice. Below a URL
that holds among the sweeps of one machine; on several machines a run may be done twice, with one result.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hqnn_utils import files
from hqnn_utils.errors import ChapterError

INDEX = "sweep.json"
"""Says whose folder it is, and which runs belong to it."""


class Store:
    """A place for files, by its path or URL.

    Raises:
        ChapterError: nothing here can write to such a URL.
    """

    def __init__(self, place: str) -> None:
        self.place, self._system = place.removeprefix("file://"), None
        if "://" in self.place:
            self.place, self._system = place.rstrip("/"), _system(place)
            digest = hashlib.sha256(self.place.encode()).hexdigest()[:16]
            self._claims = Path(tempfile.gettempdir()) / f"hqnn-claims-{digest}"
        else:
            self.place = str(Path(self.place).expanduser().absolute())
            self._claims = Path(self.place) / ".claims"

    def names(self) -> set[str]:
        """Of the files that are there; none where there is no such place yet.

        Raises:
            ChapterError: it cannot be looked at, or is no folder.
        """
        with self._sentence("read"), suppress(FileNotFoundError):
            if not self._system:
                return {path.name for path in Path(self.place).iterdir() if not path.name.startswith(".")}
            self._system.invalidate_cache()
            return {path.rsplit("/", 1)[-1] for path in self._system.ls(self.place, detail=False)}
        return set()

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with self._sentence("read"):
            if not self._system:
                return (Path(self.place) / name).is_file()
            self._system.invalidate_cache()
            return self._system.exists(f"{self.place}/{name}")

    def read(self, name: str) -> str:
        """The text of a file.

        Raises:
            ChapterError: it cannot be read.
        """
        with self._sentence("read"):
            if not self._system:
                return (Path(self.place) / name).read_text(encoding="utf-8")
            return self._system.cat_file(f"{self.place}/{name}").decode()
        raise AssertionError

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all.

        Raises:
            ChapterError: it cannot be written.
        """
        with self._sentence("write"):
            if not self._system:
                files.write(Path(self.place) / name, text)
            else:
                self._system.pipe_file(f"{self.place}/{name}", text.encode())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._sentence("write"), suppress(FileNotFoundError):
            if not self._system:
                (Path(self.place) / name).unlink()
            else:
                self._system.rm(f"{self.place}/{name}")

    @contextmanager
    def claim(self, name: str, wait: bool = False) -> Iterator[bool]:
        """Have a name for oneself, among all processes of this machine, or of those that share the folder.

        Args:
            wait: until it is free.

        Yields whether it was.
        """
        lock = FileLock(self._claims / f"{name}.lock")
        with self._sentence("write"):
            self._claims.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                lock.acquire(blocking=wait)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def clear_claims(self) -> None:
        """Remove what claims left, when there is nothing more to claim."""
        with suppress(OSError):
            for lock in self._claims.glob("*.lock"):  # the folder stays: another sweep may be about to claim something
                lock.unlink()

    @contextmanager
    def _sentence(self, what: str) -> Iterator[None]:
        """A failure of the disk or of the network ends in one sentence."""
        try:
            yield
        except FileNotFoundError:
            if what == "read":
                raise
            raise ChapterError(f"cannot {what} {self.place}: there is no such place") from None
        except OSError as error:
            raise ChapterError(f"cannot {what} {self.place}: {error.strerror or error}") from None
        except Exception as error:
            if not self._system:
                raise
            raise ChapterError(f"cannot {what} {self.place}: {error}") from None  # each service has errors of its own


def _system(url: str) -> Any:
    import fsspec  # here, because most sweeps write to a folder

    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # of the s3fs that goes with Braket's botocore
            return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise ChapterError(f"cannot write to {url}: {error}") from None
