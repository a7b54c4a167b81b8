"""The data sets: what they hold, how they are drawn, and downloads from a real server that misbehaves."""

import gzip
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils.datasets import catalogue
from hqnn_utils.datasets.catalogue import DataError, Dataset, entry, root
from hqnn_utils.datasets.digits import load

MNIST_COUNTS = {  # images per class, as published with the set
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
DIGITS = load("digits")


# -- what the sets hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", catalogue.entries().values(), ids=lambda described: described.name)
def test_the_catalogue_describes_every_set_in_full(described):
    assert all([described.title, described.licence, described.citation, described.homepage.startswith("http")])
    assert described.kind in catalogue.READERS
    if described.kind == "weights":
        assert len(described.files) == 1 and described.bytes and not described.classes
    else:
        assert len(set(described.classes)) == len(described.classes) >= 2
        assert set(described.counts) == {"train", "test"}
    assert bool(described.embedded) != bool(described.files)
    assert all(len(bytes.fromhex(file["sha256"])) == 32 for file in described.files.values())
    assert described.embedded or described.bytes > 0
    assert sum(map(bool, (described.embedded, described.mirrors, described.archive, described.kaggle))) == 1
    assert described.kind != "photographs" or sum(described.counts.values()) == len(described.files)
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in described.mirrors)


@pytest.fixture(scope="module")
def mnist_images(mnist):
    return load("mnist")


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_has_the_published_number_of_each_digit(split, mnist_images):
    labels = getattr(mnist_images, f"{split}_labels")
    assert labels.bincount().tolist() == MNIST_COUNTS[split]


def test_mnist_has_the_published_mean_and_spread(mnist_images):
    grey = mnist_images.train_images
    assert (round(grey.mean().item(), 4), round(grey.std().item(), 4)) == (0.1307, 0.3081)


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_images_are_grey_values_between_zero_and_one_with_a_label_each(name, request):
    images, counts = DIGITS if name == "digits" else request.getfixturevalue("mnist_images"), entry(name).counts
    for split, grey, labels in (
        ("train", images.train_images, images.train_labels),
        ("test", images.test_images, images.test_labels),
    ):
        assert (grey.shape, labels.shape) == ((counts[split], 1, 28, 28), (counts[split],))
        assert (grey.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert (grey.min(), grey.max()) == (0, 1)


def test_mnists_fingerprint_is_that_of_its_files(mnist_images):
    joined = "".join(file["sha256"] for file in entry("mnist").files.values())
    assert mnist_images.sha256 == hashlib.sha256(joined.encode()).hexdigest()


def test_digits_fingerprint_is_the_catalogues():
    assert DIGITS.sha256 == entry("digits").sha256
    assert entry("digits").verify() == {"scikit-learn": "ok"}


def test_no_digit_is_in_both_splits():
    train, test = ({image.numpy().tobytes() for image in images} for images in (DIGITS.train_images, DIGITS.test_images))
    assert not train & test


# -- how they are drawn ------------------------------------------------------------------------------------------------


def test_labels_are_renumbered_in_the_order_of_the_chosen_classes():
    images = load("digits", [7, 2])
    assert images.classes == ["7", "2"]
    for old, new in ((7, 0), (2, 1)):
        assert torch.equal(images.test_images[images.test_labels == new], DIGITS.test_images[DIGITS.test_labels == old])


def test_classes_that_were_not_chosen_are_left_out():
    assert len(load("digits", [3, 5]).train_labels) == (DIGITS.train_labels == 3).sum() + (DIGITS.train_labels == 5).sum()


def test_size_zero_takes_all():
    assert torch.equal(load("digits", train_size=0).train_images, DIGITS.train_images)


@given(st.integers(10, len(DIGITS.train_labels)))
def test_a_draw_has_the_size_asked_for_and_keeps_the_class_shares(size):
    labels = load("digits", train_size=size).train_labels
    shares = DIGITS.train_labels.bincount() / len(DIGITS.train_labels)
    assert len(labels) == size
    assert (labels.bincount(minlength=10) - size * shares).abs().max() <= 1


@pytest.mark.parametrize("below", range(11))
def test_a_draw_may_leave_out_a_few_images_only(below):
    size = len(DIGITS.test_labels) - below
    assert len(load("digits", test_size=size).test_labels) == size


def test_a_draw_takes_no_image_twice():
    images = load("digits", train_size=600).train_images
    assert len(images.unique(dim=0)) == len(images)


@pytest.mark.parametrize("size", [0, 40])
def test_a_test_image_can_be_found_again_by_its_row(size):
    images = load("digits", [4, 9], test_size=size)
    assert torch.equal(images.test_images, DIGITS.test_images[images.test_rows])
    assert torch.equal(torch.tensor([4, 9])[images.test_labels], DIGITS.test_labels[images.test_rows])


def test_the_same_seed_draws_the_same_images():
    first, again, other = (load("digits", train_size=50, seed=seed).train_images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    load("digits", train_size=50)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "cifar"}, "unknown data set 'cifar': the catalogue has mnist, digits"),
        ({"classes": [3, 3]}, r"at least two different ones, got \[3, 3\]"),
        ({"classes": [3]}, r"at least two different ones, got \[3\]"),
        ({"classes": []}, "at least two different ones"),
        ({"classes": [3, 10]}, r"has the classes 0 to 9, got \[3, 10\]"),
        ({"classes": [-1, 3]}, r"has the classes 0 to 9, got \[-1, 3\]"),
        ({"train_size": -1}, r"train size must be 0 \(all\) or 10 to 1257, .* got -1"),
        ({"train_size": 1258}, r"train size must be 0 \(all\) or 10 to 1257, .* got 1258"),
        ({"test_size": 541}, r"test size must be 0 \(all\) or 10 to 540, .* got 541"),
        ({"test_size": 9}, r"test size must be 0 \(all\) or 10 to 540, .* got 9"),
        ({"classes": [3, 5], "test_size": 200}, r"must be 0 \(all\) or 2 to 110, .* got 200"),
        ({"name": "a" * 5000}, r"unknown data set 'a{79}: the catalogue has"),
        ({"train_size": 20, "seed": -1}, "the seed must be 0 to 4294967295, got -1"),
        ({"train_size": 20, "seed": 2**32}, "the seed must be 0 to 4294967295, got 4294967296"),
    ],
)
def test_images_that_are_not_there_are_refused(arguments, sentence):
    with pytest.raises(DataError, match=sentence):
        load(**{"name": "digits"} | arguments)


