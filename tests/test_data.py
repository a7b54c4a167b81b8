"""The data sets: what they hold, how they are drawn, and downloads from a real server that misbehaves."""

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
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils import catalogue
from hqnn_utils.catalogue import DataError, Entry, entry, fetch, root, verify
from hqnn_utils.data import load

MNIST_COUNTS = {  # images per class, as published with the set
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
DIGITS = load("digits")


# -- what the sets hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", catalogue.catalogue().values(), ids=lambda described: described.name)
def test_the_catalogue_describes_every_set_in_full(described):
    assert all([described.title, described.licence, described.citation, described.homepage.startswith("http")])
    assert len(set(described.classes)) == len(described.classes) >= 2
    assert set(described.counts) == {"train", "test"}
    assert bool(described.embedded) != bool(described.files)
    assert all(len(bytes.fromhex(file["sha256"])) == 32 for file in described.files.values())
    assert described.embedded or described.bytes > 0
    assert sum(map(bool, (described.embedded, described.mirrors, described.archive, described.kaggle))) == 1
    assert not described.size or sum(described.counts.values()) == len(described.files)
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
    assert verify("digits") == {"scikit-learn": "ok"}


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
    ],
)
def test_images_that_are_not_there_are_refused(arguments, sentence):
    with pytest.raises(DataError, match=sentence):
        load(**{"name": "digits"} | arguments)


# -- where they lie ----------------------------------------------------------------------------------------------------


def test_the_data_root_is_hqnn_data_where_that_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    assert (root(), entry("mnist").folder) == (tmp_path, tmp_path / "mnist")


def test_the_data_root_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HQNN_DATA", "~/sets")
    assert root() == Path.home() / "sets"


def test_the_data_root_is_the_checkouts_cache_otherwise(monkeypatch):
    monkeypatch.delenv("HQNN_DATA", raising=False)
    assert root() == Path(__file__).parents[1] / "data" / "cache"


# -- how they get there ------------------------------------------------------------------------------------------------

GOOD = {"a.gz": b"first " * 5000, "b.gz": b"second" * 7000}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Server:
    """An HTTP server on a port of its own that answers as `answer(path)` says: (status, body, length it claims)."""

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
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

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
    described = Entry("toy", classes=["0", "1"], counts={}, mirrors=[f"{server.url}/good/"], files=files, **about)
    monkeypatch.setattr(catalogue, "catalogue", lambda: {"toy": described})
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
}
faulty = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


# A set of many files comes as one archive.

PICTURES = {"Training/a/1.jpg": b"first" * 500, "Training/b/2 (1).jpg": b"second" * 500, "Testing/a/3.jpg": b"third" * 500}


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for file, body in files.items():
            archive.writestr(f"inside/{file}", body)
    return content.getvalue()


@pytest.fixture
def packed(monkeypatch, tmp_path, server):
    """A made-up data set whose files come in an archive that the server delivers."""
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = {name: {"sha256": sha256(content)} for name, content in PICTURES.items()}
    about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
    place = dict(archive=f"{server.url}/all.zip", inside="inside/", size=1)
    described = Entry("packed", classes=["a", "b"], counts={}, files=files, **place, **about)
    monkeypatch.setattr(catalogue, "catalogue", lambda: {"packed": described})
    server.answer = lambda path: (200, zipped(PICTURES | {"unwanted.gif": b"GIF"}), None)
    return described


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_lands_as_the_files_of_the_catalogue_and_no_others(packed, server):
    fetch("packed")
    assert held(packed.folder) == PICTURES
    server.asked.clear()
    fetch("packed")
    assert server.asked == []


def test_an_altered_file_is_taken_anew_from_the_archive(packed):
    fetch("packed")
    (packed.folder / "Testing/a/3.jpg").write_bytes(b"bit rot")
    fetch("packed")
    assert held(packed.folder) == PICTURES


BAD_ARCHIVES = {
    "altered": ((200, zipped(PICTURES | {"Testing/a/3.jpg": b"other"}), None), "its SHA-256 is not the catalogue's", 1),
    "incomplete": ((200, zipped({k: v for k, v in PICTURES.items() if "3" not in k}), None), "no item named .*3.jpg", 1),
    "a page in its place": ((200, b"<html>Please log in</html>", None), "not a zip archive", 3),
    "truncated": ((200, zipped(PICTURES)[:900], None), "not a zip archive", 3),
    "not found": ((404, b"no such file", None), "404", 3),
}


