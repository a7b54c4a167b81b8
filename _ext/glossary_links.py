"""Terms of the glossary are links where a page first uses them in running text; nobody writes the links."""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

APART = (nodes.table, nodes.citation, nodes.footnote, addnodes.desc, addnodes.glossary)
"""No running text."""

TAKEN = (nodes.literal, nodes.math, nodes.reference, addnodes.pending_xref, nodes.strong, nodes.image)
"""Parts of a sentence that stay as they are: code, formulas, other links, and the bold words that open a callout."""


def spelling(term: str) -> str:
    """A term as a pattern: one or many of it, its words apart by a space, a hyphen or the end of a line."""
    ending = "(?:y|ies)" if term.endswith("y") else re.escape(term[-1]) + "(?:es|s)?"
    return re.sub(r"\\[ -]", r"[\\s-]", re.escape(term[:-1])).replace("'", "['’]") + ending


def anywhere(terms: list[str]) -> re.Pattern:
    """Any of the terms as whole words; the number of the group that matched is its place in the list, from 1."""
    return re.compile(r"(?<![\w-])(?:" + "|".join(f"({spelling(term)})" for term in terms) + r")(?![\w-])", re.IGNORECASE)


def within(node: nodes.Node, kinds: tuple, top: nodes.Node | None = None) -> bool:
    """Whether a node stands in one of these kinds, below `top`."""
    while (node := node.parent) is not top and node is not None:
        if isinstance(node, kinds):
            return True
    return False


class LinkTerms(SphinxPostTransform):
    """Before references are resolved, which makes links of what this leaves behind."""

    default_priority = 5

    def run(self) -> None:
        page, only_on, linked = self.env.docname, self.config.glossary_links_only_on, set()
        homes = {name: home for (kind, name), (home, _) in self.env.get_domain("std").objects.items() if kind == "term"}
        here = [term for term, home in homes.items() if page != home and page in only_on.get(term, [page])]
        terms = sorted(here, key=len, reverse=True)  # "expectation value" before "value"
        if not terms:
            return
        for text in self.running_text():
            new, end = [], 0
            for found in anywhere(terms).finditer(text):
                term = terms[found.lastindex - 1]
                if term not in linked:
                    linked.add(term)
                    new += [nodes.Text(text[end : found.start()]), self.link(term, found[0])]
                    end = found.end()
            if new:
                text.parent.replace(text, [*new, nodes.Text(text[end:])])

    def running_text(self) -> Iterator[nodes.Text]:
        """Every piece of text that may hold a link."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if not within(paragraph, APART):
                yield from [text for text in paragraph.findall(nodes.Text) if not within(text, TAKEN, paragraph)]

    def link(self, term: str, words: str) -> addnodes.pending_xref:
        shown = nodes.inline("", words, classes=["std", "std-term"])
        about = {"refdomain": "std", "reftype": "term", "reftarget": term, "refexplicit": True, "refwarn": True}
        return addnodes.pending_xref("", shown, refdoc=self.env.docname, **about)


def setup(app: Sphinx) -> dict:
    app.add_config_value("glossary_links_only_on", {}, "env", [dict])
    app.add_post_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
