"""The directive `{figure-of}`: a figure of a chapter on another page, as the chapter's own run drew it."""

import json
from pathlib import Path

from docutils import nodes
from drawn_in_theme import inline
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SVG = "image/svg+xml"


class FigureOf(SphinxDirective):
    """Arguments: the chapter, e.g. `book/evidence/multiverse`, and the name of its figure. The content is the caption here."""

    required_arguments = 2
    has_content = True

    def run(self) -> list[nodes.Node]:
        chapter, name = self.arguments
        path = Path(self.env.srcdir) / f"{chapter}.ipynb"
        self.env.note_dependency(str(path))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            about = cell["metadata"].get("mystnb", {})
            if about.get("figure", {}).get("name") == name:
                svg = next(("".join(out["data"][SVG]) for out in cell["outputs"] if SVG in out.get("data", {})), None)
                if svg is None:
                    raise self.warning(f"{chapter} holds {name!r} as a picture only: renew it with `hqnn run`")
                shown = nodes.raw("", inline(svg, name, about["image"]["alt"]), format="html")
                caption = nodes.caption()
                inside, messages = self.state.inline_text("\n".join(self.content), self.lineno)
                caption += inside
                return [nodes.figure("", shown, caption, align="center"), *messages]
        raise self.warning(f"{chapter} has no figure {name!r}")


def setup(app: Sphinx) -> dict:
    app.add_directive("figure-of", FigureOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
