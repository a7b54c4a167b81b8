"""The rendered book, as readers meet it: every page from disk, in a real browser, with the network off."""

import gzip
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import PAGES, open_page
from PIL import Image
from playwright.sync_api import Page

REPOSITORY = Path(__file__).parents[2]
CHAPTERS = [page for page in PAGES if (REPOSITORY / f"{page}.ipynb").exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_contents_exists(html, page):
    text = (html / f"{page}.html").read_text(encoding="utf-8")
    assert "<h1>" in text


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_holds_all_its_figures_each_with_words_for_those_who_do_not_see_it(html, page):
    notebook = nbformat.read(REPOSITORY / f"{page}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = sum("image/svg+xml" in output.get("data", {}) for output in outputs)
    text = (html / f"{page}.html").read_text(encoding="utf-8")
    drawings = re.findall(r'<svg class="drawn" role="img" aria-label="([^"]*)"', text)
    assert len(drawings) == figures > 0
    assert min(map(len, drawings)) > 30


PROSE = """() => {
    const article = document.querySelector("article").cloneNode(true);
    article.querySelectorAll("pre, code").forEach(part => part.remove());
    return article.textContent;
}"""
"""Of a page: its text without code."""


UNREACHABLE = """() => [...document.querySelectorAll("article div.math mjx-container")].filter(box => {
    const parts = [...box.querySelectorAll("mjx-math, mjx-math *")].map(part => part.getBoundingClientRect());
    const shown = parts.filter(part => part.width);
    const edge = box.getBoundingClientRect().left - box.scrollLeft;
    return Math.min(...shown.map(part => part.left)) < edge - 1
        || Math.max(...shown.map(part => part.right)) > edge + box.scrollWidth + 1
        || box.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map(box => box.textContent)"""
"""Displayed formulas of which a part is neither seen nor moved to."""

SHRUNK = """() => [...document.querySelectorAll("article figure svg.drawn")].map(drawing =>
    drawing.getBoundingClientRect().width / parseFloat(drawing.style.getPropertyValue("--natural")))"""
"""How large the drawings are, as shares of the size that they were drawn in."""

SMALL = """() => {
    const size = of => parseFloat(getComputedStyle(of).fontSize);
    const read = size(document.querySelector("article p"));
    const scale = part => { const { a, b } = part.getScreenCTM(); return Math.hypot(a, b); };
    return [...document.querySelectorAll("article figure svg.drawn text")]
        .filter(part => part.textContent.trim() && size(part) * scale(part) < 0.8 * read - 0.05)
        .map(part => part.textContent);
}"""
"""Words of drawings whose letters are smaller than four fifths of those of the text."""

CUT = """() => {
    const folded = [...document.querySelectorAll("article details:not([open])")];
    folded.forEach(part => part.open = true);
    const cut = [...document.querySelectorAll("article pre")].filter(part => part.scrollWidth > part.clientWidth);
    const lines = cut.map(part => part.textContent.split("\\n").sort((a, b) => b.length - a.length)[0]);
    folded.forEach(part => part.open = false);
    return lines;
}"""
"""The longest line of each block of code, or of what a program said, that is wider than its box, folded or not."""

BEYOND = """() => [...document.querySelectorAll("article *")].filter(part => {
    if (part.closest("pre, table, mjx-container, svg, figure, .visually-hidden, dialog")) return false;
    const box = part.getBoundingClientRect();
    return box.width && box.right > document.documentElement.clientWidth + 1;
}).map(part => part.outerHTML.slice(0, 200))"""
"""Parts of the article that the window's edge cuts off; what scrolls within itself is looked at by its own frame."""

PLAINER = """() => {
    const code = document.querySelectorAll(".highlight pre, .sig-param, .sig-return");
    for (const part of code) part.textContent = part.textContent;
    for (const inside of document.querySelectorAll("mjx-container > *, svg.drawn > *")) inside.remove();
}"""
"""A page whose code, formulas and drawings are one element each, so that axe does not look at each of their thousand parts."""

ICONS = "document.fonts.ready.then(fonts => [...fonts].map(font => [font.family, font.status]))"


def barriers(tab: Page) -> list[str]:
    """What axe finds serious or critical."""
    found = Axe().run(tab, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]} {node['any'][0]['message'] if node['any'] else ''}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def dress(tab: Page, theme: str, width: int) -> None:
    """A theme and a width of the window, and time for what follows them."""
    tab.evaluate(f"document.documentElement.dataset.mode = document.documentElement.dataset.theme = '{theme}'")
    tab.set_viewport_size({"width": width, "height": 900})
    tab.wait_for_timeout(500)  # the theme gives what scrolls a tab stop some time after


@pytest.fixture(scope="module")
def visited(browser, html) -> Callable[[str], dict]:
    """Opens a page once, in a wide window and then on a phone at night, and says all that was seen."""

    @cache
    def visit(page: str) -> dict:
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme="light")
        loaded: list[Path] = []
        context.on("requestfinished", lambda request: loaded.append(Path(unquote(urlsplit(request.url).path))))
        tab, asked, complaints = open_page(context, html, page)
        seen = {
            "formulas": tab.locator("article .math").count(),
            "typeset": tab.locator("article mjx-container").count(),
            "wrong formulas": tab.locator("mjx-merror").count(),
            "prose": tab.evaluate(PROSE),
            "broken images": tab.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"),
            "fonts": tab.evaluate(ICONS),
            "unresolved": "problematic" in tab.content(),
            "shrunk": tab.evaluate(SHRUNK),
            "small": tab.evaluate(SMALL),
            "cut": tab.evaluate(CUT),
            "weight": sum(len(gzip.compress(file.read_bytes())) for file in set(loaded) if file.is_file()),
        }
        dress(tab, "dark", 390)
        seen |= {
            "unreachable": tab.evaluate(UNREACHABLE),
            "beyond": tab.evaluate(BEYOND),
            "shrunk on a phone": tab.evaluate(SHRUNK),
            "wider than a phone": tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
        }
        tab.evaluate(PLAINER)
        seen["barriers"] = {"dark, 390 pixels": barriers(tab)}
        dress(tab, "light", 1280)
        seen["barriers"]["light, 1280 pixels"] = barriers(tab)
        context.close()
        return seen | {"asked": asked, "complaints": complaints}

    return visit


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_a_network_and_without_complaint(visited, page):
    seen = visited(page)
    assert seen["asked"] == [] and seen["complaints"] == []
    assert seen["typeset"] == seen["formulas"] and not seen["wrong formulas"]
    assert "```" not in seen["prose"], "a directive that is shown instead of followed"
    assert seen["broken images"] == []
    assert ["Font Awesome 6 Free", "loaded"] in seen["fonts"] and "error" not in {status for _, status in seen["fonts"]}
    assert not seen["unresolved"], "a reference that was not resolved"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_keeps_nobody_out(visited, page):
    assert not any(visited(page)["barriers"].values()), visited(page)["barriers"]


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_reaches_all_of_a_page(visited, page):
    seen = visited(page)
    assert seen["unreachable"] == [] and seen["beyond"] == [] and seen["wider than a phone"] <= 0