OF_ANOTHER_KIND = {
    "name=['digits']": "unknown data set ['digits']: the catalogue has",
    "name=None": "unknown data set None: the catalogue has",
    "name='digits', classes='37'": "must be whole numbers, got classes '37'",
    "name='digits', classes=3": "must be whole numbers, got classes 3",
    "name='digits', classes=[3.0, 5.0]": "must be whole numbers, got classes [3.0, 5.0]",
    "name='digits', train_size=20.5": "must be whole numbers, got classes None, train size 20.5",
    "name='digits', train_size=float('nan')": "train size nan",
    "name='digits', test_size='all'": "test size 'all'",
    "name='digits', seed=None": "seed None",
}


def test_arguments_of_another_kind_are_refused_in_a_sentence():
    program = f"""
from hqnn_utils.datasets.catalogue import DataError
from hqnn_utils.datasets.digits import load
for arguments in {list(OF_ANOTHER_KIND)}:
    try:
        eval(f"load({{arguments}})")
    except DataError as error:
        print(error)
"""  # in a process of its own, without the type checker that watches the tests
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(OF_ANOTHER_KIND)
    assert not [(line, want) for line, want in zip(said, OF_ANOTHER_KIND.values(), strict=True) if want not in line]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_holds_no_numbers_is_named(split, value):
    grey = getattr(DIGITS, f"{split}_images").clone()
    grey[7, 0, 3, 3] = value
    with pytest.raises(DataError, match=f"'digits': {split} image 7 holds NaN or infinity"):
        replace(DIGITS, **{f"{split}_images": grey})


