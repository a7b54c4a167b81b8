"""The book on paper: all of it in one PDF, and a page by itself."""

import io
import re
from collections.abc import Callable
from functools import cache

import pdf
import pytest
from bs4 import BeautifulSoup
from pages import open_page
from pypdf import PdfReader

PAGES = [page for files in pdf.PARTS.values() for page in files]
# Word by word, which would take minutes for all. In some of these a head or a check stood on another sheet than its own.
READ = [f"book/{page}" for page in ("foundations/parameter_shift", "experiments/barren_plateaus", "evidence/claims")]
READ += [f"book/guide/{page}" for page in ("sweeps", "api/evidence", "api/notebooks")]


@pytest.fixture(scope="module")
def book(browser, html, tmp_path_factory) -> PdfReader:
    path = tmp_path_factory.mktemp("printed") / "book.pdf"
    pdf.make(browser, html, path)
    return PdfReader(path)


@pytest.fixture(scope="module")
def sheets(book) -> Callable[[str], dict[int, str]]:
    """What stands on the sheets of paper that a page of the book fills, by their numbers, which they tell at their feet."""

    @cache
    def read(page: str) -> dict[int, str]:
        starts = [book.get_destination_page_number(book.named_destinations[f"/{other}"]) for other in PAGES] + [
            len(book.pages)
        ]
        place = PAGES.index(page)
        numbers = range(starts[place] + 1, starts[place + 1] + 1)
        found = {number: book.pages[number - 1].extract_text().split(None, 1) for number in numbers}
        assert [foot for foot, _ in found.values()] == [str(number) for number in numbers]
        return {number: text for number, (_, text) in found.items()}

    return read


@pytest.fixture(scope="module")
def articles(html) -> dict[str, BeautifulSoup]:
    return {page: pdf.read(html, page).article for page in PAGES}


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def title(heading) -> str:
    return squeezed(heading.get_text()).removesuffix("#")


def bookmarks(items: list, depth: int = 0) -> list:
    """Depth and entry of an outline, in its order."""
    found = []
    for item in items:
        found += bookmarks(item, depth + 1) if isinstance(item, list) else [(depth, item)]
    return found


def fonts(book: PdfReader) -> dict[int, dict]:
    found = [font for page in book.pages for font in page["/Resources"].get("/Font", {}).values()]
    return {font.idnum: font.get_object() for font in found}


def test_every_heading_is_a_bookmark_below_its_part(book, articles):
    wanted = [(0, "Contents")]
    for part, files in pdf.PARTS.items():
        wanted += [(0, part)] if part else []
        for page in files:
            wanted += [(int(h.name[1]) - 1 + bool(part), title(h)) for h in articles[page].find_all(["h1", "h2", "h3", "h4"])]
    found = [(depth, squeezed(item.title)) for depth, item in bookmarks(book.outline)]
    assert len(found) == len(wanted) > 300
    formulas = [k for k, (_, words) in enumerate(wanted) if "\\(" in words]  # which a bookmark can't show as it is written
    assert [entry for k, entry in enumerate(found) if k not in formulas] == [
        w for k, w in enumerate(wanted) if k not in formulas
    ]


def test_the_contents_say_on_which_sheet_every_page_begins(book, articles):
    said = [squeezed(sheet.extract_text()) for sheet in book.pages[1:3]]
    for page in PAGES:
        sheet = book.get_destination_page_number(book.named_destinations[f"/{page}"]) + 1
        line = rf"{re.escape(title(articles[page].h1))}{sheet}(?!\d)"
        assert any(re.search(line, words) for words in said), page


def test_no_heading_ends_a_sheet(book):
    """Below it is room for a line at least. The foot of a sheet is 24 mm."""
    assert min(entry.top for _, entry in bookmarks(book.outline)) > 24 / 25.4 * 72 + 36


@pytest.mark.parametrize("page", READ)
def test_what_belongs_together_stands_on_one_sheet(sheets, page):
    for number, text in sheets(page).items():
        assert not re.search(r"(Parameters|Returns|Return type|Raises|Type):\s*$", text), f"a head ends sheet {number}"
        assert not text.startswith("Nothing here yet"), f"sheet {number} begins with the check of an answer that is on another"


@pytest.mark.parametrize("page", READ)
def test_nothing_is_printed_that_one_clicks(sheets, page):
    for number, text in sheets(page).items():
        assert not re.search(r"Show code|Hide code|\[source\]$|Copy to clipboard|▶|▸", text, re.MULTILINE), number


def test_it_is_tagged_for_screen_readers_and_says_its_language_and_title(book):
    catalog = book.trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"] and "/StructTreeRoot" in catalog and catalog["/Lang"] == "en"
    assert "quantum" in book.metadata.title


def test_every_font_is_in_it(book):
    for font in fonts(book).values():
        if font["/Subtype"] != "/Type3":  # whose letters are drawings in the file itself
            for inner in font.get("/DescendantFonts", [font]):
                assert {"/FontFile", "/FontFile2", "/FontFile3"} & inner.get_object()["/FontDescriptor"].keys()


