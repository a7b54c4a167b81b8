"""The ledger: each claim has a verdict in words, and a reader finds those of one kind, by hand, by keys and on paper."""

import re
from collections import Counter
from pathlib import Path

import pytest
from pages import open_page

PAGE = "book/evidence/claims"
SOURCE = (Path(__file__).parents[2] / f"{PAGE}.md").read_text(encoding="utf-8")
CLAIMS = [part for part in SOURCE.split('<div class="claim"')[1:] if "class=" in part]
VERDICTS = re.findall(r'<span class="verdict ([\w-]+)">([^<]+)</span>', SOURCE)
SCRIPT = Path(__file__).parents[2] / "_static" / "ledger.js"


@pytest.fixture
def ledger(html, offline):
    tab, asked, complaints = open_page(offline, html, PAGE)
    yield tab
    assert asked == [] and complaints == []


def visible(tab) -> int:
    return tab.locator(".claim:visible").count()


def test_every_claim_has_one_verdict_whose_words_say_what_its_colour_says():
    assert len(CLAIMS) == len(VERDICTS) > 20
    assert all(words.replace(" ", "-").startswith(kind) for kind, words in VERDICTS)


def test_the_script_is_small():
    assert SCRIPT.stat().st_size <= 1536


def test_a_verdict_that_is_chosen_leaves_its_claims_and_tells_their_number(ledger):
    counts = Counter(kind for kind, _ in VERDICTS)
    assert visible(ledger) == len(CLAIMS)
    for kind, n in counts.items():
        ledger.locator(f'.claims-filter input[value="{kind}"]').check()
        assert visible(ledger) == n == ledger.locator(f".claim .verdict.{kind}:visible").count()
        assert ledger.locator('.claims-filter output[aria-live="polite"]').inner_text().startswith(f"{n} of {len(CLAIMS)} ")


def test_no_heading_stands_over_nothing(ledger):
    ledger.locator('.claims-filter input[value="not-known"]').check()
    assert ledger.locator("h2:visible").all_inner_texts() == ["Devices", "What follows"]


def test_the_filter_works_by_keys(ledger):
    ledger.locator('.claims-filter input[value="any"]').focus()
    ledger.keyboard.press("ArrowDown")
    assert visible(ledger) == Counter(kind for kind, _ in VERDICTS)[VERDICTS[0][0]]
    ledger.keyboard.press("ArrowUp")
    assert visible(ledger) == len(CLAIMS)


def test_the_ledger_fits_a_phone(html, browser):
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844}, has_touch=True)
    tab, _, _ = open_page(context, html, PAGE)
    right = "Math.max(...[...document.querySelectorAll('.claim, .claim *')].map(e => e.getBoundingClientRect().right))"
    assert tab.evaluate(right) <= 390 and tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.locator('.claims-filter label:has(input[value="reproduced"])').tap()
    assert 0 < visible(tab) < len(CLAIMS)
    context.close()


def test_paper_shows_all_claims_whatever_was_chosen(ledger):
    ledger.locator('.claims-filter input[value="reproduced"]').check()
    ledger.emulate_media(media="print")
    assert visible(ledger) == len(CLAIMS) and not ledger.locator(".claims-filter").is_visible()


def test_without_a_script_all_claims_are_there(html, browser):
    context = browser.new_context(offline=True, java_script_enabled=False)
    tab = context.new_page()
    tab.goto((html / f"{PAGE}.html").as_uri())
    assert visible(tab) == len(CLAIMS) and tab.locator(".claims-filter").count() == 0
    context.close()
