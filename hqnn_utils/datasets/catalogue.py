"""What the book knows of published files: data sets and network weights, where they lie, and whether they are intact.

The catalogue is `data/datasets.toml`, and for sets of many files `data/manifests/NAME.sha256`. Files lie under
`$HQNN_DATA/NAME/`, or under `data/cache/NAME/` of this checkout; weights in the folder `weights/` there.
"""

import builtins
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread
from typing import BinaryIO

from tqdm import tqdm

from hqnn_utils import files
from hqnn_utils.errors import DataError
from hqnn_utils.files import root

SLOWEST = 50_000
"""Bytes a second: a download that is slower on the whole is given up."""

MARGIN = 2**16
"""So many bytes more than the catalogue says may come before they are refused; a checksum tells the rest."""

READERS = {
    "digits": "a set of digits: `hqnn_utils.datasets.digits.load({!r})` gives its images",
    "photographs": "a set of photographs: `hqnn_utils.datasets.photos.published({!r})` lists them",
    "weights": "weights of a network: `hqnn_utils.datasets.backbone.resnet18({!r})` loads them",
}
"""The kinds of entries, and what reads each."""


class MissingData(DataError):
    """A data set, or weights, that are not here and cannot be fetched now; nothing is wrong with what is here."""


@dataclass(frozen=True)
class Dataset:
    """An entry of the catalogue, which knows its files: where they lie, whether they are intact, and where to get them.

    `files` maps file name to `{"bytes": …, "sha256": …}`, or to its SHA-256 alone where a manifest lists many. They come from
    `mirrors`, addresses that the file names are appended to (or what an entry `at` of a file says), from a zip `archive`,
    whose folder `inside` holds them, or from `kaggle`; a data set without files is `embedded` in a library that is installed
    anyway.

    Photographs lie in folders named as their classes, below the folders of `splits`; without `splits`, we draw a fixed one.
    """

    name: str
    kind: str  # one of READERS
    title: str
    licence: str
    citation: str
    homepage: str
    classes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # images per split: train, test
    sha256: str = ""  # of an embedded data set
    embedded: str = ""
    mirrors: list[str] = field(default_factory=list)
    archive: str = ""
    inside: str = ""
    kaggle: str = ""
    size: int = 0  # bytes, of a set with a manifest
    splits: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return self.size or sum(file["bytes"] for file in self.files.values())

    @property
    def folder(self) -> Path:
        """Where the files lie, or would lie."""
        return root() / ("weights" if self.kind == "weights" else self.name)

    def content(self, file: str) -> builtins.bytes:
        """The bytes of a file, as `content`."""
        return content(self.folder / file, self.files[file]["sha256"])

    def verify(self) -> dict[str, str]:
        """The state of each file: `ok`, `missing`, `unreadable`, or `altered`: its SHA-256 is another."""
        if self.embedded:
            return {self.embedded: "ok" if _digits_sha256() == self.sha256 else "altered"}
        return {file: _state(self.folder / file, facts["sha256"]) for file, facts in self.files.items()}

    def fetch(self, timeout: float = 20.0) -> None:
        """Get what is missing or altered, from the first place that delivers it intact.

        A file is written beside its final place, compared with its SHA-256 and renamed, so an interrupted, truncated or
        altered download never replaces a good file, and two processes may fetch the same file at once.

        Args:
            timeout: seconds without an answer before a mirror is given up. As a whole, a file may take this and a second for
                every `SLOWEST` bytes of its size.

        Raises:
            DataError: no place delivered a file; names the data set, the place, each cause and the way on.
        """
        states = {file: state for file, state in self.verify().items() if state != "ok"}
        if states and self.embedded:
            raise DataError(
                f"data set {self.name!r}: {self.embedded} brings other images than the catalogue's: install it anew"
            )
        if states and not self.mirrors:
            self._unpack(list(states), timeout)
            return
        for file, state in states.items():
            self._download(file, state, timeout)

    def _download(self, file: str, state: str, timeout: float) -> None:
        facts, causes = self.files[file], []
        for mirror in self.mirrors:
            url, limit = mirror + facts.get("at", file), facts.get("bytes", self.bytes) + MARGIN
            try:
                return download(url, self.folder / file, limit, facts["sha256"], timeout)
            except DataError as error:
                causes.append(f"  {url}: {error}")
        otherwise = "" if self.kind == "weights" else ", or go on with dataset=digits, which needs no download"
        raise self._failure(
            f"{file} is {state} in {self.folder} and could not be downloaded:\n"
            + "\n".join(causes)
            + f"\nFetch it with `hqnn data fetch {self.name}` when the network is there, or set HQNN_DATA to a folder that "
            f"holds {self.folder.name}/{file}{otherwise}."
        )

    def _unpack(self, needed: list[str], timeout: float) -> None:
        """Take the files out of the publisher's archive, each only if its SHA-256 is the catalogue's."""
        try:
            with _zipped(self, timeout) if self.archive else _kaggle(self) as read:
                for file in needed:
                    unpacked = read(file)
                    if hashlib.sha256(unpacked).hexdigest() != self.files[file]["sha256"]:
                        raise DataError(f"{file}: refused, its SHA-256 is not the catalogue's")
                    files.write(self.folder / file, unpacked)
        except Exception as error:  # a damaged archive has many ways to fail
            left = sum(state != "ok" for state in self.verify().values())
            raise self._failure(
                f"{left} of {len(self.files)} files are still missing or altered in {self.folder}; from "
                f"{self.archive or f'kaggle.com/datasets/{self.kaggle}'}: {_short(error)}\nFetch them with `hqnn data fetch "
                f"{self.name}` when the cause is gone, or set HQNN_DATA to a folder that holds {self.name}/."
            ) from None

    def _failure(self, said: str) -> DataError:
        """Of a failed download: the files are not here, or it leaves an altered one in its place."""
        what = "weights" if self.kind == "weights" else "data set"
        kind = MissingData if set(self.verify().values()) <= {"ok", "missing"} else DataError
        return kind(f"{what} {self.name!r}: {said}")


