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
        homes = {name: home for (kind, name), (home, _) in self.env.get_domain("std").objects.items() if kind == "term"}
        only_on = self.config.glossary_links_only_on
        terms = sorted(homes, key=len, reverse=True)  # "expectation value" before "value"
        if not terms:
            return
        pattern, linked = anywhere(terms), set()
        for page, text in self.running_text():
            new, end = [], 0
            for found in pattern.finditer(text):
                term = terms[found.lastindex - 1]
                if (page, term) in linked or page == homes[term] or page not in only_on.get(term, [page]):
                    continue
                linked.add((page, term))
                new += [nodes.Text(text[end : found.start()]), self.link(term, found[0], page)]
                end = found.end()
            if new:
                text.parent.replace(text, [*new, nodes.Text(text[end:])])

    def running_text(self) -> Iterator[tuple[str, nodes.Text]]:
        """Every piece of text that may hold a link, and its page; in the book as a single page, each part has its own."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if within(paragraph, APART):
                continue
            parent = paragraph
            while parent and not isinstance(parent, addnodes.start_of_file):
                parent = parent.parent
            page = parent["docname"] if parent else self.env.docname
            for text in list(paragraph.findall(nodes.Text)):
                if not within(text, TAKEN, paragraph):
                    yield page, text

    def link(self, term: str, words: str, page: str) -> addnodes.pending_xref:
        shown = nodes.inline("", words, classes=["std", "std-term"])
        about = {"refdomain": "std", "reftype": "term", "reftarget": term, "refexplicit": True, "refwarn": True}
        return addnodes.pending_xref("", shown, refdoc=page, **about)


def setup(app: Sphinx) -> dict:
    app.add_config_value("glossary_links_only_on", {}, "env", [dict])
    app.add_post_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
