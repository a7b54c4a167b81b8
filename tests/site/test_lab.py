"""A chapter as whoever opens it meets it: in a real JupyterLab, in a real browser."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hqnn_utils.notebooks import results

CHAPTER = Path(__file__).parents[2] / "book" / "foundations" / "pqc.ipynb"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a folder with the chapter in it."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(CHAPTER, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--ip=127.0.0.1",
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
        "--LabApp.news_url=",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--notebook-dir={folder}"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        while not _answers(address):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(120)  # it ends its kernels first, on a machine that may be busy


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{address}/api", timeout=5).read())
    except OSError:
        return False


@pytest.fixture
def notebook(browser, lab) -> Page:
    tab = browser.new_page(viewport={"width": 1280, "height": 4000})  # high, since Lab draws only what is in sight
    tab.goto(f"{lab}/lab/tree/{CHAPTER.name}?reset")
    tab.locator(".jp-MarkdownCell p").first.wait_for()
    yield tab
    tab.close()


def test_jupyterlab_shows_the_numbers_of_a_chapter_and_no_raw_markup(notebook):
    sentence = notebook.locator(".jp-MarkdownCell p", has_text="Now for all angles. Three facts")
    sentence.wait_for()
    found = results.of(CHAPTER)
    for name, form in (("theta", ".2f"), ("f_theta", ".4f")):
        assert f"{found[name].value:{form}}".replace("-", "−") in sentence.inner_text()
    shown = notebook.locator(".jp-Notebook")
    expect(shown).to_contain_text("Parameterized quantum circuits")
    raw = re.compile(r"<!--|\{glue|\{admonition\}|:::")
    expect(shown).not_to_contain_text(raw, use_inner_text=True, timeout=30_000)  # waits until all is drawn


def test_jupyterlab_shows_what_a_cell_found_as_a_table(notebook):
    table = notebook.locator("table", has_text="Results of this cell").filter(has_text="f_theta")
    table.wait_for()
    assert f"{results.of(CHAPTER)['f_theta'].value:.6g}" in table.inner_text()
