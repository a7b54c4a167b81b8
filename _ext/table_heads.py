"""Heads of tables as screen readers need them: each says whether it is a column's or a row's."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def mark_row_heads(app: Sphinx, doctree: nodes.document) -> None:
    """In tables of `hqnn_utils.notebooks.tables` the first column names the rows, which a pipe table cannot say."""
    for table in doctree.findall(nodes.table):
        if "with-row-heads" in table["classes"]:
            next(table.findall(nodes.colspec))["stub"] = 1


def visit_entry(translator: HTML5Translator, node: nodes.entry) -> None:
    """As docutils writes it, with a scope."""
    start = len(translator.body)
    type(translator).visit_entry(translator, node)
    scope = "col" if isinstance(node.parent.parent, nodes.thead) else "row"
    translator.body[start] = translator.body[start].replace("<th", f'<th scope="{scope}"', 1)


def depart_entry(translator: HTML5Translator, node: nodes.entry) -> None:
    type(translator).depart_entry(translator, node)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", mark_row_heads)
    app.add_node(nodes.entry, override=True, html=(visit_entry, depart_entry))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
