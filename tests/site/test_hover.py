"""What a link leads to can be looked at where it stands, by mouse, by keys and by a tap; terms and references are links."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from bs4 import BeautifulSoup
from pages import PAGES, open_page
from playwright.sync_api import Locator, Page, expect

REPOSITORY = Path(__file__).parents[2]
BIB = (REPOSITORY / "book" / "references.bib").read_text(encoding="utf-8")
KINDS = {
    "term": ("book/foundations/pqc", "a:has(> .std-term)"),
    "equation": ("book/foundations/entanglement", 'a[href^="#equation-"]'),
    "figure": ("book/experiments/quantum_activation", 'a[href^="#fig-"]'),
    "table": ("book/evidence/multiverse", 'a[href^="#tab-"]'),
    "reference": ("book/intro", 'a[href*="references.html#"]'),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def first_link(tab: Page, kind: str) -> Locator:
    return tab.locator(f"article {KINDS[kind][1]}:not(.headerlink) >> visible=true").first


def preview(tab: Page) -> Locator:
    return tab.get_by_role("tooltip")


def read(html: Path, page: str) -> BeautifulSoup:
    """The article of a page."""
    text = (html / f"{page}.html").read_text(encoding="utf-8")
    return BeautifulSoup(text[text.index("<article") : text.index("</article>")], "html.parser")


def words(text: str) -> list[str]:
    return re.findall(r"\w{4,}", text)


@pytest.fixture(scope="module")
def opened(browser, html):
    """Opens the page of a kind of link once."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme="light")
    tabs = {}

    def get(kind: str) -> Page:
        page = KINDS[kind][0]
        if page not in tabs:
            tabs[page], asked, complaints = open_page(context, html, page)
            assert asked == complaints == []
        tabs[page].mouse.move(1, 1)
        tabs[page].keyboard.press("Escape")
        return tabs[page]

    yield get
    context.close()


@each_kind
def test_under_the_mouse_a_link_shows_what_it_leads_to(opened, html, kind):
    tab = opened(kind)
    link = first_link(tab, kind)
    link.hover()
    shown = preview(tab)
    expect(shown).to_be_visible()
    there, _, part = urljoin(f"/{KINDS[kind][0]}.html", link.get_attribute("href")).partition("#")
    target = read(html, there.removeprefix("/").removesuffix(".html")).find(id=part)
    if kind == "equation":
        expect(shown.locator("mjx-container")).to_have_count(1)
    elif kind == "term":
        assert set(words(target.find_next_sibling("dd").get_text())) <= set(words(shown.inner_text()))
    else:
        assert set(words(target.get_text())) <= set(words(shown.inner_text()))
    assert tab.evaluate("id => document.querySelectorAll(`[id='${id}']`).length", part) == (kind not in ("term", "reference"))
    if kind == "figure":
        assert shown.locator("svg.drawn").bounding_box()["width"] > 100
    shown.hover()  # to read on in it, and to follow its links
    tab.wait_for_timeout(300)
    expect(shown).to_be_visible()
    tab.mouse.move(1, 1)
    expect(shown).to_have_count(0)


@each_kind
def test_by_keys_a_link_shows_it_too_it_is_read_out_and_escape_closes_it(opened, kind):
    tab = opened(kind)
    link = first_link(tab, kind)
    link.focus()
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Escape")
    expect(preview(tab)).to_have_count(0)
    tab.keyboard.press("Tab")
    expect(link).to_be_focused()
    expect(preview(tab)).to_be_visible()
    assert preview(tab).evaluate("shown => shown.closest('[id]').id") == link.get_attribute("aria-describedby")
    tab.keyboard.press("Escape")
    expect(preview(tab)).to_have_count(0)
    expect(link).to_be_focused()


@pytest.fixture
def phone(browser):
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="light")
    yield context
    context.close()


