"""What took long to compute is kept: in a file that is named by all it depends on, and verified before it is used.

With `HQNN_FRESH` set, and not empty, nothing that was kept is used: everything is computed anew, and kept again.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

from hqnn_utils import files
from hqnn_utils.errors import DataError


class Kept:
    """A file for what a computation gives. It is the right one, whole and unaltered, or none: it begins with a SHA-256.

    Args:
        folder: to keep it in; made when it is needed.
        name: to know it by; a digest of the origin is put behind it.
        origin: everything that the content depends on, as text.
    """

    def __init__(self, folder: Path, name: str, origin: str):
        self.origin = origin.encode()
        self.path = folder / f"{name}-{hashlib.sha256(self.origin).hexdigest()[:12]}.kept"

    def read(self) -> bytes | None:
        """What was kept, or `None` where there is nothing that is it, bit by bit, with a warning if there is another thing."""
        if os.environ.get("HQNN_FRESH"):
            return None
        try:
            stored = self.path.read_bytes()
        except OSError:
            return None
        content = stored[hashlib.sha256().digest_size :]
        if stored == self._sealed(content):
            return content
        warnings.warn(f"{self.path} is not as it was kept, and is computed anew", stacklevel=2)
        return None

    def write(self, content: bytes) -> None:
        """Keep it, whole or not at all.

        Raises:
            DataError: it cannot be written; names the folder.
        """
        try:
            files.write(self.path, self._sealed(content))
        except OSError as error:
            raise self._refusal(error) from None

    def _sealed(self, content: bytes) -> bytes:
        return hashlib.sha256(self.origin + b"\n" + content).digest() + content

    def _refusal(self, error: OSError) -> DataError:
        return DataError(f"nothing can be kept in {self.path.parent} ({error}): make room, or mend its permissions")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let in one of all processes at a time, so that none computes what another is computing.

        Raises:
            DataError: the folder cannot be written; names it.
        """
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self._refusal(error) from None
        try:
            yield
        finally:
            lock.release()

    def once(self, compute: Callable[[], bytes]) -> bytes:
        """What was kept, or else what `compute` gives, which only one of those that ask at the same time has to do.

        Where nothing can be kept, it is computed all the same, with a warning.
        """
        if (content := self.read()) is not None:
            return content
        with ExitStack() as door:
            try:
                door.enter_context(self.alone())
            except DataError as error:
                warnings.warn(str(error), stacklevel=2)
                return compute()
            if (content := self.read()) is None:
                content = compute()
                try:
                    self.write(content)
                except DataError as error:
                    warnings.warn(str(error), stacklevel=2)
            return content