def test_bundled_images_that_are_not_the_catalogues_are_refused(monkeypatch):
    described = replace(entry("digits"), sha256="0" * 64)
    monkeypatch.setattr(catalogue, "entries", lambda: {"digits": described})
    with pytest.raises(DataError, match="scikit-learn brings other images than the catalogue's: install it anew"):
        load("digits")


def test_bytes_that_changed_after_the_check_are_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for file in entry("mnist").files:
        (tmp_path / "mnist" / file).write_bytes(b"another")
    monkeypatch.setattr(Dataset, "fetch", lambda self: None)  # as if the check had just found them good
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is not the published file"):
        load("mnist")


# -- where they lie ----------------------------------------------------------------------------------------------------


def test_the_data_root_is_hqnn_data_where_that_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    assert (root(), entry("mnist").folder) == (tmp_path, tmp_path / "mnist")


def test_the_data_root_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HQNN_DATA", "~/sets")
    assert root() == Path.home() / "sets"


@pytest.mark.parametrize("given", [None, ""])
def test_the_data_root_is_the_checkouts_cache_otherwise(monkeypatch, given):
    monkeypatch.delenv("HQNN_DATA", raising=False)
    if given is not None:
        monkeypatch.setenv("HQNN_DATA", given)
    assert root() == Path(__file__).parents[2] / "data" / "cache"


