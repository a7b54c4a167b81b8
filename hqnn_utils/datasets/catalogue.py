"""What data sets the book knows, where their files lie, and whether they are intact.

The catalogue is `data/datasets.toml`, and for sets of many files `data/manifests/NAME.sha256`. Files lie under
`$HQNN_DATA/NAME/`, or under `data/cache/NAME/` of this checkout.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
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


class MissingData(DataError):
    """A data set, or weights, that are not here and cannot be fetched now; nothing is wrong with what is here."""


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue.

    `files` maps file name to `{"bytes": …, "sha256": …}`, or to its SHA-256 alone where a manifest lists many. They come from
    `mirrors`, addresses that the file names are appended to, from a zip `archive`, whose folder `inside` holds them, or from
    `kaggle`; a data set without files is `embedded` in a library that is installed anyway.

    Photographs lie in folders named as their classes, below the folders of `splits`; without `splits`, we draw a fixed one.
    """

    name: str
    title: str
    classes: list[str]
    counts: dict[str, int]  # images per split: train, test
    licence: str
    citation: str
    homepage: str
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
        return root() / self.name


def entries() -> dict[str, Entry]:
    """All data sets by name, as `data/datasets.toml` describes them."""
    found = {}
    for name, fields in files.table("datasets.toml").items():
        found[name] = Entry(name, **({"files": _manifest(name)} if "size" in fields else {}), **fields)
    return found


def _manifest(name: str) -> dict[str, dict]:
    """File → its SHA-256, from a list in the format of `sha256sum`."""
    lines = files.place(f"data/manifests/{name}.sha256").read_text(encoding="utf-8").splitlines()
    return {file: {"sha256": sha256} for sha256, _, file in (line.partition("  ") for line in lines)}


def entry(name: str) -> Entry:
    """The catalogue's entry `name`.

    Raises:
        DataError: no such entry; the message lists those there are.
    """
    known = entries()
    if name not in list(known):  # a list, because a name may be anything, also what a dictionary cannot look up
        raise DataError(f"unknown data set {name!r:.80}: the catalogue has {', '.join(known)}")
    return known[name]


def verify(name: str) -> dict[str, str]:
    """The state of each file of a data set: `ok`, `missing`, `unreadable`, or `altered`: its SHA-256 is another."""

    def state(path: Path, sha256: str) -> str:
        try:
            with path.open("rb") as file:
                return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "altered"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError:
            return "unreadable"

    wanted = entry(name)
    if wanted.embedded:
        return {wanted.embedded: "ok" if _digits_sha256() == wanted.sha256 else "altered"}
    return {file: state(wanted.folder / file, facts["sha256"]) for file, facts in wanted.files.items()}


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


def fetch(name: str, timeout: float = 20.0) -> None:
    """Get what is missing or altered of a data set, from the first place that delivers it intact.

    A file is written beside its final place, compared with its SHA-256 and renamed, so an interrupted, truncated or altered
    download never replaces a good file, and two processes may fetch the same file at once.

    Args:
        name: of the catalogue.
        timeout: seconds without an answer before a mirror is given up. As a whole, a file may take this and a second for
            every `SLOWEST` bytes of its size.

    Raises:
        DataError: no place delivered a file; names the data set, the place, each cause and the way on.
    """
    wanted = entry(name)
    states = {file: state for file, state in verify(name).items() if state != "ok"}
    if states and wanted.embedded:
        raise DataError(f"data set {name!r}: {wanted.embedded} brings other images than the catalogue's: install it anew")
    if states and not wanted.mirrors:
        _unpack(wanted, list(states), timeout)
        return
    for file, state in states.items():
        _fetch(wanted, file, state, timeout)


def _failure(name: str) -> type[DataError]:
    """What a failed download is: of files that are not here, or one that leaves an altered file in its place."""
    return MissingData if set(verify(name).values()) <= {"ok", "missing"} else DataError


def _fetch(wanted: Entry, file: str, state: str, timeout: float) -> None:
    facts, causes = wanted.files[file], []
    for mirror in wanted.mirrors:
        try:
            return download(
                mirror + file, wanted.folder / file, facts.get("bytes", wanted.bytes) + MARGIN, facts["sha256"], timeout
            )
        except DataError as error:
            causes.append(f"  {mirror}{file}: {error}")
    raise _failure(wanted.name)(
        f"data set {wanted.name!r}: {file} is {state} in {wanted.folder} and could not be downloaded:\n"
        + "\n".join(causes)
        + f"\nFetch it with `hqnn data fetch {wanted.name}` when the network is there, or set HQNN_DATA to a folder that "
        f"holds {wanted.name}/{file}, or go on with dataset=digits, which needs no download."
    )


def download(url: str, target: Path, limit: int, sha256: str = "", timeout: float = 20.0) -> None:
    """Download a file, whole or not at all.

    Args:
        limit: bytes that may come, whatever the server says of their number.
        sha256: what the file's must be; any where it is not known.
        timeout: as of `fetch`.

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


def _unpack(wanted: Entry, needed: list[str], timeout: float) -> None:
    """Take the files out of the publisher's archive, each only if its SHA-256 is the catalogue's."""
    source = wanted.archive or f"kaggle.com/datasets/{wanted.kaggle}"
    try:
        with _archive(wanted, timeout) if wanted.archive else _kaggle(wanted) as read:
            for file in needed:
                unpacked = read(file)
                if hashlib.sha256(unpacked).hexdigest() != wanted.files[file]["sha256"]:
                    raise DataError(f"{file}: refused, its SHA-256 is not the catalogue's")
                files.write(wanted.folder / file, unpacked)
    except Exception as error:  # a damaged archive has many ways to fail
        left = sum(state != "ok" for state in verify(wanted.name).values())
        raise _failure(wanted.name)(
            f"data set {wanted.name!r}: {left} of {len(wanted.files)} files are still missing or altered in {wanted.folder}; "
            f"from {source}: {_short(error)}\nFetch them with `hqnn data fetch {wanted.name}` when the cause is gone, or set "
            f"HQNN_DATA to a folder that holds {wanted.name}/."
        ) from None


@contextmanager
def _archive(wanted: Entry, timeout: float) -> Iterator[Callable[[str], bytes]]:
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
def _kaggle(wanted: Entry) -> Iterator[Callable[[str], bytes]]:
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
