"""What a reader wants to know of a chapter, below its title: one line that folds out. All of it is read, none of it is typed.

How long it takes and with which versions it ran stands in the notebook, its data in its parameters, what changed in the
changelog, and how to cite in CITATION.cff.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from docutils import nodes
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from source_archive import NAME as ARCHIVE
from sphinx.application import Sphinx

from hqnn_utils.files import read_notebook, table
from hqnn_utils.notebooks import results

TEMPLATE = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
INLINE = MarkdownIt("commonmark", {"html": False})
WORDS_A_MINUTE = 200
"""And a minute for a figure."""
NAMES = {"python": "Python", "hqnn-utils": "hqnn-utils", "pennylane": "PennyLane", "torch": "PyTorch", "numpy": "NumPy"}
"""Of what a record has the version of, as they call themselves."""


def add_box(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Into the finished page, so that no word of it is found by a search or stands in the book's one PDF."""
    path, root = Path(app.srcdir, f"{pagename}.ipynb"), Path(app.srcdir)
    if not (doctree and path.is_file() and app.builder.name == "html"):
        return
    notebook = read_notebook(path)
    run = results.run_in(notebook)
    address = app.config.html_baseurl and app.config.html_baseurl + app.builder.get_target_uri(pagename)
    launches = app.repository.launches(pagename) if app.repository else {}
    box = TEMPLATE.get_template("about_chapter.html").render(
        run=run,
        versions=[f"{name} {run['versions'][key]}" for key, name in NAMES.items()],
        reading=reading(doctree),
        data=data(notebook),
        changes=changes((root / "CHANGELOG.md").read_text(encoding="utf-8"), path.stem, context["title"]),
        cite=citation(root / "CITATION.cff", context["title"], path.stem, address),
        notebook=context["pathto"](f"_sources/{pagename}.ipynb", 1),
        archive=context["pathto"](ARCHIVE, 1),
        datasets=context["pathto"]("book/guide/datasets"),
        changelog=context["pathto"]("book/guide/changelog"),
        launches=launches,
        duration=duration,
    )
    context["body"] = context["body"].replace("</h1>", "</h1>\n" + box, 1)


def reading(doctree: nodes.document) -> dict[str, int]:
    """Words of a page's sentences, its figures, and the minutes that they take."""
    words = sum(len(paragraph.astext().split()) for paragraph in doctree.findall(nodes.paragraph))
    live = sum('class="live"' in raw.astext() for raw in doctree.findall(nodes.raw))
    figures = len(list(doctree.findall(nodes.figure))) + live
    return {"words": words, "figures": figures, "minutes": round(words / WORDS_A_MINUTE + figures)}


def duration(seconds: float) -> str:
    """A time as one says it."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def data(notebook: dict) -> tuple[list[str], list[str]]:
    """What a chapter reads: the titles of the data sets that its parameters name, and the files of this repository."""
    given = results.run_in(notebook)["parameters"]
    words = {word for value in given.values() for word in (value if isinstance(value, list) else [value])}
    every = given.get("datasets") == ["any"]  # all that are fetched
    known = {name: entry for name, entry in table("datasets.toml").items() if entry["kind"] != "weights"}
    sets = [about["title"] for name, about in known.items() if name in words or (every and "embedded" not in about)]
    own = [f"{given['source']} of scikit-learn"] if "source" in given else []
    code = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    printed = [f"data/{name}.toml" for name in ("published", "related") if f"claims.{name}()" in code]
    tables = [f"data/results/{name}.csv" for name in re.findall(r'committed\("(\w+)"\)', code)]
    others = re.findall(r'place\("((?:data|benchmarks)/[\w/.]+)"\)', code)
    return sets + own, list(dict.fromkeys([*printed, *tables, *others]))


def changes(changelog: str, chapter: str, title: str) -> Iterator[tuple[str, str]]:
    """Every sentence of the changelog that names a chapter, as HTML, with the version under which it stands.

    A chapter is named by its file, `part/chapter` or `chapter`, and one that is entitled "Experiment 1: …" by that, too.
    """
    names = rf"`(?:[a-z]+/)?{chapter}`"
    if experiment := re.match(r"Experiment (\d):", title):
        names += rf"|\bExperiments? (?:\d and )?{experiment[1]}\b|\bExperiments {experiment[1]} and"
    for version, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE):
        for entry in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
            for sentence in re.split(r"(?<=[.!?]) (?=[A-Z`*])", " ".join(entry.split())):
                if re.search(names, sentence):
                    yield version, Markup(INLINE.renderInline(sentence))


def citation(cff: Path, title: str, chapter: str, address: str | None) -> dict[str, str]:
    """A chapter as one cites it, in a sentence and for BibTeX; with an address where one is known."""
    book = yaml.safe_load(cff.read_text(encoding="utf-8"))
    names = [one["name"] if "name" in one else f"{one['given-names']} {one['family-names']}" for one in book["authors"]]
    title = Markup(title).striptags()
    year, of_book = book["date-released"].year, f"{book['title']}, version {book['version']}"
    fields = {
        "author": " and ".join(f"{{{name}}}" for name in names),
        "title": title,
        "booktitle": book["title"],
        "note": f"Version {book['version']}",
        "year": year,
    } | ({"url": address} if address else {})
    inner = "\n".join(f"  {name} = {{{value}}}," for name, value in fields.items())
    sentence = f"{', '.join(names)} ({year}). {title}{'' if title.endswith('?') else '.'} In: {of_book}."
    bibtex = f"@incollection{{hqnn-{chapter},\n{inner}\n}}"
    return {"sentence": f"{sentence} {address}" if address else sentence, "bibtex": bibtex}


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_box)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