@pytest.mark.parametrize("name", ["my data", "data: $(date) 'n' \"q\"", "dätä", "-rf"])
def test_a_relative_data_root_of_any_name_is_made_absolute(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HQNN_DATA", name)
    assert root() == tmp_path / name


@pytest.mark.parametrize(
    ("given", "reason"), [("~nosuchuser/x", "home directory"), ("a" * 5000, "too long"), (__file__, "a file")]
)
def test_a_data_root_that_cannot_be_used_is_refused_in_a_sentence(monkeypatch, given, reason):
    monkeypatch.setenv("HQNN_DATA", given)
    with pytest.raises(DataError, match=f"HQNN_DATA is .*{reason}.*; set it to a folder") as refusal:
        entry("mnist").verify()
    assert len(str(refusal.value)) < 400
    done = subprocess.run([Path(sys.executable).parent / "hqnn", "data", "list"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: HQNN_DATA is ")


def test_a_file_that_may_not_be_read_is_called_so(toy, monkeypatch):
    toy.fetch()

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        assert set(toy.verify().values()) == {"unreadable"}


# -- how they get there ------------------------------------------------------------------------------------------------

GOOD = {"a.gz": b"first " * 5000, "b.gz": b"second" * 7000}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Server:
    """An HTTP server on a port of its own that answers as `answer(path)` says: (status, body, length it claims).

    The body is bytes, or what yields them. Without a status it is all that is sent, and speaks HTTP for itself.
    """

    answer: object = lambda path: (200, GOOD[path], None)
    asked: list = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server():
    facts = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            facts.asked.append(self.path)
            status, body, length = facts.answer(self.path.rsplit("/")[-1])
            with suppress(OSError):  # who asked may have given up
                if status:
                    self.send_response(status)
                    if isinstance(body, bytes):
                        self.send_header("Content-Length", str(len(body) if length is None else length))
                    self.end_headers()
                for part in [body] if isinstance(body, bytes) else body():
                    self.wfile.write(part)

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    facts.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield facts
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def closed_port():
    """An address on this machine where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def toy(monkeypatch, tmp_path, server):
    """A made-up data set of two files on one mirror; its folder does not exist yet."""
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in GOOD.items()}
    about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
    described = Dataset("toy", "digits", classes=["0", "1"], counts={}, mirrors=[f"{server.url}/good/"], files=files, **about)
    monkeypatch.setattr(catalogue, "entries", lambda: {"toy": described})
    return described


def lying(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, so that nothing half-written goes unseen."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def instead(**bad):
    """The server's answers: `a=…` or `b=…` in place of the good file."""
    return lambda path: bad.get(path[0]) or (200, GOOD[path], None)


FAULTS = {
    "truncated, the length tells": (200, GOOD["b.gz"][:9000], len(GOOD["b.gz"])),
    "truncated, the length lies too": (200, GOOD["b.gz"][:9000], None),
    "empty": (200, b"", None),
    "altered": (200, GOOD["b.gz"].replace(b"s", b"S", 1), None),
    "a page in its place": (200, b"<html>Please log in</html>", None),
    "not found": (404, b"no such file", None),
    "out of order": (503, b"come back later", None),
    "forbidden": (403, b"", None),
    "no content": (204, b"", None),
    "a part": (206, GOOD["b.gz"][:9000], None),
    "another file": (200, GOOD["b.gz"][::-1], None),
    "longer": (200, GOOD["b.gz"] + bytes(2**20), None),
    "endless": (200, lambda: repeat(bytes(2**16)), None),
    "announced as terabytes": (200, GOOD["b.gz"][:9000], 10**13),
    "of a length below zero": (200, GOOD["b.gz"][:9000], -5),
    "of a length that is no number": (200, GOOD["b.gz"][:9000], "much"),
    "hung up on": (0, b"", None),
    "no HTTP": (0, b"220 mail.example.org ready\r\n", None),
    "a header without end": (0, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**17, None),
    "headers without end": (0, b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000, None),
    "chunks that break off": (0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2328\r\n" + GOOD["b.gz"][:90], None),
    "redirected in circles": (0, b"HTTP/1.1 302 Found\r\nLocation: b.gz\r\nContent-Length: 0\r\n\r\n", None),
    "redirected to a file": (0, b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n", None),
    "redirected to nonsense": (0, b"HTTP/1.1 302 Found\r\nLocation: http://[::bad/\r\nContent-Length: 0\r\n\r\n", None),
    "packed, but not really": (0, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", None),
    "packed a thousandfold": (0, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**24)), None),
}
faulty = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


# A set of many files comes as one archive.

PICTURES = {"Training/a/1.jpg": b"first" * 500, "Training/b/2 (1).jpg": b"second" * 500, "Testing/a/3.jpg": b"third" * 500}


def zipped(files: dict[str, bytes], method: int = ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w", method) as archive:
        for file, body in files.items():
            archive.writestr(f"inside/{file}", body)
    return content.getvalue()


def marked(archive: bytes, offset: int, value: bytes) -> bytes:
    """An archive with a field changed in both headers of each file; `offset` is that of the field in a local header."""
    content = bytearray(archive)
    for signature, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset + shift : at + offset + shift + len(value)] = value
            at = content.find(signature, at + 4)
    return bytes(content)


@pytest.fixture
def packed(monkeypatch, tmp_path, server):
    """A made-up data set whose files come in an archive that the server delivers."""
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = {name: {"sha256": sha256(content)} for name, content in PICTURES.items()}
    about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
    place = dict(archive=f"{server.url}/all.zip", inside="inside/", size=sum(map(len, PICTURES.values())))
    described = Dataset("packed", "photographs", classes=["a", "b"], counts={}, files=files, **place, **about)
    monkeypatch.setattr(catalogue, "entries", lambda: {"packed": described})
    server.answer = lambda path: (200, zipped(PICTURES | {"unwanted.gif": b"GIF"}), None)
    return described


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_lands_as_the_files_of_the_catalogue_and_no_others(packed, server):
    entry("packed").fetch()
    assert held(packed.folder) == PICTURES
    server.asked.clear()
    entry("packed").fetch()
    assert server.asked == []


def test_an_altered_file_is_taken_anew_from_the_archive(packed):
    entry("packed").fetch()
    (packed.folder / "Testing/a/3.jpg").write_bytes(b"bit rot")
    entry("packed").fetch()
    assert held(packed.folder) == PICTURES


DEFLATED = zipped({"Training/a/1.jpg": b"first" * 500}, ZIP_DEFLATED)
BOMB = {"Testing/a/3.jpg": bytes(10**7)}
BAD_ARCHIVES = {
    "altered": ((200, zipped(PICTURES | {"Testing/a/3.jpg": b"other"}), None), "its SHA-256 is not the catalogue's", 1),
    "incomplete": ((200, zipped({k: v for k, v in PICTURES.items() if "3" not in k}), None), "no item named .*3.jpg", 1),
    "a page in its place": ((200, b"<html>Please log in</html>", None), "not a zip archive", 3),
    "truncated": ((200, zipped(PICTURES)[:900], None), "not a zip archive", 3),
    "not found": ((404, b"no such file", None), "404", 3),
    "nothing in it": ((200, zipped({}), None), "no item named", 3),
    "a bit flipped": ((200, zipped(PICTURES).replace(b"third", b"thirD", 1), None), "Bad CRC-32", 1),
    "damaged inside": ((200, DEFLATED.replace(DEFLATED[60:70], bytes(10)), None), "Error -3|Bad CRC-32|SHA-256", 3),
    "encrypted": ((200, marked(zipped(PICTURES), 6, b"\1"), None), "is encrypted", 3),
    "of an unknown method": ((200, marked(zipped(PICTURES), 8, b"\x63"), None), "another method than deflate", 3),
    "by bzip2": ((200, zipped(PICTURES, ZIP_BZIP2), None), "another method than deflate", 3),
    "a bomb": ((200, zipped(PICTURES | BOMB, ZIP_DEFLATED), None), "refused, it would unpack to 10,005,500 bytes", 3),
    "a bomb that hides": ((200, marked(zipped(PICTURES | BOMB, ZIP_DEFLATED), 22, b"\x10\0\0\0"), None), "Bad CRC-32", 3),
    "too long": ((200, zipped(PICTURES | {"unwanted.gif": bytes(10**6)}), None), "longer than the .* bytes that may come", 3),
    "without end": ((200, lambda: repeat(bytes(2**16)), None), "longer than the .* bytes that may come", 3),
}


@pytest.mark.parametrize(("answer", "cause", "left"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_refused_with_its_cause_and_leaves_only_good_files(packed, server, answer, cause, left):
    server.answer = lambda path: answer
    with pytest.raises(DataError, match=f"'packed': {left} of 3 files are still missing or altered .*{cause}"):
        entry("packed").fetch()
    found = held(packed.folder) if packed.folder.exists() else {}
    assert len(found) == 3 - left and found.items() <= PICTURES.items()


def test_nothing_of_an_archive_gets_out_of_the_folder(packed, server, tmp_path):
    outside = {"../../evil": b"!", "/evil": b"!", "../evil": b"!", "..\\evil": b"!", "Training/a/../../../evil": b"!"}
    content = io.BytesIO(zipped(PICTURES | outside))
    with ZipFile(content, "a") as archive:
        link = ZipInfo("inside/Training/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    server.answer = lambda path: (200, content.getvalue(), None)
    entry("packed").fetch()
    assert held(tmp_path) == {f"packed/{file}": body for file, body in PICTURES.items()}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_an_archive_holds_twice_is_checked_like_any_other(packed, server):
    content = io.BytesIO(zipped(PICTURES))
    with ZipFile(content, "a") as archive:
        archive.writestr("inside/Testing/a/3.jpg", b"other")
    server.answer = lambda path: (200, content.getvalue(), None)
    with pytest.raises(DataError, match=r"1 of 3 files are still missing or altered .* SHA-256"):
        entry("packed").fetch()


def test_whatever_kagglehub_raises_is_a_sentence(packed, monkeypatch):
    described = replace(packed, archive="", kaggle="someone/something")
    monkeypatch.setattr(catalogue, "entries", lambda: {"packed": described})

    def refuse(handle):
        raise RuntimeError

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=refuse))
    with pytest.raises(DataError, match=r"from kaggle\.com/datasets/someone/something: RuntimeError"):
        entry("packed").fetch()


def test_a_set_from_kaggle_says_what_to_install(packed, monkeypatch):
    described = replace(packed, archive="", kaggle="someone/something")
    monkeypatch.setattr(catalogue, "entries", lambda: {"packed": described})
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # as where it is not installed
    with pytest.raises(DataError, match=r"from kaggle\.com/datasets/someone/something: .*pip install kagglehub"):
        entry("packed").fetch()


def test_a_set_from_kaggle_is_checked_like_any_other(packed, monkeypatch, tmp_path):
    described = replace(packed, archive="", kaggle="someone/something")
    monkeypatch.setattr(catalogue, "entries", lambda: {"packed": described})
    for file, content in PICTURES.items():
        path = tmp_path / "kaggle" / "inside" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if "3" not in file else b"other")
    asked = SimpleNamespace(dataset_download=lambda handle: str(tmp_path / "kaggle") if handle == "someone/something" else "")
    monkeypatch.setitem(sys.modules, "kagglehub", asked)
    with pytest.raises(DataError, match="1 of 3 files are still missing or altered"):
        entry("packed").fetch()
    (tmp_path / "kaggle" / "inside" / "Testing/a/3.jpg").write_bytes(PICTURES["Testing/a/3.jpg"])
    entry("packed").fetch()
    assert held(packed.folder) == PICTURES


def test_photographs_are_not_loaded_as_digits_are(packed):
    with pytest.raises(DataError, match="is a set of photographs"):
        load("packed")


def test_a_download_lands_whole_and_alone(toy):
    toy.fetch()
    assert lying(toy.folder) == GOOD
    assert set(toy.verify().values()) == {"ok"}


def test_what_is_here_is_not_fetched_again(toy, server):
    toy.fetch()
    server.asked.clear()
    toy.fetch()
    assert server.asked == []


@faulty
def test_a_bad_download_is_refused_and_leaves_nothing(toy, server, fault):
    server.answer = instead(a=fault, b=fault)
    with pytest.raises(DataError, match=r"'toy': a\.gz is missing .* could not be downloaded"):
        toy.fetch()
    assert lying(toy.folder) == {}


@faulty
def test_a_bad_download_leaves_the_good_files_as_they_were(toy, server, fault):
    toy.folder.mkdir()
    (toy.folder / "a.gz").write_bytes(GOOD["a.gz"])
    server.answer = instead(b=fault)
    with pytest.raises(DataError, match=r"b\.gz is missing"):
        toy.fetch()
    assert lying(toy.folder) == {"a.gz": GOOD["a.gz"]}


def test_an_altered_file_is_noticed_and_fetched_anew(toy):
    toy.fetch()
    (toy.folder / "b.gz").write_bytes(b"bit rot")
    assert toy.verify() == {"a.gz": "ok", "b.gz": "altered"}
    toy.fetch()
    assert lying(toy.folder) == GOOD


def test_an_altered_file_that_cannot_be_mended_is_named(toy, server):
    toy.folder.mkdir()
    (toy.folder / "a.gz").write_bytes(b"bit rot")
    server.answer = instead(a=FAULTS["not found"])
    with pytest.raises(DataError, match=r"a\.gz is altered"):
        toy.fetch()


def test_a_wrong_checksum_is_called_that(toy, server):
    server.answer = instead(a=FAULTS["altered"])
    with pytest.raises(DataError, match="refused, its SHA-256 is not the catalogue's"):
        toy.fetch()


@faulty
def test_a_second_mirror_delivers_where_the_first_does_not(toy, server, fault):
    toy.mirrors.insert(0, f"{server.url}/bad/")
    bad = iter([fault])  # the very first answer
    server.answer = lambda path: next(bad, (200, GOOD[path], None))
    toy.fetch()
    assert server.asked[0] == "/bad/a.gz" and "/good/a.gz" in server.asked
    assert lying(toy.folder) == GOOD


def test_a_mirror_that_nobody_answers_is_passed_over(toy, closed_port):
    toy.mirrors.insert(0, f"{closed_port}/")
    toy.fetch()
    assert lying(toy.folder) == GOOD


def test_a_mirror_that_stays_silent_is_given_up(toy, server):
    waiting = threading.Event()

    def silence(path):
        waiting.wait(30)
        return FAULTS["out of order"]

    server.answer = silence
    with pytest.raises(DataError, match="Timeout"):
        toy.fetch(timeout=0.2)
    waiting.set()


DRIPPING = {
    "the file": (200, GOOD["a.gz"]),
    "its headers": (0, b"HTTP/1.0 200 OK\r\nX: " + b"x" * 30000 + b"\r\n\r\n" + GOOD["a.gz"]),
}


@pytest.mark.parametrize(("status", "content"), DRIPPING.values(), ids=DRIPPING)
def test_a_mirror_that_sends_drop_by_drop_is_given_up(toy, server, monkeypatch, status, content):
    monkeypatch.setattr(catalogue, "SLOWEST", 10**9)
    given_up = threading.Event()

    def drops():
        yield content[:10]
        for start in range(10, len(content), 100):
            given_up.wait(0.05)  # 15 s in all, but never long without a sign of life
            yield content[start : start + 100]

    server.answer = lambda path: (status, drops, None)
    with pytest.raises(DataError, match="Timeout: it was not all there after 1 s"):
        toy.fetch(timeout=1.0)
    given_up.set()
    assert lying(toy.folder) == {}


@pytest.mark.parametrize("kind", ["toy", "packed"])
def test_others_may_read_what_was_fetched(kind, request):
    folder = request.getfixturevalue(kind).folder
    mask = os.umask(0o022)
    try:
        request.getfixturevalue(kind).fetch()
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o644}


@pytest.mark.parametrize(
    "named",
    [
        "data set 'toy'",
        "a.gz is missing in {folder}",
        "{mirror}a.gz: ConnectionError",
        "`hqnn data fetch toy`",
        "dataset=digits",
    ],
)
def test_a_set_that_cannot_be_had_is_named_with_its_place_and_the_way_on(toy, closed_port, named):
    toy.mirrors[:] = [f"{closed_port}/"]
    with pytest.raises(DataError) as refusal:
        toy.fetch()
    assert named.format(folder=toy.folder, mirror=toy.mirrors[0]) in str(refusal.value)


def test_loading_a_set_that_cannot_be_had_says_so(monkeypatch, tmp_path, closed_port):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, closed_port)
    with pytest.raises(DataError, match=r"'mnist': train-images-idx3-ubyte\.gz is missing"):
        load("mnist")


# A process of its own knows the made-up catalogue by this.
PROGRAM = """
import json, sys
from hqnn_utils import cli
from hqnn_utils.datasets import catalogue
described = catalogue.Dataset(**json.loads(sys.argv[1]))
catalogue.entries = lambda: {described.name: described}
cli.main(["data", "fetch", described.name])
"""


def fetching(described: Dataset) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, json.dumps(vars(described))]
    # A shell's background jobs ignore Ctrl-C, and so would their children: not these.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_two_processes_may_fetch_the_same_file_at_once(toy, server):
    del toy.files["b.gz"]
    both = threading.Barrier(2)

    def answer(path):
        both.wait(60)  # neither gets its file before the other has asked
        return 200, GOOD[path], None

    server.answer = answer
    racing = [fetching(toy), fetching(toy)]
    outputs = [process.communicate(timeout=120) for process in racing]
    assert [process.returncode for process in racing] == [0, 0], outputs
    assert len(server.asked) == 2
    assert lying(toy.folder) == {"a.gz": GOOD["a.gz"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_leaves_nothing(toy, server, number):
    started, over = threading.Event(), threading.Event()

    def answer(path):
        started.set()
        over.wait(60)
        return FAULTS["out of order"]

    server.answer = answer
    process = fetching(toy)
    assert started.wait(60)
    process.send_signal(number)
    process.communicate(timeout=60)
    over.set()
    assert process.returncode != 0
    assert lying(toy.folder) == {}


def test_the_command_line_gives_up_on_a_set_that_cannot_be_reached(tmp_path, closed_port):
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys(("HTTPS_PROXY", "https_proxy"), closed_port) | {"HQNN_DATA": str(tmp_path)}
    command = [Path(sys.executable).parent / "hqnn", "data", "fetch", "mnist"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert all(said in done.stderr for said in ("'mnist'", str(tmp_path), "`hqnn data fetch mnist`", "dataset=digits"))
