"""The whole book as an EPUB: the articles of all built pages, with formulas as the MathML that MathJax makes of their TeX.

`make epub`, or `python tools/epub.py _build/html book.epub`. An e-reader runs no script: a figure that answers the hand is the
sentence that stands where there is none, and all answers are open.
"""

import re
import shutil
import sys
from html import escape
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import yaml
from pdf import PARTS, READY, ROOT, edition
from playwright.sync_api import Browser, sync_playwright

TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
CLICKED = (
    "script, style, button, fieldset, nav, .headerlink, .viewcode-link, details.hide, details.about, .live > :not(.still)"
)
# An article as XHTML, with what it links to: no script, nothing to click, all files in one folder.
ARTICLE = """([clicked, root, pages]) => {
  const article = document.querySelector('article'), all = (what, each) => article.querySelectorAll(what).forEach(each);
  all('mjx-container', it => it.replaceWith(it.querySelector('math')));
  all('mlabeledtr', it => {  // the number of an equation stands in its table, which not all that show MathML can do
    const row = document.createElementNS(it.namespaceURI, 'mtr'), number = document.createElement('span');
    number.className = 'eqno';
    number.textContent = it.firstElementChild.textContent;
    row.append(...[...it.children].slice(1));
    it.closest('math').before(number);
    it.replaceWith(row);
  });
  all(clicked, it => it.remove());
  all('details', it => it.open = true);
  const images = {};
  all('img:not([src^="data:"])', it => {
    const path = decodeURIComponent(new URL(it.src).pathname), name = path.split('/').pop();
    images[name] = path;
    it.setAttribute('src', name);
  });
  all('a[href]', it => {
    if (!it.href.startsWith(root)) return;
    const [path, part] = it.href.slice(root.length).split('#'), page = path.replace(/[.]html$/, '');
    if (pages.includes(page)) it.setAttribute('href', page.replaceAll('/', '-') + '.xhtml' + (part ? '#' + part : ''));
    else it.removeAttribute('href');
  });
  all('*', it => [...it.attributes].forEach(({name}) => {
    if (/^(data-|jax|border$|align$|aria-expanded|download$)/.test(name)) it.removeAttribute(name);
  }));
  const comments = document.createNodeIterator(article, NodeFilter.SHOW_COMMENT);
  for (let it; it = comments.nextNode();) it.remove();
  const ids = new Set();
  all('[id]', it => ids.has(it.id) ? it.removeAttribute('id') : ids.add(it.id));  // as a browser takes the first of a name
  const title = article.querySelector('h1').textContent.trim(), text = new XMLSerializer().serializeToString(article);
  return {title, ids: [...ids], images, text};
}"""
CSS = """
pre { white-space: pre-wrap; font-size: 0.8em; padding: 0.5em; border-left: 3px solid #999; }
table { border-collapse: collapse; font-size: 0.85em; } td, th { padding: 0.2em 0.5em; border-bottom: 1px solid #999; }
blockquote, .admonition, details { margin: 1em 0; padding: 0 0.8em; border-left: 3px solid #0072b2; }
.claim { margin: 1em 0; padding: 0 0.8em; border: 1px solid #999; } nav ol { list-style: none; }
.verdict { padding: 0 0.4em; border: 1px solid; border-radius: 0.6em; font-weight: bold; }
.admonition-title, summary { font-weight: bold; } svg, img { max-width: 100%; height: auto; } .eqno { float: right; }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><title>{title}</title><link rel="stylesheet" type="text/css" href="book.css"/></head><body>{body}</body></html>"""
CONTAINER = """<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="EPUB/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:uuid:{id}</dc:identifier>
<dc:title>{title}</dc:title><dc:language>en</dc:language><dc:creator>{author}</dc:creator><dc:description>{edition}</dc:description>
<meta property="dcterms:modified">{date}T00:00:00Z</meta></metadata>
<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="css" href="book.css" media-type="text/css"/>{items}</manifest>
<spine><itemref idref="nav"/>{spine}</spine></package>"""


