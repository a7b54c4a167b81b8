"""The browser in which pages and notebooks are opened."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright


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
