"""A question on the page keeps its answer until it is asked for, and on paper shows it."""

import pytest
from pages import open_page

PAGE = "book/foundations/chsh"


@pytest.fixture(scope="module")
def tab(browser, html):
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844})
    tab, asked, complaints = open_page(context, html, PAGE)
    assert asked == complaints == []
    yield tab
    context.close()


def test_an_answer_opens_by_a_key_and_closes_again(tab):
    question = tab.locator("details.question").first
    answer = question.locator(":not(summary)").first
    assert not answer.is_visible()
    question.locator("summary").press("Enter")
    assert answer.is_visible() and answer.evaluate("answer => answer.scrollWidth <= innerWidth")
    question.locator("summary").press("Enter")
    assert not answer.is_visible()


def test_on_paper_all_answers_are_open(tab):
    answers = tab.locator("details.question > :not(summary)")
    assert answers.count() >= 2 and not any(answer.is_visible() for answer in answers.all())
    tab.emulate_media(media="print")
    try:
        assert all(answer.is_visible() for answer in answers.all())
        assert all(answer.bounding_box()["height"] > 10 for answer in answers.all())
    finally:
        tab.emulate_media(media="screen")


def test_answers_are_set_as_text_and_mathematics_and_not_as_markup(tab):
    assert tab.locator("details.question mjx-container").count() > 0
    assert "$" not in " ".join(tab.locator("details.question").all_text_contents())