@cache
def entries() -> dict[str, Dataset]:
    """All data sets and weights by name, as `data/datasets.toml` describes them."""
    found = {}
    for name, fields in files.table("datasets.toml").items():
        found[name] = Dataset(name, **fields | ({"files": _manifest(name)} if "size" in fields else {}))
    return found


def _manifest(name: str) -> dict[str, dict]:
    """File → its SHA-256, from a list in the format of `sha256sum`."""
    lines = files.place(f"data/manifests/{name}.sha256").read_text(encoding="utf-8").splitlines()
    return {file: {"sha256": sha256} for sha256, _, file in (line.partition("  ") for line in lines)}


def entry(name: str, kind: str = "") -> Dataset:
    """The catalogue's entry `name`, if it is of this kind; any kind by default.

    Raises:
        DataError: no such entry; the message lists those there are. Or one of another kind; it says what reads that.
    """
    known = {other: found for other, found in entries().items() if kind in ("", found.kind)}
    if name in list(known):  # a list, because a name may be anything, also what a dictionary cannot look up
        return known[name]
    if name in list(entries()):
        raise DataError(f"{name!r} is {READERS[entries()[name].kind].format(name)}")
    what = "weights" if kind == "weights" else "data set"
    raise DataError(f"unknown {what} {name!r:.80}: the catalogue has {', '.join(known)}")


def _state(path: Path, sha256: str) -> str:
    try:
        with path.open("rb") as file:
            return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "altered"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError:
        return "unreadable"


def content(path: Path, sha256: str) -> bytes:
    """The bytes of a file, if they are those that were published: what is used is what was compared.

    Raises:
        DataError: the file cannot be read, or has another SHA-256; names it.
    """
    try:
        read = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if hashlib.sha256(read).hexdigest() != sha256:
        raise DataError(f"{path} is not the published file (its SHA-256 differs): remove it, and it will be fetched again")
    return read


