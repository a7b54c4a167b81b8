"""The book on paper: all of it in one PDF, and a page by itself."""

import io
import re

import pdf
import pytest
from bs4 import BeautifulSoup
from pages import open_page
from pypdf import PageObject, PdfReader

PAGES = [page for files in pdf.PARTS.values() for page in files]
READ = ["book/foundations/parameter_shift", "book/evidence/claims"]  # word by word, which would take minutes for all


@pytest.fixture(scope="module")
def book(browser, html, tmp_path_factory) -> PdfReader:
    path = tmp_path_factory.mktemp("printed") / "book.pdf"
    pdf.make(browser, html, path)
    return PdfReader(path)


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


def sheets(book: PdfReader, articles: dict, page: str) -> list[PageObject]:
    """The sheets of paper that a page of the book fills."""
    starts = [book.get_destination_page_number(book.named_destinations[f"/{other}"]) for other in PAGES] + [len(book.pages)]
    place = PAGES.index(page)
    return book.pages[starts[place] : starts[place + 1]]


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
def test_code_stands_whole_on_a_numbered_sheet_and_formulas_are_set(book, articles, page):
    first = book.get_destination_page_number(book.named_destinations[f"/{page}"]) + 1
    texts = [sheet.extract_text() for sheet in sheets(book, articles, page)]
    for number, text in enumerate(texts, first):
        assert text.split()[0] == str(number)
        assert not re.search(r"\\(frac|ket|theta|begin)\b", text)
    whole = [squeezed(text) for text in texts]
    for box in articles[page].select("div.cell_input pre"):
        if not box.find_parent("details"):
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
