"""Where the sidebar unfolds, screen readers hear what: the theme draws an arrow there without a name."""

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.application import Sphinx


def name_arrows(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    drawn = context["generate_toctree_html"]

    def named(*args: object, **options: object) -> BeautifulSoup:
        sidebar = drawn(*args, **options)
        for arrow in sidebar.select("li > details > summary"):
            arrow["aria-label"] = f"Pages below “{arrow.find_parent('li').a.get_text(strip=True)}”"
        return sidebar

    context["generate_toctree_html"] = named


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", name_arrows, priority=900)  # when the theme has put its function there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
