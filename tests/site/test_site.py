"""The rendered book, as readers meet it: every page from disk, in a real browser, with the network off."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from pages import PAGES, open_page
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
CHAPTERS = [page for page in PAGES if (REPOSITORY / f"{page}.ipynb").exists()]


class Images(HTMLParser):
    """Every image of the article: (source, alternative text)."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(text[text.index('<article class="bd-article"') : text.index("</article>")])

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append((dict(attrs)["src"], dict(attrs).get("alt", "")))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_contents_exists(html, page):
    text = (html / f"{page}.html").read_text(encoding="utf-8")
    assert "<h1>" in text


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_holds_all_its_figures_each_with_words_for_those_who_do_not_see_it(html, page):
    notebook = nbformat.read(REPOSITORY / f"{page}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    images = Images((html / f"{page}.html").read_text(encoding="utf-8")).found
    assert len(images) == figures > 0
    for source, alternative in images:
        assert ((html / page).parent / source).resolve().stat().st_size > 2000
        assert len(alternative) > 30


PROSE = """() => {
    const article = document.querySelector("article").cloneNode(true);
    article.querySelectorAll("pre, code").forEach(part => part.remove());
    return article.textContent;
}"""
"""Of a page: its text without code."""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_a_network_and_without_complaint(html, offline, page):
    tab, asked, complaints = open_page(offline, html, page)
    assert asked == [] and complaints == []
    formulas = tab.locator("article .math").count()
    assert tab.locator("article mjx-container").count() == formulas
    assert tab.locator("mjx-merror").count() == 0
    assert "```" not in tab.evaluate(PROSE), "a directive that is shown instead of followed"
    broken = tab.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
    assert broken == []
    fonts = tab.evaluate("document.fonts.ready.then(fonts => [...fonts].map(f => [f.family, f.status]))")
    assert ["Font Awesome 6 Free", "loaded"] in fonts and "error" not in {status for _, status in fonts}
    assert "problematic" not in tab.content(), "a reference that was not resolved"


def test_chapters_have_mathematics(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])
    assert tab.locator("article mjx-container").count() > 20


def test_the_index_leads_to_the_first_page(html, offline):
    tab = offline.new_page()
    tab.goto((html / "index.html").as_uri())
    tab.wait_for_url("**/book/intro.html")
    assert "quantum" in tab.title().lower()


def test_search_finds_a_page_without_a_network(html, offline):
    tab = offline.new_page()
    tab.goto((html / "search.html").as_uri() + "?q=concurrence")
    tab.locator("#search-results li a").first.wait_for()
    assert "entanglement" in " ".join(tab.locator("#search-results li a").all_inner_texts()).lower()


def test_code_can_be_copied(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])
    assert tab.locator("div.cell_input button.copybtn").count() > 10


def test_solutions_are_hidden_until_asked_for(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])
    solution = tab.locator("div.solution.dropdown").first
    body = solution.locator(".cell_input").first
    assert not body.is_visible()
    solution.locator("button.toggle-button").click()
    body.wait_for(state="visible")


def test_dark_mode_darkens_the_page_and_keeps_figures_on_white(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])

    def ground() -> list[int]:
        return [int(n) for n in re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))][:3]

    assert min(ground()) > 200
    tab.evaluate("document.documentElement.dataset.mode = 'dark'; document.documentElement.dataset.theme = 'dark'")
    assert max(ground()) < 60
    figure = Image.open(io.BytesIO(tab.locator("article .cell_output img").first.screenshot()))
    assert figure.convert("L").getpixel((2, 2)) > 150  # the theme dims pictures a little


def test_the_status_page_lists_every_chapter(html):
    text = (html / "book" / "guide" / "status.html").read_text(encoding="utf-8")
    for page in CHAPTERS:
        assert f"<p>{Path(page).name}</p>" in text
