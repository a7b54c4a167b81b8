"""Ways in and out of the pages: the line below a chapter's title, the source that travels along, what other programs see."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import about_chapter
import public_address
import pytest
import source_archive
import yaml
from pages import open_page
from PIL import Image

from hqnn_utils.files import read_notebook

REPOSITORY = Path(__file__).parents[2]
TOC = yaml.safe_load((REPOSITORY / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"]] + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
CHAPTERS = [page for page in PAGES if (REPOSITORY / f"{page}.ipynb").exists()]
each_chapter = pytest.mark.parametrize("page", CHAPTERS)


class Head(HTMLParser):
    """What a page's head says: `meta` by name, and `link` by relation."""

    def __init__(self, text: str):
        super().__init__()
        self.meta: dict[str, str] = {}
        self.links: dict[str, list[str]] = {}
        self.feed(text[: text.index("</head>")])

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        if tag == "meta" and "content" in said:
            self.meta[said.get("name") or said.get("property")] = said["content"]
        elif tag == "link":
            self.links.setdefault(said["rel"], []).append(said["href"])


def head(html: Path, page: str) -> Head:
    return Head((html / f"{page}.html").read_text(encoding="utf-8"))


def box(html: Path, page: str) -> str:
    """The text below a chapter's title, with its tags."""
    (found,) = re.findall(
        r'<details class="about">.*?</details>', (html / f"{page}.html").read_text(encoding="utf-8"), re.DOTALL
    )
    return found


# -- below the title ---------------------------------------------------------------------------------------------------


@each_chapter
def test_a_chapter_says_how_long_it_takes_what_it_read_and_how_to_cite_it(html, page):
    said = box(html, page)
    facts = read_notebook(REPOSITORY / f"{page}.ipynb")["metadata"]["hqnn"]
    assert re.search(r"<summary>[1-9]\d* minutes to read · [1-9]\d* (seconds|minutes) to run", said)
    assert about_chapter.duration(facts["wall_time_s"]) in said
    assert re.search(r"Python 3\.\d+\.\d+, hqnn-utils [\d.]+, PennyLane [\d.]+, PyTorch [\d.]+, NumPy [\d.]+", said)
    assert f"@incollection{{hqnn-{Path(page).name}," in said and "<dt>Data</dt>" in said


def test_a_chapter_names_its_data_its_tables_and_what_changed(html):
    said = box(html, "book/experiments/quantum_entanglement")
    assert "MNIST handwritten digits; Ants and bees of PyTorch" in said and "<code>data/results/slides.csv</code>" in said
    assert "None; the page computes" in box(html, "book/foundations/pqc")
    said = re.sub(r"<.*?>", "", box(html, "book/experiments/barren_plateaus"))
    assert re.search(
        r"Changed \S+.*?Do more qubits protect a gradient\? experiments/barren_plateaus, a page of its own", said, re.S
    )


@each_chapter
def test_a_chapters_notebook_and_the_books_source_are_had_from_the_page(html, page):
    links = re.findall(r'href="([^"]+)" download', box(html, page))
    notebook, archive = ((html / page).parent / link for link in links)
    assert notebook.read_bytes() == (REPOSITORY / f"{page}.ipynb").read_bytes()
    assert archive.resolve() == html / source_archive.NAME


@each_chapter
def test_a_chapter_leads_to_all_changes(html, page):
    """Below those that name it, or a sentence that none does."""
    (link,) = re.findall(r'</dd>\n<dd><a href="([^"]+)">All changes', box(html, page))
    assert ((html / page).parent / link).resolve() == html / "book/guide/changelog.html"
    assert re.search(r"<dt>Changed(</dt>\n<dd>Never| since| in )", box(html, page))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_line_leaves_the_answer_where_it_was_and_folds_out_by_keyboard(html, offline, width):
    tab, _, _ = open_page(offline, html, "book/evidence/multiverse")
    tab.set_viewport_size({"width": width, "height": 900})
    assert tab.locator("blockquote").first.bounding_box()["y"] < 450  # "In short", on the first screen
    line, inside = tab.locator("details.about summary"), tab.locator("details.about dl")
    assert line.bounding_box()["height"] < 60 and not inside.is_visible()
    line.focus()
    tab.keyboard.press("Enter")
    assert inside.is_visible() and inside.locator("button.copybtn").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