@pytest.mark.parametrize(("answer", "cause", "left"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_refused_with_its_cause_and_leaves_only_good_files(packed, server, answer, cause, left):
    server.answer = lambda path: answer
    with pytest.raises(DataError, match=f"'packed': {left} of 3 files are still missing or altered .*{cause}"):
        fetch("packed")
    found = held(packed.folder) if packed.folder.exists() else {}
    assert len(found) == 3 - left and found.items() <= PICTURES.items()


def test_a_set_from_kaggle_says_what_to_install(packed, monkeypatch):
    described = replace(packed, archive="", kaggle="someone/something")
    monkeypatch.setattr(catalogue, "catalogue", lambda: {"packed": described})
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # as where it is not installed
    with pytest.raises(DataError, match=r"from kaggle\.com/datasets/someone/something: .*pip install kagglehub"):
        fetch("packed")


def test_a_set_from_kaggle_is_checked_like_any_other(packed, monkeypatch, tmp_path):
    described = replace(packed, archive="", kaggle="someone/something")
    monkeypatch.setattr(catalogue, "catalogue", lambda: {"packed": described})
    for file, content in PICTURES.items():
        path = tmp_path / "kaggle" / "inside" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if "3" not in file else b"other")
    asked = SimpleNamespace(dataset_download=lambda handle: str(tmp_path / "kaggle") if handle == "someone/something" else "")
    monkeypatch.setitem(sys.modules, "kagglehub", asked)
    with pytest.raises(DataError, match="1 of 3 files are still missing or altered"):
        fetch("packed")
    (tmp_path / "kaggle" / "inside" / "Testing/a/3.jpg").write_bytes(PICTURES["Testing/a/3.jpg"])
    fetch("packed")
    assert held(packed.folder) == PICTURES


def test_photographs_are_not_loaded_as_digits_are(packed):
    with pytest.raises(DataError, match="is a set of photographs"):
        load("packed")


def test_a_download_lands_whole_and_alone(toy):
    fetch("toy")
    assert lying(toy.folder) == GOOD
    assert set(verify("toy").values()) == {"ok"}


def test_what_is_here_is_not_fetched_again(toy, server):
    fetch("toy")
    server.asked.clear()
    fetch("toy")
    assert server.asked == []


@faulty
def test_a_bad_download_is_refused_and_leaves_nothing(toy, server, fault):
    server.answer = instead(a=fault, b=fault)
    with pytest.raises(DataError, match=r"'toy': a\.gz is missing .* could not be downloaded"):
        fetch("toy")
    assert lying(toy.folder) == {}


@faulty
def test_a_bad_download_leaves_the_good_files_as_they_were(toy, server, fault):
    toy.folder.mkdir()
    (toy.folder / "a.gz").write_bytes(GOOD["a.gz"])
    server.answer = instead(b=fault)
    with pytest.raises(DataError, match=r"b\.gz is missing"):
        fetch("toy")
    assert lying(toy.folder) == {"a.gz": GOOD["a.gz"]}


def test_an_altered_file_is_noticed_and_fetched_anew(toy):
    fetch("toy")
    (toy.folder / "b.gz").write_bytes(b"bit rot")
    assert verify("toy") == {"a.gz": "ok", "b.gz": "altered"}
    fetch("toy")
    assert lying(toy.folder) == GOOD


def test_an_altered_file_that_cannot_be_mended_is_named(toy, server):
    toy.folder.mkdir()
    (toy.folder / "a.gz").write_bytes(b"bit rot")
    server.answer = instead(a=FAULTS["not found"])
    with pytest.raises(DataError, match=r"a\.gz is altered"):
        fetch("toy")


def test_a_wrong_checksum_is_called_that(toy, server):
    server.answer = instead(a=FAULTS["altered"])
    with pytest.raises(DataError, match="refused, its SHA-256 is not the catalogue's"):
        fetch("toy")


@faulty
def test_a_second_mirror_delivers_where_the_first_does_not(toy, server, fault):
    toy.mirrors.insert(0, f"{server.url}/bad/")
    bad = iter([fault])  # the very first answer
    server.answer = lambda path: next(bad, (200, GOOD[path], None))
    fetch("toy")
    assert server.asked[:2] == ["/bad/a.gz", "/good/a.gz"]
    assert lying(toy.folder) == GOOD


def test_a_mirror_that_nobody_answers_is_passed_over(toy, closed_port):
    toy.mirrors.insert(0, f"{closed_port}/")
    fetch("toy")
    assert lying(toy.folder) == GOOD


def test_a_mirror_that_stays_silent_is_given_up(toy, server):
    waiting = threading.Event()

    def silence(path):
        waiting.wait(30)
        return FAULTS["out of order"]

    server.answer = silence
    with pytest.raises(DataError, match="Timeout"):
        fetch("toy", timeout=0.2)
    waiting.set()


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
        fetch("toy")
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
from hqnn_utils import catalogue, cli
described = catalogue.Entry(**json.loads(sys.argv[1]))
catalogue.catalogue = lambda: {described.name: described}
cli.main(["data", "fetch", described.name])
"""


def fetching(described: Entry) -> subprocess.Popen:
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
