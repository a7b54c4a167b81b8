"""Downloads and features under kill -9: what is there is whole, nothing is lost, and the next run clears up and ends well.

`HQNN_KILLS` says how often each is killed; a handful by default, because each costs the start of a process.
"""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zipfile import ZipFile

import pytest

KILLS = int(os.environ.get("HQNN_KILLS", "3"))
FILES = {f"{name}.bin": random.Random(name).randbytes(400_000) for name in "ab"}
CHUNK = 20_000
SLOWLY = 0.002  # seconds between chunks, so that a kill meets a download on its way


@pytest.fixture
def served():
    """A server of the files and of an archive of them; `served.wait(n)` returns when it has sent n chunks more."""
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for name, body in FILES.items():
            archive.writestr(name, body)
    bodies, sent = FILES | {"all.zip": content.getvalue()}, threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # who asked was killed
                for start in range(0, len(body), CHUNK):
                    self.wfile.write(body[start : start + CHUNK])
                    sent.release()
                    time.sleep(SLOWLY)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.url, server.sent = f"http://127.0.0.1:{server.server_port}/", sent
        yield server
        server.shutdown()


FETCH = """
import json, sys
from hqnn_utils.datasets import catalogue
described = catalogue.Dataset(**json.loads(sys.argv[1]))
catalogue.entries = lambda: {described.name: described}
described.fetch()
"""


@pytest.mark.parametrize("source", ["mirrors", "archive"])
def test_a_killed_download_leaves_whole_files_and_nothing_after_the_next(served, tmp_path, source):
    files = {name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in FILES.items()}
    place = {"mirrors": [served.url]} if source == "mirrors" else {"archive": f"{served.url}all.zip", "size": 800_000}
    about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
    described = json.dumps(dict(name="toy", kind="digits", classes=["0", "1"], counts={}, files=files, **place, **about))
    environment = os.environ | {"HQNN_DATA": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    command, moments = [sys.executable, "-c", FETCH, described], random.Random(source)

    def lying() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}

    killed = 0
    while killed < KILLS:
        for path in (tmp_path / "toy").glob("*.bin"):
            path.unlink()
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            for _ in range(moments.randint(1, 40)):
                assert served.sent.acquire(timeout=60)
            time.sleep(moments.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        while served.sent.acquire(blocking=False):
            pass
        assert {name: body for name, body in lying().items() if not name.startswith(".")}.items() <= FILES.items()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert lying() == FILES


FEATURES = """
import os, random, signal, sys, time, torch
import numpy as np
from pathlib import Path
from PIL import Image
from torchvision.models import resnet18
from hqnn_utils.datasets import backbone
from hqnn_utils.datasets.photos import Photos

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
paths = [folder / f"{k}.png" for k in range(12)]
for k, path in enumerate(paths):
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
few = Photos("few", ["a"], paths, np.zeros(12, int), np.array(["train"] * 12), "sha")
torch.manual_seed(0)
network, compute, computed = resnet18(weights=None).eval(), backbone._computed, []
backbone.resnet18, backbone.PART = lambda weights: network, 1
backbone._computed = lambda *given: computed.append(given) or compute(*given)

def kept():
    return sum(path.stat().st_size for path in (folder / "cache").glob("[!.]*.kept")) // (512 * 4)

ready, moments = 0, random.Random(0)
for _ in range(kills):
    if kept() == 12:  # all there: from the start again
        for file in (folder / "cache").glob("*.kept"):
            file.unlink()
        ready = 0
    child = os.fork()  # importing torch takes longer than all that is tested here
    if not child:
        backbone.features(few, cache=folder / "cache")
        os._exit(0)
    time.sleep(moments.random() * 0.3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert kept() >= ready, "what was kept was lost"
    ready = kept()
found = backbone.features(few, cache=folder / "cache")
assert len(computed) == 12 - ready, "what was there was computed again"
assert torch.equal(found, backbone.features(few, cache=folder / "another")), "not the same"
assert ready == 12 or not list((folder / "cache").rglob(".*")), "something was left"
"""


def test_killed_features_go_on_where_they_were_and_are_the_same(tmp_path):
    command = [sys.executable, "-c", FEATURES, tmp_path, str(KILLS)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
