"""An executed chapter as one file of HTML: what it found, without code, and with nothing from elsewhere."""

import html
import json
import re

from hqnn_utils.errors import ChapterError

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
blockquote { margin: 1rem 0; padding: 0.1rem 1rem; border-left: 4px solid #0072b2; background: #f2f7fb; font-size: 1.1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; }
img { max-width: 100%; height: auto; }
pre { overflow-x: auto; }
"""


def page(notebook: dict, title: str, first: str = "verdict") -> str:
    """The page: first what the cell with this tag displays, then headings, figures and tables in their order.

    Args:
        notebook: executed.
        title: of the page.
        first: tag of the cell that says what was found.

    Raises:
        ChapterError: no cell has this tag.
    """
    import nbformat
    from nbconvert import HTMLExporter

    cells = [cell for cell in notebook["cells"] if "remove-cell" not in cell["metadata"].get("tags", [])]
    opening = [cell for cell in cells if first in cell["metadata"].get("tags", [])]
    if not opening:
        raise ChapterError(f"the notebook has no cell tagged {first!r}: a report opens with it")
    rest = [_plain(cell) for cell in cells if cell not in opening]
    parts = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [*opening, *filter(None, rest)]}
    shown = nbformat.reads(json.dumps(parts), as_version=4)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True, exclude_anchor_links=True)
    body, _ = exporter.from_notebook_node(shown)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>"
    )


def _plain(cell: dict) -> dict | None:
    """A cell whose text needs no book around it; `None` where it is one of the book's own."""
    if cell["cell_type"] != "markdown":  # a run's own record is of no use here
        kept = [out for out in cell["outputs"] if not any("hqnn" in kind for kind in out.get("data", {}))]
        return {**cell, "outputs": kept}
    text = "".join(cell["source"])
    if re.search(r"^(# |```|````|> \*\*)|\{(exercise|solution)", text, re.MULTILINE):
        return None
    text = re.sub(r"\s*\(?\{(doc|numref|cite\w*|cite:t)\}`[^`]*`\)?", "", text)
    return {**cell, "source": re.sub(r"<!--.*?-->", "", text)}