@pytest.mark.parametrize("kind", ["term", "figure", "table"])
def test_a_tap_shows_it_within_the_window_and_the_next_one_follows(phone, html, kind):
    tab, _, _ = open_page(phone, html, KINDS[kind][0])
    before, link = tab.url, first_link(tab, kind)
    link.tap()
    expect(preview(tab)).to_be_visible()
    assert tab.url == before
    box = preview(tab).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    link.tap()
    tab.wait_for_url("**#" + link.get_attribute("href").partition("#")[2] if kind != "term" else "**/glossary.html#*")


def test_a_tap_elsewhere_closes_it(phone, html):
    tab, _, _ = open_page(phone, html, KINDS["term"][0])
    first_link(tab, "term").tap()
    expect(preview(tab)).to_be_visible()
    tab.touchscreen.tap(200, 800)
    expect(preview(tab)).to_have_count(0)


def test_previews_have_their_licences_beside_them(html):
    folder = html / "_static" / "previews"
    for script in ("popper", "tippy"):
        assert "MIT License" in (folder / f"{script}.LICENSE.txt").read_text(encoding="utf-8")
        assert re.search(rf"{script}\S*\.js  .*\d+\.\d+\.\d+.*{script}\.LICENSE", (folder / "README.txt").read_text())


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("shot", "measured with 100 shots;", "shots"),
        ("shot", "a snapshot, a single-shot run", None),
        ("latency", "the latencies add up", "latencies"),
        ("ansatz", "two Ansatzes", "Ansatzes"),
        ("parameter-shift rule", "the parameter shift\nrules", "parameter shift\nrules"),
        ("McNemar's test", "by McNemar’s test", "McNemar’s test"),
        ("wire", "wired", None),
    ],
)
def test_a_term_is_found_as_a_whole_word_one_or_many(monkeypatch, term, text, found):
    monkeypatch.syspath_prepend(REPOSITORY / "_ext")
    from glossary_links import anywhere

    match = anywhere([term]).search(text)
    assert (match and match[0]) == found


NO_RUNNING_TEXT = "a, pre, code, strong, table, figcaption, .math, .admonition-title, .live, .citation, dl, script"


def test_a_term_is_linked_once_a_page_where_running_text_first_uses_it(html, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "_ext")
    from glossary_links import anywhere

    terms = {term["id"]: term.get_text().strip("#") for term in read(html, "book/guide/glossary").select("dt[id^=term-]")}
    linked = set()
    for page in PAGES:
        article = read(html, page).find("article")
        links = {link["href"].partition("#")[2]: link for link in article.select("a:has(> .std-term)")}
        assert len(links) == len(article.select("a:has(> .std-term)")), (page, "a term is linked twice")
        linked |= set(links)
        for name, link in links.items():
            assert not link.find_parent(["h1", "h2", "h3", "table", "figcaption", "pre", "code", "strong"]), (page, name)
            link.replace_with(f" ⟦{name}⟧ ")
        for part in article.select(NO_RUNNING_TEXT):
            part.extract()
        text = " ".join(paragraph.get_text() for paragraph in article.select("p"))
        for name in links:
            before = re.sub(r"⟦.*?⟧", "", text.partition(f"⟦{name}⟧")[0])
            assert not anywhere([terms[name]]).search(before), (page, name)
    assert len(linked) > 0.8 * len(terms)


def test_every_doi_and_arxiv_number_of_the_references_is_a_link(html):
    links = {link["href"] for link in read(html, "book/guide/references").select("div.citation a[href]")}
    numbers = re.findall(r"\b(doi|eprint) = \{([^}]+)\}", BIB)
    assert len(numbers) > 80
    assert {("https://doi.org/" if kind == "doi" else "https://arxiv.org/abs/") + number for kind, number in numbers} <= links
    assert "arXiv:" not in BIB, "a number that is no link: write eprint = {…}"