CHANGES = """# Changelog

## Unreleased

- One thing. Another one of `part/name`, and
  of `others`. A third of `name.py`.
- **Head.** Of `other`. Experiments 1 and 2 take <it>.

## 0.1.0 – 2026-11-23

- `name` stands.
"""


def test_what_changed_are_the_sentences_of_the_changelog_that_name_the_chapter():
    assert list(about_chapter.changes(CHANGES, "name", "Any")) == [
        ("Unreleased", "Another one of <code>part/name</code>, and of <code>others</code>."),
        ("0.1.0 – 2026-11-23", "<code>name</code> stands."),
    ]
    told = [("Unreleased", "Experiments 1 and 2 take &lt;it&gt;.")]
    assert list(about_chapter.changes(CHANGES, "no", "Experiment 1: a thing")) == told
    assert list(about_chapter.changes(CHANGES, "no", "Experiment 2: a thing")) == told
    assert list(about_chapter.changes(CHANGES, "no", "Experiment 3: a thing")) == []


# -- the source --------------------------------------------------------------------------------------------------------


def test_the_archive_holds_what_git_tracks_in_one_folder_with_a_page_that_says_what_to_do(html):
    with ZipFile(html / source_archive.NAME) as archive:
        folder, names = archive.namelist()[0].split("/")[0], archive.namelist()
        readme = archive.read(f"{folder}/README.md").decode()
        modes = {name: archive.getinfo(name).external_attr >> 16 for name in names}
    assert names == [f"{folder}/{name}" for name in source_archive.files(REPOSITORY)]
    assert {f"{folder}/{name}" for name in ("Makefile", "_config.yml", "requirements.lock", "book/intro.md")} <= set(names)
    assert not [name for name in names if re.search(r"/(\.git|\.venv|_build|runs|data/cache)/", name)]
    assert "make book" in readme and source_archive.NAME in readme
    assert modes[f"{folder}/.binder/postBuild"] == 0o755 and modes[f"{folder}/README.md"] == 0o644


def test_the_same_files_make_the_same_archive_with_git_or_without(unpacked, tmp_path):
    """Of what was unpacked, with what work leaves behind beside it."""
    for left in (
        ".venv/lib/a.py",
        "_build/html/a.html",
        "runs/a.ipynb",
        "data/cache/mnist/a.gz",
        "book/.a.ipynb",
        ".git/config",
    ):
        (unpacked / left).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / left).write_text("left")
    again, later = tmp_path / "again.zip", unpacked / "README.md"
    os.utime(later, (2e9, 2e9))
    source_archive.write(unpacked, again)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(unpacked.with_suffix(".zip").read_bytes()).digest()


def unpack(archive: Path, place: Path) -> Path:
    """As `unzip` does, and Python does not: with what may be executed."""
    with ZipFile(archive) as packed:
        for entry in packed.infolist():
            os.chmod(packed.extract(entry, place), entry.external_attr >> 16)
    (folder,) = place.iterdir()
    return folder


@pytest.fixture
def unpacked(html, tmp_path) -> Path:
    """What a reader has who unpacks the archive."""
    folder = unpack(html / source_archive.NAME, tmp_path)
    shutil.copy(html / source_archive.NAME, folder.with_suffix(".zip"))
    return folder


PUBLIC = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "ada/book",
    "GITHUB_REF_TYPE": "tag",
    "GITHUB_REF_NAME": "v9.9",
    "BOOK_ADDRESS": "https://ada.example/book",
}


@pytest.fixture(scope="module")
def published(html, tmp_path_factory) -> Path:
    """Two pages, built without git from what was unpacked, as the publishing workflow would."""
    folder = unpack(html / source_archive.NAME, tmp_path_factory.mktemp("elsewhere"))
    (folder / "short.yml").write_text("format: jb-book\nroot: book/guide/glossary\nchapters:\n- file: book/foundations/pqc\n")
    command = [Path(sys.executable).parent / "jupyter-book", "build", ".", "--toc", "short.yml"]
    env = os.environ | PUBLIC | {"PYTHONPATH": str(folder)}  # the package that was unpacked, not the one installed here
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    warned = re.findall(r"WARNING: (.*)", done.stderr)
    left_out = r"unknown document|could not find bibtex key|undefined label|.*reference target not found"
    assert not [text for text in warned if not re.match(left_out, text)]
    return folder / "_build" / "html"


