"""What would shut out readers: axe finds nothing serious on any kind of page, light or dark, with a preview open."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import open_page

KINDS = {
    "front page": "book/intro",
    "chapter": "book/foundations/entanglement",
    "chapter with a figure that moves": "book/experiments/gradient_vanishing",
    "ledger": "book/evidence/claims",
    "glossary": "book/guide/glossary",
    "references": "book/guide/references",
    "package": "book/guide/api/evidence",
    "search": "search",
}


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(browser, html, kind, colours):
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme=colours)
    tab, _, _ = open_page(context, html, KINDS[kind])
    assert tab.evaluate("document.documentElement.dataset.theme") == colours
    links = tab.locator("article a[href*='glossary.html#'], article a[href^='#fig-']:not(.headerlink)")
    if links.count():
        links.first.focus()
        tab.get_by_role("tooltip").wait_for()
    # Not within formulas: they are MathJax's, and many.
    found = Axe().run(tab, context={"exclude": [["mjx-container"]]}).response["violations"]
    context.close()
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], part["html"]) for rule in serious for part in rule["nodes"]] == []


@pytest.mark.parametrize("page", KINDS.values(), ids=KINDS)
def test_on_a_phone_a_page_is_as_wide_as_the_window(browser, html, page):
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844}, color_scheme="light")
    tab, _, _ = open_page(context, html, page)
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 390
    context.close()


def test_formulas_are_there_for_screen_readers_too(html, offline):
    tab, _, _ = open_page(offline, html, KINDS["chapter"])
    formulas = tab.locator("article mjx-container")
    assert formulas.count() == tab.locator("article mjx-container mjx-assistive-mml math").count() > 20


def test_the_first_key_leads_past_the_sidebar_to_the_text(html, offline):
    tab, _, _ = open_page(offline, html, KINDS["chapter"])
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main-content")