def test_every_reference_is_in_the_list_and_has_in_the_text_the_label_that_it_has_there(html):
    citations = read(html, "book/guide/references").select("div.citation")
    labels = {citation["id"]: citation.select_one(".label").get_text().strip("[]") for citation in citations}
    assert len(labels) == len(set(labels.values())) == len(re.findall(r"^@", BIB, re.M))
    cited = 0
    for page in PAGES:
        for link in read(html, page).select('article a[href*="references.html#"]'):
            label, text = labels[link["href"].partition("#")[2]], link.get_text()
            assert text == label or (
                label.endswith(f", {text}") and label.rpartition(", ")[0] in link.find_parent("p").get_text()
            )
            cited += 1
    assert cited > 100


def test_every_link_within_the_book_leads_somewhere(html):
    names = {}

    def exist(path: Path) -> set[str]:
        if path not in names:
            names[path] = set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))
        return names[path]

    dead = []
    for page in PAGES:
        path = html / f"{page}.html"
        for href in set(re.findall(r'<a [^>]*?href="([^"]+)"', path.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:", href):
                file, _, part = href.partition("#")
                to = (path.parent / file).resolve() if file else path
                if not to.exists() or (part and to.suffix == ".html" and part not in exist(to)):
                    dead.append((page, href))
    assert dead == []


def test_a_search_from_disk_shows_excerpts_around_what_was_found(html, offline):
    tab = offline.new_page()
    tab.goto((html / "search.html").as_uri() + "?q=concurrence")
    excerpt = tab.locator('#search-results li:has(> a[href$="foundations/entanglement.html"]) p.context')
    expect(excerpt).to_contain_text("concurrence", ignore_case=True)
    assert len(excerpt.inner_text()) > 100
    script = (html / "_static" / "search_excerpts.js").read_text(encoding="utf-8")
    assert len(script) < 400_000
    assert "<!--=own_ahead_often" not in script  # the name behind a recorded number


@pytest.mark.parametrize("page", ["book/intro", "book/evidence/claims", "book/guide/references", "book/guide/api/evidence"])
def test_no_search_excerpt_is_loaded_where_nobody_searches(html, page):
    assert "search_excerpts" not in (html / f"{page}.html").read_text(encoding="utf-8")


def test_every_module_has_its_place_on_one_page_of_the_package_with_a_link_to_its_source(html):
    pages = list((REPOSITORY / "book" / "guide" / "api").glob("*.md"))
    shown = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))]
    files = (REPOSITORY / "hqnn_utils").rglob("*.py")
    modules = {".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files if file.stem != "__init__"}
    assert sorted(shown) == sorted(modules - {"hqnn_utils.cli"})
    for page in pages:
        sources = read(html, f"book/guide/api/{page.stem}").select("a.reference.internal:has(> .viewcode-link)")
        assert sources and all((html / "book/guide/api" / link["href"].partition("#")[0]).exists() for link in sources)


def test_the_changelog_of_the_book_is_that_of_the_repository(html):
    article = " ".join(read(html, "book/guide/changelog").find("article").get_text().split())
    for heading in re.findall(r"^## (.*)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M):
        assert heading.replace("[", "").replace("]", "") in article


def test_a_script_of_previews_is_named_by_what_it_says_and_its_page_asks_for_it(html):
    """So that the same sources are the same files, and a browser never shows an old one."""
    scripts = list((html / "_static" / "tippy").rglob("*.js"))
    assert len(scripts) >= len(PAGES)
    for script in scripts:
        page, checksum, _ = script.name.split(".")
        assert checksum == hashlib.sha256(script.read_bytes()).hexdigest()[:16]
        place = script.relative_to(html / "_static" / "tippy").with_name(page)
        assert f"_static/tippy/{place}.{checksum}.js" in (html / f"{place}.html").read_text(encoding="utf-8")
        if said := re.match(r"selector_to_html = (\{.*\})\n", script.read_text(encoding="utf-8")):
            here = [link for link in json.loads(said[1]) if link.startswith('a[href="#')]
            assert here == sorted(here), "in one order, whatever the process"
