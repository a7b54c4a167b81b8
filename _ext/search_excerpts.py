"""What a search shows of each page, in one script for the page of search: from disk no page can be fetched."""

import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx_exercise.nodes import solution_node

SCRIPT = "search_excerpts.js"

ANSWER = """
const fetchElsewhere = window.fetch;
window.fetch = (address, ...rest) => {
  const root = document.documentElement.dataset.content_root;
  const found = PAGES[String(address).replace(root, "").replace(/\\.html$/, "")];
  if (!found) return fetchElsewhere(address, ...rest);
  const main = document.createElement("main");
  main.setAttribute("role", "main");
  for (const [id, text] of found) {
    main.append(Object.assign(document.createElement("p"), { id, textContent: text }), " ");
  }
  return Promise.resolve(new Response(main.outerHTML));
};
"""
"""Sphinx's search fetches the pages that it found, to cut an excerpt from each; here it gets their sentences."""


APART = (nodes.table, addnodes.desc, solution_node)
"""Tables, what is said of each function (its name is found, and leads there), and solutions, for which nobody has asked."""

LENGTH = 2500
"""Characters of a section that are kept. Few sections have more."""


def sentences(section: nodes.section) -> str:
    """The running text of a section without subsections, with dots for its formulas."""
    found = []
    for paragraph in section.findall(lambda node: isinstance(node, (nodes.paragraph, nodes.term))):
        above = paragraph.parent
        while not isinstance(above, (nodes.section, *APART)):
            above = above.parent
        if above is section and not isinstance(section.parent, APART):
            found.append(
                "".join(
                    "…" if isinstance(text.parent, nodes.math) else text
                    for text in paragraph.findall(nodes.Text)
                    if not isinstance(text.parent, nodes.raw)  # such as the name behind a recorded number
                )
            )
    return " ".join(" ".join(found).split())[:LENGTH]


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    pages = {}
    for name in sorted(app.env.found_docs):
        sections = app.env.get_doctree(name).findall(nodes.section)
        pages[name] = [(section["ids"][0], text) for section in sections if (text := sentences(section))]
    script = f"const PAGES = {json.dumps(pages, ensure_ascii=False, separators=(',', ':'))};{ANSWER}"
    (Path(app.outdir) / "_static" / SCRIPT).write_text(script, encoding="utf-8")


def add_script(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    if page == "search":
        app.add_js_file(SCRIPT)


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", add_script)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
