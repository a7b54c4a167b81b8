"""Previews of what a link leads to, without a network: the scripts that sphinx-tippy would fetch lie in the book.

They stay out of `_static`, all of whose scripts Jupyter Book puts on every page, in the order of their names.
"""

import re
from collections import Counter
from hashlib import sha256
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
        seen = {(to, part) for to, part in wanted["refs_in_page"] if to or part in links}
        wanted["refs_in_page"] = sorted(seen, key=str)  # a set has an order of its own in every process


def name_by_content(app: Sphinx, failed: Exception | None) -> None:
    """The same pages are the same files. sphinx-tippy gives its scripts random names, so that no browser takes an old one."""
    if failed or app.builder.name != "html":
        return
    for page, about in get_tippy_data(app)["pages"].items():
        script, file = about["js_path"], Path(app.builder.get_outfilename(page))
        named = script.with_name(f"{Path(page).name}.{sha256(script.read_bytes()).hexdigest()[:16]}.js")
        script.rename(named)
        file.write_text(file.read_text(encoding="utf-8").replace(script.name, named.name), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.setup_extension("sphinx_tippy")
    app.connect("config-inited", serve_files)
    app.connect("html-page-context", drop_unseen, priority=460)  # when sphinx-tippy has collected them
    app.connect("build-finished", name_by_content, priority=600)  # when it has written them
    return {"parallel_read_safe": True, "parallel_write_safe": True}
