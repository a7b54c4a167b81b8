"""The built book, and the browser in which pages and notebooks are opened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import BrowserContext, sync_playwright

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def browser():
    """Chromium, Debian's or playwright's own. Continuous integration must have one; a reader may go without."""
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = own if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        if not found:
            assert not os.environ.get("CI"), "no Chromium: .ci/run installs one"
            pytest.skip("no Chromium: `apt install chromium` or `.venv/bin/playwright install chromium`")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        launched = playwright.chromium.launch(executable_path=found, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    """The book, built from nothing with warnings as errors, once for all workers; or the pages in `$HQNN_PAGES`."""
    if pages := os.environ.get("HQNN_PAGES"):
        return Path(pages).resolve()
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    built = folder / "_build" / "html"
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            builder = Path(sys.executable).parent / "jupyter-book"
            command = [builder, "build", ".", "-W", "--keep-going", "--path-output", folder]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
            (folder / "whole").touch()
    return built


@pytest.fixture
def offline(browser) -> BrowserContext:
    """A window without a network."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield context
    context.close()
