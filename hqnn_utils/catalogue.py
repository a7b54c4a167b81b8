"""What data sets the book knows, where their files lie, and whether they are intact.

The catalogue is `data/datasets.toml`, and for sets of many files `data/manifests/NAME.sha256`. Files lie under
`$HQNN_DATA/NAME/`, or under `data/cache/NAME/` of this checkout.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hqnn_utils import files
from hqnn_utils.errors import BookError


class DataError(BookError):
    """A data set, or a request for part of one, that cannot be had; the message says what to do."""


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


def root() -> Path:
    """The data root: `$HQNN_DATA` if set, else `files.cache()`."""
    return Path(os.environ.get("HQNN_DATA") or files.cache()).expanduser()


def catalogue() -> dict[str, Entry]:
    """All data sets by name, as `data/datasets.toml` describes them."""
    entries = {}
    for name, fields in files.table("datasets.toml").items():
        entries[name] = Entry(name, **({"files": _manifest(name)} if "size" in fields else {}), **fields)
    return entries


def _manifest(name: str) -> dict[str, dict]:
    """File → its SHA-256, from a list in the format of `sha256sum`."""
    lines = files.place(f"data/manifests/{name}.sha256").read_text(encoding="utf-8").splitlines()
    return {file: {"sha256": sha256} for sha256, _, file in (line.partition("  ") for line in lines)}


def entry(name: str) -> Entry:
    """The catalogue's entry `name`.

    Raises:
        DataError: no such entry; the message lists those there are.
    """
    entries = catalogue()
    if name not in entries:
        raise DataError(f"unknown data set {name!r}: the catalogue has {', '.join(entries)}")
    return entries[name]


def verify(name: str) -> dict[str, str]:
    """The state of each file of a data set: `ok`, `missing`, or `altered` (its SHA-256 is not the catalogue's)."""

    def state(path: Path, sha256: str) -> str:
        if not path.is_file():
            return "missing"
        with path.open("rb") as file:
            return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "altered"

    wanted = entry(name)
    if wanted.embedded:
        return {wanted.embedded: "ok" if _digits_sha256() == wanted.sha256 else "altered"}
    return {file: state(wanted.folder / file, facts["sha256"]) for file, facts in wanted.files.items()}


def fetch(name: str, timeout: float = 20.0) -> None:
    """Download what is missing or altered of a data set, from the first place that delivers it intact.

    pooch writes beside the final place, compares the SHA-256 and renames, so an interrupted, truncated or altered download
    never replaces a good file, and two processes may fetch the same file at once.

    Args:
        name: of the catalogue.
        timeout: seconds without an answer before a mirror is given up.

    Raises:
        DataError: no place delivered a file; names the data set, the place, each cause and the way on.
    """
    wanted = entry(name)
    states = {file: state for file, state in verify(name).items() if state != "ok"}
    if states and not wanted.mirrors:
        _unpack(wanted, list(states), timeout)
        return
    for file, state in states.items():
        _download(wanted, file, state, timeout)


def downloads():
    """pooch, imported only where something is downloaded, and without tqdm's warning about widgets, which no one uses here."""
    import warnings

    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        import pooch
    return pooch


def _unpack(wanted: Entry, needed: list[str], timeout: float) -> None:
    """Take the files out of the publisher's archive, each only if its SHA-256 is the catalogue's."""
    source = wanted.archive or f"kaggle.com/datasets/{wanted.kaggle}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            read = _archive(wanted, Path(folder), timeout) if wanted.archive else _kaggle(wanted)
            for file in needed:
                content = read(file)
                if hashlib.sha256(content).hexdigest() != wanted.files[file]["sha256"]:
                    raise ValueError(file)
                files.write(wanted.folder / file, content)
    except (OSError, KeyError, ValueError, ImportError) as error:
        left = sum(state != "ok" for state in verify(wanted.name).values())
        raise DataError(
            f"data set {wanted.name!r}: {left} of {len(wanted.files)} files are still missing or altered in {wanted.folder}; "
            f"from {source}: {_short(error)}\nFetch them with `hqnn data fetch {wanted.name}` when the cause is gone, or set "
            f"HQNN_DATA to a folder that holds {wanted.name}/."
        ) from None


def _archive(wanted: Entry, folder: Path, timeout: float) -> Callable[[str], bytes]:
    from zipfile import BadZipFile, ZipFile

    pooch = downloads()
    pooch.get_logger().setLevel("ERROR")  # it would warn that the archive has no checksum: its files have
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
    try:
        archive = ZipFile(pooch.retrieve(wanted.archive, None, "archive.zip", folder, downloader=downloader))
    except BadZipFile:
        raise OSError("what came is not a zip archive") from None
    return lambda file: archive.read(wanted.inside + file)


def _kaggle(wanted: Entry) -> Callable[[str], bytes]:
    try:
        import kagglehub
    except ImportError:
        raise ImportError("kagglehub is not installed: `.venv/bin/uv pip install kagglehub`") from None
    folder = Path(kagglehub.dataset_download(wanted.kaggle)) / wanted.inside
    return lambda file: (folder / file).read_bytes()


def _download(wanted: Entry, file: str, state: str, timeout: float) -> None:
    pooch = downloads()
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
    causes = []
    for mirror in wanted.mirrors:
        try:
            sha256 = wanted.files[file]["sha256"]
            pooch.retrieve(mirror + file, f"sha256:{sha256}", file, wanted.folder, downloader=downloader)
            return
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            causes.append(f"  {mirror}{file}: {_short(error)}")
    raise DataError(
        f"data set {wanted.name!r}: {file} is {state} in {wanted.folder} and could not be downloaded:\n"
        + "\n".join(causes)
        + f"\nFetch it with `hqnn data fetch {wanted.name}` when the network is there, or set HQNN_DATA to a folder that "
        f"holds {wanted.name}/{file}, or go on with dataset=digits, which needs no download."
    )


def _short(error: Exception) -> str:
    """The cause in one line: what a reader needs of the long chains that network libraries print."""
    if isinstance(error, KeyError):
        return f"{error.args[0]}"
    if isinstance(error, ValueError):
        return "refused, its SHA-256 is not the catalogue's (truncated or altered)"
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"


def _digits_sha256() -> str:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return hashlib.sha256(digits.images.astype("uint8").tobytes() + digits.target.astype("uint8").tobytes()).hexdigest()
