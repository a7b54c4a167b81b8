"""Tables as a page shows them: with a caption and a number, words for names, units in the head and decimals below each other.

`show` hands Jupyter a table of HTML and the book one of MyST, which Sphinx numbers and the role `numref` quotes.
"""

import html
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import pandas as pd
from IPython.display import display

from hqnn_utils.notebooks.results import written

NOTHING = "–"
CODE = re.compile(r"(`[^`|]+`)")

DATA = {"mnist": "MNIST", "hymenoptera": "ants and bees", "brain_tumor": "brain tumours", "chessman": "chess pieces"}
"""What the data sets of the slides are called on all pages."""

ENCODINGS = {"h_ry": "H, then R_Y", "ry": "R_Y", "h_rz": "H, then R_Z", "rx_rz": "R_X, then R_Z"}
"""What the encodings of `circuits.ENCODINGS` are called: the gates, in their order."""


def show(
    frame: pd.DataFrame,
    caption: str,
    name: str,
    units: Mapping[str, str] | None = None,
    decimals: int | str | Mapping[str, int | str] = 2,
) -> None:
    """Display a table.

    Args:
        frame: its index holds the names of the rows, and the name of the index stands above them. Columns and rows are named
            in words; of several levels the words are joined. A cell without a value is shown as a dash, an `Interval` with
            its ends, and what stands between backticks as code.
        caption: one sentence; Markdown, with mathematics, in the book.
        name: `tab-…`, by which pages refer to it.
        units: column → unit of its values.
        decimals: of what is no whole number, for all columns or by column; or a format, such as `".1e"`; or `".4p"` for
            p-values, of which one that would be written as zero is `< 0.0001`.

    Raises:
        ValueError: a name that does not begin with `tab-`, or a column in `units` or `decimals` that there is not.
    """
    if not name.startswith("tab-"):
        raise ValueError(f"the name of a table begins with tab-, got {name!r}")
    units, of = units or {}, decimals if isinstance(decimals, Mapping) else dict.fromkeys(frame.columns, decimals)
    if unknown := [str(column) for column in (*units, *of) if column not in frame.columns]:
        raise ValueError(f"no column {', '.join(unknown)}: the table has {', '.join(map(_words, frame.columns))}")
    head = [_words(frame.index.names), *(_with_unit(column, units) for column in frame.columns)]
    columns = [[_text(value, of.get(column, 2)) for value in frame[column]] for column in frame.columns]
    rows = [[_words(row), *cells] for row, cells in zip(frame.index, zip(*columns, strict=True), strict=True)]
    left = [True, *(all(isinstance(value, str) for value in frame[column].dropna()) for column in frame.columns)]
    display(
        {
            "text/html": _html(caption, head, rows, left),
            "text/markdown": _myst(caption, name, head, rows, left),
            "text/plain": f"{caption}\n\n" + pd.DataFrame(rows, columns=head).to_string(index=False),
        },
        raw=True,
    )


def _words(name: object) -> str:
    """A name, or the names of several levels, without those that are empty."""
    parts = name if isinstance(name, Sequence) and not isinstance(name, str) else [name]
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _with_unit(column: object, units: Mapping) -> str:
    return f"{_words(column)} ({units[column]})" if column in units else _words(column)


def _text(value: object, form: int | str) -> str:
    """A cell as it is read."""
    form = form if isinstance(form, str) else f",.{form}f"
    if form.endswith("p"):
        form = form[:-1] + "f"
        if isinstance(value, Real) and 0 <= float(value) < (least := 10.0 ** -int(form[1:-1])):
            return f"< {least:{form}}"
    if isinstance(value, tuple):
        format(value, form)  # Python refuses any tuple but an `Interval`
        return "{} ({} to {})".format(*(written(number, form) for number in value))
    if value is None or value is pd.NA or value != value or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return written(value, "," if isinstance(value, Integral) else form) if isinstance(value, Real) else str(value)


def _html(caption: str, head: list[str], rows: list[list[str]], left: list[bool]) -> str:
    styles = [f"text-align: {'left' if one else 'right'}; font-variant-numeric: tabular-nums" for one in left]

    def line(texts: Sequence[str], *tags: str) -> str:
        cells = zip([*tags, *["td"] * (len(texts) - len(tags))], styles, texts, strict=True)
        written_out = [f'<{tag} style="{style}">{_coded(text)}</{tag[:2]}>' for tag, style, text in cells]
        return f"<tr>{''.join(written_out)}</tr>"

    above, below = line(head, *['th scope="col"'] * len(head)), "\n".join(line(row, 'th scope="row"') for row in rows)
    caption = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>\n{caption}\n<thead>{above}</thead>\n<tbody>\n{below}\n</tbody>\n</table>"


def _myst(caption: str, name: str, head: list[str], rows: list[list[str]], left: list[bool]) -> str:
    lines = [head, [":--" if one else "--:" for one in left], *rows]
    escaped = [[_escaped(cell) for cell in line] for line in lines]
    body = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
    return f"```{{table}} {caption}\n:name: {name}\n:class: with-row-heads\n\n{body}\n```"


def _coded(text: str) -> str:
    """As HTML."""
    return CODE.sub(lambda found: f"<code>{found[0][1:-1]}</code>", html.escape(text))


def _escaped(text: str) -> str:
    """As Markdown, in which nothing but code has a meaning."""
    parts = CODE.split(text)
    return "".join(part if CODE.fullmatch(part) else re.sub(r"[`*_<|$]", r"\\\g<0>", part) for part in parts)
