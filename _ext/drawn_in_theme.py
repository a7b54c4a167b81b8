"""Figures as part of the page: an SVG is written into it, so that its black follows the theme and its letters are letters."""

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

INK = {"#000000": "currentColor", "#ffffff": "var(--pst-color-background)"}
"""Matplotlib's black and white, and what they are on a page."""


def inline(svg: str, name: str, alternative: str) -> str:
    """A drawing of matplotlib as an element of a page.

    Args:
        svg: the file's text.
        name: what its identifiers begin with; another name for each figure of a page.
        alternative: what is told to those who do not see it.
    """
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub("|".join(INK), lambda found: INK[found[0]], body)
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in wanted else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    pixels = float(width) * 4 / 3  # points of 1/72 inch, of which a pixel of the web has 3/4
    return (
        f'<svg class="drawn" role="img" aria-label="{html.escape(alternative)}" viewBox="0 0 {width} {height}" '
        f'style="--natural: {pixels:.0f}px" fill="currentColor" stroke-linejoin="round">'
        + re.sub(r"\s*\n\s*", "\n", body)
        + "</svg>"
    )


def visit_image(translator: HTML5Translator, node: nodes.image) -> None:
    path = Path(translator.builder.srcdir, node["uri"])
    if path.suffix == ".svg" and path.exists():
        translator.drawn = getattr(translator, "drawn", 0) + 1
        translator.body.append(inline(path.read_text(encoding="utf-8"), f"drawn-{translator.drawn}", node.get("alt", "")))
    else:
        type(translator).visit_image(translator, node)


def depart_image(translator: HTML5Translator, node: nodes.image) -> None:
    pass


def setup(app: Sphinx) -> dict:
    app.add_node(nodes.image, override=True, html=(visit_image, depart_image))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