def test_what_was_unpacked_makes_pages_that_carry_the_source_again(published, offline):
    tab, asked, complaints = open_page(offline, published, "book/foundations/pqc")
    assert asked == [] and complaints == [] and tab.locator("details.about").count() == 1
    with ZipFile(published / source_archive.NAME) as archive:
        assert len(archive.namelist()) > 200


# -- links to where the book is public ---------------------------------------------------------------------------------


def test_published_pages_lead_to_the_repository_and_to_where_they_run(published):
    text = (published / "book/foundations/pqc.html").read_text(encoding="utf-8")
    wanted = {
        "https://github.com/ada/book",
        "https://colab.research.google.com/github/ada/book/blob/v9.9/book/foundations/pqc.ipynb",
        "https://mybinder.org/v2/gh/ada/book/v9.9?urlpath=lab/tree/book/foundations/pqc.ipynb",
        "https://codespaces.new/ada/book",
    }
    buttons = set(re.findall(r'<a href="(https://[^"]+)" target="_blank"', text))
    assert wanted <= buttons
    assert [link for link in buttons if link.startswith("https://github.com/ada/book/issues/new")]
    assert set(re.findall(r'href="(https://[^"]+)"', box(published, "book/foundations/pqc"))) == wanted - {
        "https://github.com/ada/book"
    }


def test_published_pages_know_their_address_and_show_a_card(published):
    page = "book/foundations/pqc"
    said, address = head(published, page), f"https://ada.example/book/{page}.html"
    assert said.links["canonical"] == [said.meta["og:url"]] == [address]
    assert address in box(published, page)
    card = published / said.meta["og:image"].removeprefix("https://ada.example/book/")
    assert Image.open(card).size == (int(said.meta["og:image:width"]), int(said.meta["og:image:height"])) == (1200, 630)
    places = [place.text for place in ElementTree.parse(published / "sitemap.xml").findall("{*}url/{*}loc")]
    assert places == [address, "https://ada.example/book/book/guide/glossary.html"]


def test_pages_of_no_known_address_lead_nowhere(html):
    """Those of a checkout whose remote is public, or of a workflow, are another's business."""
    if public_address.of_checkout(REPOSITORY) or os.environ.get("BOOK_ADDRESS"):
        pytest.skip("this checkout is public")
    assert not (html / "sitemap.xml").exists()
    for page in PAGES:
        text, said = (html / f"{page}.html").read_text(encoding="utf-8"), head(html, page)
        assert "canonical" not in said.links and not {"og:url", "og:image"} & said.meta.keys()
        assert "launch-buttons" not in text and "source-repository-button" not in text and "mybinder.org" not in text


# -- what other programs see -------------------------------------------------------------------------------------------


def test_every_page_has_a_description_of_its_own(html):
    said = {page: head(html, page).meta for page in PAGES}
    assert len({meta["description"] for meta in said.values()}) == len(PAGES)
    for page, meta in said.items():
        assert meta["og:description"] == meta["description"] and meta["og:title"]
        assert 40 < len(meta["description"]) < 400, page
        assert not re.search(r"<!--|\\|\$|In short", meta["description"]), page
    assert said["book/intro"]["description"].startswith("Do quantum circuits make neural networks better?")


def test_every_page_has_an_icon_for_every_browser(html):
    for page in [*PAGES, "search", "genindex"]:
        links = head(html, page).links
        files = [((html / page).parent / link).resolve() for link in links["icon"] + links["apple-touch-icon"]]
        assert {file.suffix for file in files} == {".svg", ".png"} and all(file.is_file() for file in files)
    ElementTree.parse(html / "_static/favicon.svg")
    assert Image.open(html / "_static/favicon.png").size == (180, 180)