def download(url: str, target: Path, limit: int, sha256: str = "", timeout: float = 20.0) -> None:
    """Download a file, whole or not at all.

    Args:
        limit: bytes that may come, whatever the server says of their number.
        sha256: what the file's must be; any where it is not known.
        timeout: as of `Dataset.fetch`.

    Raises:
        DataError: the cause in one line.
    """
    seconds = timeout + limit / SLOWEST
    try:
        with files.beside(target) as temporary, temporary.open("wb") as file, _progress(url) as bar:
            # In a thread, because no timeout of a socket ends an answer that comes drop by drop. If it is left behind, its
            # next write fails, for the file is closed.
            came: Future[str] = Future()
            Thread(target=_into, args=(came, url, file, limit, timeout, bar), daemon=True).start()
            found = came.result(seconds)
            if sha256 and found != sha256:
                raise DataError("refused, its SHA-256 is not the catalogue's (truncated or altered)")
    except DataError:
        raise
    except TimeoutError:
        raise DataError(f"Timeout: it was not all there after {seconds:.0f} s") from None
    except Exception as error:  # of requests, urllib3, http.client or the disk: whatever it is, this is no download
        raise DataError(_short(error)) from None


def _progress(url: str) -> tqdm:
    return tqdm(desc=url.rsplit("/")[-1], unit="B", unit_scale=True, leave=False)


def _into(came: Future, url: str, file: BinaryIO, limit: int, timeout: float, bar: tqdm) -> None:
    """Write what an address answers to a file; `came` becomes its SHA-256, or the error."""
    import requests  # here, because it takes a while and most runs download nothing

    digest, size = hashlib.sha256(), 0
    try:
        # Packed for the journey, a file could grow a thousandfold with us.
        with requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_content(2**16):
                size += len(chunk)
                if size > limit:
                    raise DataError(f"refused, it is longer than the {limit:,} bytes that may come")
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        file.flush()
        came.set_result(digest.hexdigest())
    except Exception as error:
        came.set_exception(error)


@contextmanager
def _zipped(wanted: Dataset, timeout: float) -> Iterator[Callable[[str], bytes]]:
    """A reader of the files in a zip archive, which is asked what it holds before anything is unpacked."""
    from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

    with files.scratch(wanted.folder, ".zip") as path:
        # An archive may hold more than we want of it: that of the tumours has two classes besides.
        download(wanted.archive, path, 4 * wanted.bytes + MARGIN, timeout=timeout)
        try:
            archive = ZipFile(path)
        except BadZipFile:
            raise DataError("what came is not a zip archive") from None
        with archive:
            ours = [item for item in archive.infolist() if item.filename.removeprefix(wanted.inside) in wanted.files]
            if (size := sum(item.file_size for item in ours)) > wanted.bytes + MARGIN:
                raise DataError(f"refused, it would unpack to {size:,} bytes instead of {wanted.bytes:,}")
            if any(item.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for item in ours):
                raise DataError("refused, it is packed by another method than deflate")  # zipfile unpacks others at one go
            yield lambda file: archive.read(wanted.inside + file)  # never more than the size that it declares


@contextmanager
def _kaggle(wanted: Dataset) -> Iterator[Callable[[str], bytes]]:
    """A reader of the files that kagglehub downloads, into a folder of its own."""
    try:
        import kagglehub
    except ImportError:
        raise DataError("kagglehub is not installed: `.venv/bin/uv pip install kagglehub`") from None
    folder = Path(kagglehub.dataset_download(wanted.kaggle)) / wanted.inside

    def read(file: str) -> bytes:
        with (folder / file).open("rb") as opened:
            return opened.read(wanted.bytes + MARGIN)

    yield read


def _short(error: Exception) -> str:
    """The cause in one line: what a reader needs of the long chains that network libraries print."""
    if isinstance(error, (DataError, KeyError)):
        return str(error.args[0])
    said = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {said[0][:120]}"


def _digits_sha256() -> str:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return hashlib.sha256(digits.images.astype("uint8").tobytes() + digits.target.astype("uint8").tobytes()).hexdigest()