def name(page: str) -> str:
    """The file of a page."""
    return page.replace("/", "-") + ".xhtml"


def articles(browser: Browser, html: Path, pages: list[str]) -> dict[str, dict]:
    """Every page's title, text, and what it names; nothing is asked of the network."""
    tab = browser.new_page(offline=True)
    tab.route("**/live.js*", lambda route: route.abort())
    found = {}
    for page in pages:
        tab.goto((html / f"{page}.html").as_uri())
        tab.wait_for_function(READY)
        found[page] = tab.evaluate(ARTICLE, [CLICKED, f"{html.as_uri()}/", pages])
    tab.close()
    drawn = {"currentColor": "#000000", "var(--pst-color-background)": "#ffffff"}  # on paper of its own, by day and by night
    known = {f"{name(page)}#{part}" for page, about in found.items() for part in about["ids"]}
    for page, about in found.items():
        for ink, colour in drawn.items():
            about["text"] = about["text"].replace(ink, colour)
        about["text"] = re.sub(r'style="--natural: (\d+)px"', r'width="\1"', about["text"])
        links = re.compile(r'href="([\w.-]*)#([^"]*)"')
        about["text"] = links.sub(
            lambda link, page=page: (
                link[0] if f"{link[1] or name(page)}#{link[2]}" in known else f'href="{link[1] or name(page)}"'
            ),
            about["text"],
        )
    return found


def make(browser: Browser, html: Path, output: Path, parts: dict[str, list[str]] = PARTS) -> None:
    """Parts of the book that lies in a folder, in one file. The same pages give the same bytes."""
    found = articles(browser, html.resolve(), [page for files in parts.values() for page in files])
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    files, images, items, contents = {}, {}, "", ""
    for page, article in found.items():
        files[name(page)] = PAGE.format(title=escape(article["title"]), body=article["text"])
        images |= article["images"]
        used = " ".join(kind for kind, sign in {"mathml": "<math", "svg": "<svg"}.items() if sign in article["text"])
        properties = f' properties="{used}"' if used else ""
        items += f'<item id="{name(page)}" href="{name(page)}" media-type="application/xhtml+xml"{properties}/>'
    for image in images:
        items += f'<item id="{image}" href="{image}" media-type="{TYPES[Path(image).suffix]}"/>'
    for caption, pages in parts.items():
        lines = "".join(f'<li><a href="{name(page)}">{escape(found[page]["title"])}</a></li>' for page in pages)
        contents += f"<li><span>{caption}</span><ol>{lines}</ol></li>" if caption else lines
    files["nav.xhtml"] = PAGE.format(
        title="Contents", body=f'<h1>{about["title"]}</h1><p>{edition()}</p><nav epub:type="toc"><ol>{contents}</ol></nav>'
    )
    files["book.css"] = CSS
    files["book.opf"] = PACKAGE.format(
        id=uuid5(NAMESPACE_URL, f"hqnn-book {edition()}"),
        title=about["title"],
        author=about["authors"][0]["name"],
        edition=edition(),
        date=about["date-released"],
        items=items,
        spine="".join(f'<itemref idref="{name(page)}"/>' for page in found),
    )
    with ZipFile(output, "w") as packed:
        packed.writestr(ZipInfo("mimetype"), "application/epub+zip", ZIP_STORED)  # first and as it stands, says the standard
        packed.writestr(ZipInfo("META-INF/container.xml"), CONTAINER, ZIP_DEFLATED)
        for file, text in files.items():
            packed.writestr(ZipInfo(f"EPUB/{file}"), text, ZIP_DEFLATED)
        for image, path in images.items():
            packed.writestr(ZipInfo(f"EPUB/{image}"), Path(path).read_bytes(), ZIP_DEFLATED)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")  # Debian's, or else playwright's own
        make(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]), Path(sys.argv[1]), Path(sys.argv[2]))
