"""What would shut out readers, beyond what `test_site` asks of every page."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import open_page

CHAPTER = "book/foundations/entanglement"


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("page", [CHAPTER, "search"])
def test_axe_finds_nothing_serious_in_a_preview_nor_in_the_search(browser, html, page, colours):
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme=colours)
    tab, _, _ = open_page(context, html, page)
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


def test_formulas_are_there_for_screen_readers_too(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTER)
    formulas = tab.locator("article mjx-container")
    assert formulas.count() == tab.locator("article mjx-container mjx-assistive-mml math").count() > 20


def test_the_first_key_leads_past_the_sidebar_to_the_text(html, offline):
    tab, _, _ = open_page(offline, html, CHAPTER)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main-content")
