"""References by author and year, with the same label in a sentence and in the list: "Qming, 2021b" finds [Qming, 2021b]."""

from collections import Counter
from dataclasses import dataclass
from unicodedata import normalize

import pybtex.plugin
import sphinxcontrib.bibtex.plugin
from docutils import nodes
from pybtex.database import Entry
from pybtex.richtext import BaseText, Text
from pybtex.style.formatting.alpha import Style
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib.bibtex.style.referencing import BaseReferenceStyle
from sphinxcontrib.bibtex.style.referencing.label import LabelReferenceStyle
from sphinxcontrib.bibtex.style.template import join, node, reference


def names(entry: Entry) -> str:
    """Last names of one author or two; of more, and where others are not named, the first with "et al."."""
    last = [str(Text.from_latex(" ".join(person.prelast_names + person.last_names))) for person in entry.persons["author"]]
    return " and ".join(last) if len(last) < 3 and "others" not in last else f"{last[0]} et al."


class AuthorYearLabels(BaseLabelStyle):
    """Works of the same authors and year have letters, in the order of the list."""

    def format_labels(self, entries: list[Entry]) -> list[str]:
        plain = [f"{names(entry)}, {entry.fields.get('year', 'n.d.')}" for entry in entries]
        alike, so_far = Counter(plain), Counter()
        for i, label in enumerate(plain):
            if alike[label] > 1:
                plain[i] += "abcdefghij"[so_far[label]]
                so_far[label] += 1
        return plain


class ByAuthorYear(BaseSortingStyle):
    """As a reader looks for them: by name and year, without a difference of a, A and á."""

    def sorting_key(self, entry: Entry) -> tuple[str, ...]:
        return normalize("NFKD", names(entry)).casefold(), entry.fields.get("year", ""), entry.fields["title"]


class AuthorYearStyle(Style):
    """The list; its fields `eprint` and `doi` become links."""

    default_sorting_style = ByAuthorYear
    default_label_style = AuthorYearLabels


@node
def label_part(children: list, data: dict, part: int) -> BaseText:
    """Of the label "Qming, 2021b": part 0 is who, part 1 is when."""
    return Text(data["formatted_entry"].label.rpartition(", ")[2 * part])


@dataclass
class Sentence(BaseReferenceStyle):
    """`{cite:t}`: Qming [2021b], where the year leads to the list."""

    def role_names(self) -> list[str]:
        return ["t"]

    def outer(self, role_name: str, children: list[BaseText]) -> "join":
        return join(sep=", ", sep2=" and ", last_sep=", and ")[children]

    def inner(self, role_name: str) -> "join":
        return join[label_part(part=0), " [", reference[label_part(part=1)], "]"]


@dataclass
class Labels(LabelReferenceStyle):
    """As the library writes labels in brackets, but for `{cite:t}`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.role_style["t"] = Sentence()


def visit_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """As docutils writes it, but as an item of the list around it, which its role (no longer in ARIA) is not."""
    type(translator).visit_citation(translator, node)
    translator.body[-1] = translator.body[-1].replace('role="doc-biblioentry"', 'role="listitem"')


def depart_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    type(translator).depart_citation(translator, node)


def setup(app: Sphinx) -> dict:
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    pybtex.plugin.register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    sphinxcontrib.bibtex.plugin.register_plugin("sphinxcontrib.bibtex.style.referencing", "labels", Labels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
