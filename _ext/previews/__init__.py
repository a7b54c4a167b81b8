"""Previews of what a link leads to, without a network: the scripts that sphinx-tippy would fetch lie in the book.

They stay out of `_static`, all of whose scripts Jupyter Book puts on every page, in the order of their names.
"""

import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx_tippy import get_tippy_data

FILES = Path(__file__).with_name("static")


def serve_files(app: Sphinx, config: Config) -> None:
    config.html_static_path.append(str(FILES))


def drop_unseen(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """A heading's or a figure's link to itself shows no preview, so none is written for it."""
    if doctree:
        links = Counter(re.findall(r'href="#([^"]+)"', context["body"]))
        links -= Counter(re.findall(r'class="headerlink" href="#([^"]+)"', context["body"]))
        wanted = get_tippy_data(app)["pages"][page]
        wanted["refs_in_page"] = {(to, part) for to, part in wanted["refs_in_page"] if to or part in links}


def setup(app: Sphinx) -> dict:
    app.setup_extension("sphinx_tippy")
    app.connect("config-inited", serve_files)
    app.connect("html-page-context", drop_unseen, priority=460)  # when sphinx-tippy has collected them
    return {"parallel_read_safe": True, "parallel_write_safe": True}
