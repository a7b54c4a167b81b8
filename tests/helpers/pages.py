"""A page of the built book in a browser."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from playwright.sync_api import BrowserContext, Page

TOC = yaml.safe_load((Path(__file__).parents[2] / "_toc.yml").read_text(encoding="utf-8"))


def listed(entries: list[dict]) -> Iterator[str]:
    """The pages of a part of the contents, and those below them."""
    for entry in entries:
        yield entry["file"]
        yield from listed(entry.get("sections", []))


PAGES = [TOC["root"], *(page for part in TOC["parts"] for page in listed(part["chapters"]))]

HARMLESS = ("THEBE_JS_URL", "invalid theme mode")  # what the theme itself says on every page
# The theme preloads its fonts across origins, which browsers refuse from disk; they then load them through the style sheet.
PRELOAD = ("Access to font", "net::ERR_FAILED")


class Complaints(list):
    """What a page complained of, without what the theme says on every page."""

    def append(self, text: str) -> None:
        if not any(known in text for known in HARMLESS + PRELOAD):
            super().append(text)


def open_page(context: BrowserContext, html: Path, page: str) -> tuple[Page, list[str], list[str]]:
    """A page from disk, what it asked for elsewhere or did not get, and what it complains of, also later on."""
    tab = context.new_page()
    asked, complaints = [], Complaints()
    tab.on("request", lambda request: asked.append(request.url) if request.url.startswith(("http", "ws")) else None)
    tab.on("requestfailed", lambda request: asked.append(request.url) if request.resource_type != "font" else None)
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto((html / f"{page}.html").as_uri())
    tab.wait_for_load_state("load")
    tab.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
    return tab, asked, complaints