@pytest.mark.parametrize("page", PAGES)
def test_no_figure_is_shrunk_below_four_fifths(visited, page):
    assert min(visited(page)["shrunk"] + visited(page)["shrunk on a phone"], default=1) > 0.79


@pytest.mark.parametrize("page", PAGES)
def test_the_words_of_figures_can_be_read_beside_the_text(visited, page):
    assert visited(page)["small"] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_code_is_wider_than_its_box(visited, page):
    assert visited(page)["cut"] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_all_that_it_loads_is_light(visited, page):
    assert visited(page)["weight"] < 1.2e6


@pytest.mark.parametrize(("page", "code"), [(CHAPTERS[0], ".highlight"), ("book/guide/api/sweeps", "dt.sig")])
def test_the_colours_of_code_can_be_read(html, offline, page, code):
    tab, _, _ = open_page(offline, html, page)
    for theme in "light", "dark":
        dress(tab, theme, 1280)
        seen = Axe().run(tab, code, {"runOnly": ["color-contrast"]}).response
        assert seen["passes"] and not seen["violations"], seen["violations"]


def test_a_figure_is_shown_large_on_demand_and_put_back_by_a_key(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])
    drawing = tab.locator("article figure svg.drawn").first
    small = drawing.bounding_box()["width"]
    button = tab.get_by_role("button", name="Enlarge this figure").first
    button.focus()
    tab.keyboard.press("Enter")
    large = tab.locator("dialog[open] svg.drawn")
    assert large.bounding_box()["width"] > 1.5 * small
    assert large.get_attribute("aria-label") == drawing.get_attribute("aria-label")
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    drawing.click()
    assert tab.locator("dialog[open]").count() == 1


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


def test_in_dark_mode_the_page_is_dark_and_the_ink_of_figures_is_light(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTERS[0])

    def colour(of: str, element: str = "body") -> list[int]:
        shown = tab.evaluate(f"getComputedStyle(document.querySelector('{element}')).{of}")
        return [int(n) for n in re.findall(r"\d+", shown)][:3]

    letter = "article svg.drawn text"
    assert min(colour("backgroundColor")) > 200 and max(colour("fill", letter)) < 90
    dress(tab, "dark", 1280)
    assert max(colour("backgroundColor")) < 60 and min(colour("fill", letter)) > 150
    drawn = tab.locator("article figure svg.drawn").first.screenshot()
    ground, ink = np.quantile(np.asarray(Image.open(io.BytesIO(drawn)).convert("L")), [0.5, 1])
    assert ground < 60 and ink > 150


def test_the_status_page_lists_every_chapter(html):
    text = (html / "book" / "guide" / "status.html").read_text(encoding="utf-8")
    for page in CHAPTERS:
        assert f"<p>{Path(page).name}</p>" in text


def test_the_packages_pages_say_of_a_field_what_we_say_and_show_examples_as_code(html):
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (html / "book/guide/api").glob("*.html")}
    assert len(pages) > 5 and not [page for page, text in pages.items() if "Alias for field number" in text]
    assert 'id="hqnn_utils.evidence.printed.Printed.counts"' in pages["evidence"], "a field with a docstring"
    assert not [page for page, text in pages.items() if "<blockquote>" in text.split("<article", 1)[1]], "code read as prose"
