"""The book in an e-reader: one file that needs no script and no network, with formulas that are formulas."""

import re
from posixpath import basename
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZIP_STORED, ZipFile

import epub
import pytest
from pdf import PARTS, read

PAGES = [page for files in PARTS.values() for page in files]
X, M, S = (f"{{http://www.w3.org/{name}}}" for name in ("1999/xhtml", "1998/Math/MathML", "2000/svg"))
OPF = "{http://www.idpf.org/2007/opf}"


@pytest.fixture(scope="module")
def book(browser, html, tmp_path_factory) -> ZipFile:
    path = tmp_path_factory.mktemp("carried") / "book.epub"
    epub.make(browser, html, path)
    with ZipFile(path) as packed:
        yield packed


@pytest.fixture(scope="module")
def texts(book) -> dict[str, ElementTree.Element]:
    """Every page, read as XML, which e-readers refuse where it is not."""
    return {basename(file): ElementTree.fromstring(book.read(file)) for file in book.namelist() if file.endswith(".xhtml")}


def test_it_is_packed_as_the_standard_says_and_lists_all_that_it_holds(book):
    first = book.infolist()[0]
    assert (first.filename, first.compress_type, book.read(first)) == ("mimetype", ZIP_STORED, b"application/epub+zip")
    package = ElementTree.fromstring(book.read("EPUB/book.opf"))
    listed = {f"EPUB/{item.get('href')}": item for item in package.iter(f"{OPF}item")}
    assert {*listed, "mimetype", "META-INF/container.xml", "EPUB/book.opf"} == set(book.namelist())
    for file, item in listed.items():
        text = book.read(file) if file.endswith(".xhtml") else b""
        said = set(item.get("properties", "").split()) - {"nav"}
        assert said == {name for name, sign in (("mathml", b"<math"), ("svg", b"<svg")) if sign in text}, file
    assert [each.get("idref") for each in package.iter(f"{OPF}itemref")] == ["nav", *map(epub.name, PAGES)]


def test_the_contents_name_every_page_below_its_part(texts, html):
    (contents,) = texts["nav.xhtml"].iter(f"{X}nav")
    assert [span.text for span in contents.iter(f"{X}span")] == [part for part in PARTS if part]
    links = [(link.get("href"), link.text) for link in contents.iter(f"{X}a")]
    assert links == [(epub.name(page), read(html, page).article.h1.get_text().removesuffix("#")) for page in PAGES]


@pytest.mark.parametrize("page", PAGES)
def test_every_formula_is_mathml_with_its_number_beside_it(texts, html, page):
    text, article = texts[epub.name(page)], read(html, page).article
    formulas = [each for each in article.select(".math") if not each.find_parent("details", class_="hide")]  # folded code
    assert len(list(text.iter(f"{M}math"))) == len(formulas), "MathJax sets each of them"
    shown = " ".join("".join(text.itertext()).split())
    assert not re.search(r"\\\(|\\\[|\\(frac|ket|theta|begin)\b", shown)
    assert not list(text.iter(f"{M}merror")) and not list(text.iter(f"{M}mlabeledtr"))
    for number in article.select(".eqno"):
        assert number.get_text().removesuffix("#") in shown
    for tag in re.findall(r"\\tag\{(\w+)\}", article.get_text()):
        assert f"({tag})" in shown


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_nothing_that_is_not_in_the_file(book, texts, page):
    text = texts[epub.name(page)]
    ids = {file: {each.get("id") for each in other.iter()} for file, other in texts.items()}
    names = [each.get("id") for each in text.iter() if each.get("id")]
    assert len(names) == len(set(names))
    for link in text.iter(f"{X}a"):
        file, _, part = unquote(link.get("href", "")).partition("#")
        if ":" not in file and link.get("href"):
            assert not part or part in ids[file or epub.name(page)], link.get("href")
            assert not file or file in texts
    for image in text.iter(f"{X}img"):
        assert image.get("src").startswith("data:") or f"EPUB/{image.get('src')}" in book.namelist()
        assert image.get("alt")
    assert not [each for each in text.iter() if each.tag in (f"{X}script", f"{X}button", f"{X}input", f"{X}style")]


def test_figures_are_drawings_in_colours_that_every_reader_knows(texts):
    drawn = [svg for text in texts.values() for svg in text.iter(f"{S}svg")]
    assert len(drawn) > 60 and all(svg.get("aria-label") and svg.get("width") for svg in drawn)
    for svg in drawn:
        assert not re.search(r"var\(|currentColor", ElementTree.tostring(svg, encoding="unicode"))


def test_answers_are_open_and_a_figure_that_moves_is_its_sentence(texts):
    answers = [each for text in texts.values() for each in text.iter(f"{X}details")]
    assert len(answers) > 50 and all(each.get("open") is not None for each in answers)
    text = texts["book-foundations-pqc.xhtml"]
    live = [each for each in text.iter(f"{X}div") if each.get("class") == "live"]
    assert [len(each) for each in live] == [1, 1] and all(each[0].get("class") == "still" for each in live)


def test_the_same_pages_make_the_same_file(browser, html, tmp_path):
    for name in ("one", "two"):
        epub.make(browser, html, tmp_path / name, {"": ["book/guide/status", "book/foundations/pqc"]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