def test_no_letter_is_missing_on_any_sheet(book):
    """Letter 0 of a font is the empty box that stands for those it doesn't have."""
    unknown = [font for font in fonts(book).values() if b"FFFD" in font["/ToUnicode"].get_data().upper()]
    assert unknown == []
    for number, sheet in enumerate(book.pages, 1):
        for letters in re.findall(rb"<([0-9A-Fa-f]+)> Tj", sheet.get_contents().get_data()):
            codes = [letters[k : k + 4] for k in range(0, len(letters), 4)]
            assert b"0000" not in codes, number


def test_no_sheet_is_made_smaller_to_hold_what_is_too_wide(book):
    widths = {re.search(rb"\n0 0 (\d+) \d+ re\n", sheet.get_contents().get_data())[1] for sheet in book.pages}
    assert widths <= {b"643", b"644"}  # 170 mm


def test_links_lead_somewhere_in_the_file_or_to_the_web(book):
    inside, outside = 0, 0
    for sheet in book.pages:
        for link in map(lambda each: each.get_object(), sheet.get("/Annots", [])):
            if "/Dest" in link:
                assert link["/Dest"] in book.named_destinations
                inside += 1
            elif "/A" in link:
                assert not str(link["/A"]["/URI"]).startswith("file:")
                outside += 1
    assert inside > 700 and outside > 0


@pytest.mark.parametrize("page", READ)
def test_code_stands_whole_on_a_sheet_and_formulas_are_set(articles, sheets, page):
    assert not [number for number, text in sheets(page).items() if re.search(r"\\(frac|ket|theta|begin)\b", text)]
    whole = [squeezed(text) for text in sheets(page).values()]
    for box in articles[page].select("div.cell_input pre, div[class*=highlight-] pre"):
        if not box.find_parent("details", class_=["hide", "about"]):
            assert any(squeezed(box.get_text()) in text for text in whole), box.get_text()


def test_a_page_by_itself_is_printed_with_its_solutions_and_without_buttons(html, offline):
    tab, _, _ = open_page(offline, html, "book/foundations/pqc")
    texts = [sheet.extract_text() for sheet in PdfReader(io.BytesIO(tab.pdf(format="A4"))).pages]
    text = "\n".join(texts)
    assert "Parameterized quantum circuits" in texts[0] and text.count("Parameterized quantum circuits") == 1
    assert "Show code" not in text and "Search" not in text
    assert [words.split()[0] for words in texts] == [str(number) for number in range(1, len(texts) + 1)]
    assert squeezed("prices.rename_axis") in squeezed(text), "the code of a solution"


def test_drawings_keep_their_parts_on_the_one_page(html):
    page = pdf.single_page(html, {"": ["book/foundations/pqc", "book/evidence/multiverse"]})
    used = set(re.findall(r'<use[^>]* href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used and used <= set(re.findall(r' id="([^"]+)"', page))


def test_the_same_pages_make_the_same_file_at_the_time_that_a_release_names(browser, html, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for name in ("one", "two"):
        pdf.make(browser, html, tmp_path / name, {"": ["book/guide/status", "book/guide/accessibility"]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert PdfReader(tmp_path / "one").metadata.creation_date.isoformat() == "2001-09-09T01:46:40+00:00"


@pytest.mark.parametrize(
    ("top", "said"),
    [("Unreleased", "Work in progress, after version 1.2.3"), ("1.2.3 – 2001-09-09", "Version 1.2.3, 2001-09-09")],
)
def test_the_cover_says_which_version_it_is(html, tmp_path, monkeypatch, top, said):
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {top}\n\n- A thing.\n", encoding="utf-8")
    cited = (pdf.ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = re.sub(
        "^version: .*",
        "version: 1.2.3",
        re.sub("^date-released: .*", "date-released: 2001-09-09", cited, flags=re.M),
        flags=re.M,
    )
    (tmp_path / "CITATION.cff").write_text(cited, encoding="utf-8")
    monkeypatch.setattr(pdf, "ROOT", tmp_path)
    assert f"<p>{said}</p></section>" in pdf.single_page(html, {"": ["book/guide/accessibility"]})


@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_number_of_an_equation_stands_beside_it_in_an_answer_too(html, offline, media):
    tab, _, _ = open_page(offline, html, "book/foundations/entanglement")
    tab.emulate_media(media=media)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    equation = tab.locator("details.question div.math:has(.eqno)").first
    formula, number = equation.locator("mjx-container").bounding_box(), equation.locator(".eqno").bounding_box()
    assert number["x"] >= formula["x"] + formula["width"]
    assert formula["y"] < number["y"] + number["height"] / 2 < formula["y"] + formula["height"]


def test_names_in_tables_are_not_broken_on_paper(html, offline):
    tab, _, _ = open_page(offline, html, "book/evidence/controls")
    tab.set_viewport_size({"width": 643, "height": 900})  # the width of a sheet's text
    tab.emulate_media(media="print")
    lines = tab.locator("article td code").evaluate_all("all => all.map(each => each.getClientRects().length)")
    assert len(lines) > 5 and set(lines) == {1}
