"""The whole book as one PDF: the articles of all built pages on a single page, printed by Chromium.

`make pdf`, or `python tools/pdf.py _build/html book.pdf`. How it looks is `_static/print.css`, which prints single pages, too.
"""

import os
import re
import shutil
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from posixpath import dirname, join, normpath
from tempfile import NamedTemporaryFile

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader

ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def listed(entries: list[dict]) -> list[str]:
    """The pages of a part of the contents, and those below them."""
    return [page for entry in entries for page in (entry["file"], *listed(entry.get("sections", [])))]


PARTS = {"": [TOC["root"]]} | {part["caption"]: listed(part["chapters"]) for part in TOC["parts"]}
NEEDED = ("stylesheet", "MathJax", "tex-chtml", "live.js")  # of the pages' heads; other scripts move things, or fetch them
NUMBERS = "n => document.querySelectorAll('.book-contents a').forEach(a => a.nextElementSibling.textContent = n[a.hash])"
READY = "MathJax.startup.promise.then(() => document.fonts.ready).then(() => true)"
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8"><title>{title}</title>{head}</head><body>
<section class="cover"><p class="title">{title}</p><p>{authors[0][name]}</p><p>{edition}</p></section>
<nav class="book-contents" aria-label="Contents"><h1>Contents</h1><ul>{contents}</ul></nav>
<main class="bd-main"><div class="bd-content"><div class="bd-article-container">{articles}</div></div></main></body></html>"""


def read(html: Path, page: str) -> BeautifulSoup:
    """A built page."""
    return BeautifulSoup((html / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def article(html: Path, page: str, pages: list[str], level: int) -> Tag:
    """What a page says, with names and addresses that hold beside all other pages."""
    found = read(html, page).find("article")
    for part in found.find_all(lambda tag: tag.get("id") and not tag.find_parent("svg")):  # a drawing's are its own
        part["id"] = f"{page}--{part['id']}"
    found["id"] = page
    for script in found.find_all("script"):
        script.decompose()
    for heading in found.find_all(["h1", "h2", "h3", "h4"]):
        heading["aria-level"] = int(heading.name[1]) + level  # below the part, in the outline
    for image in found.find_all("img", src=lambda source: not source.startswith("data:")):
        image["src"] = normpath(join(dirname(page), image["src"]))
    for link in found.find_all("a", href=True):
        address, _, name = link["href"].partition("#")
        target = normpath(join(dirname(page), address)).removesuffix(".html") if address else page
        if target in pages:
            link["href"] = f"#{target}--{name}" if name else f"#{target}"
        elif ":" not in address:
            del link["href"]  # a file beside the pages, which the PDF does not have
    return found


def edition() -> str:
    """Which version this is."""
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    if "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        return f"Work in progress, after version {about['version']}"
    return f"Version {about['version']}, {about['date-released']}"


def single_page(html: Path, parts: dict[str, list[str]]) -> str:
    """Title, contents and articles."""
    head = [tag for tag in read(html, TOC["root"]).head(["link", "script"]) if any(name in str(tag) for name in NEEDED)]
    for tag, name in [(tag, name) for tag in head for name in ("href", "src") if name in tag.attrs]:
        tag[name] = normpath(join(dirname(TOC["root"]), tag[name]))
    pages, contents, articles = [page for files in parts.values() for page in files], "", ""
    for caption, files in parts.items():
        found = [article(html, page, pages, level=bool(caption)) for page in files]
        # A chapter by the words of its heading, without the sign at their end that links to it.
        titles = {each["id"]: "".join(map(str, each.h1.contents[:-1])) for each in found}
        lines = [f'<li><a href="#{page}">{title}</a> <span></span></li>' for page, title in titles.items()]
        contents += f"<li>{caption}<ul>{''.join(lines)}</ul></li>" if caption else "".join(lines)
        articles += "".join([f'<h1 class="part">{caption}</h1>' if caption else "", *map(str, found)])
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return PAGE.format(head="".join(map(str, head)), contents=contents, articles=articles, edition=edition(), **about)


def begins(printed: bytes) -> dict[str, int]:
    """On which sheet every page and part of one begins, by its address."""
    book = PdfReader(BytesIO(printed))
    return {f"#{name[1:]}": book.get_destination_page_number(to) + 1 for name, to in book.named_destinations.items()}


def make(browser: Browser, html: Path, output: Path, parts: dict[str, list[str]] = PARTS) -> None:
    """Print parts of the book that lies in a folder; nothing is asked of the network.

    At least twice: only a print tells on which sheet a page begins, and the contents of the next say so. The same pages give
    the same bytes at the time `$SOURCE_DATE_EPOCH`.
    """
    how = {"format": "A4", "print_background": True, "tagged": True, "outline": True}
    tab = browser.new_page(offline=True)
    tab.set_default_timeout(600_000)
    with NamedTemporaryFile("w", encoding="utf-8", dir=html, suffix=".html") as file:
        file.write(single_page(html, parts))
        file.flush()
        tab.goto(Path(file.name).as_uri())
        tab.wait_for_function(READY)
        told, printed = None, tab.pdf(**how)
        while told != (found := begins(printed)):  # Chromium may break the second print elsewhere than the first
            tab.evaluate(NUMBERS, found)
            told, printed = found, tab.pdf(**how)
    tab.close()
    if moment := os.environ.get("SOURCE_DATE_EPOCH"):
        date = datetime.fromtimestamp(int(moment), UTC).strftime("%Y%m%d%H%M%S").encode()
        printed = re.sub(rb"(?<=Date \(D:)\d{14}(?=\+00'00'\))", date, printed)
    output.write_bytes(printed)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")  # Debian's, or else playwright's own
        make(playwright.chromium.launch(executable_path=found, args=["--no-sandbox"]), Path(sys.argv[1]), Path(sys.argv[2]))
