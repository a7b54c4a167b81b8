"""A table of a page has a caption, heads, units and decimals, in Jupyter and in the book."""

import html
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from sphinx.application import Sphinx

from hqnn_utils.evidence.statistics import Interval
from hqnn_utils.notebooks import tables
from hqnn_utils.quantum.circuits import ENCODINGS

ROOT = Path(__file__).parents[2]
FRAME = pd.DataFrame(
    {
        "accuracy": [0.91234, -0.5, np.nan],
        "duration": [1234.56, 2.25, 0.1],
        "images": [60000, 153, 5],
        "p value": [1e-9, 0.02, 0.5],
        "verdict": ["reproduced", "$3 | b * <c> $4", "run `a_b <c>`, or `"],
        "entangled": [True, False, True],
        "span": [Interval(0.5, -0.25, 0.75), Interval(1, 0, 2), Interval(1, 0, 2)],
    },
    index=pd.Index(["ResNet18", "brain tumour, clean split", "LeNet-Q"], name="network"),
)
HEAD = ["network", "accuracy", "duration (s)", "images", "p value", "verdict", "entangled", "span"]
ROWS = [
    ["ResNet18", "0.91", "1,234.6", "60,000", "1.0×10⁻⁹", "reproduced", "yes", "0.50 (−0.25 to 0.75)"],
    ["brain tumour, clean split", "−0.50", "2.2", "153", "2.0×10⁻²", "$3 | b * <c> $4", "no", "1.00 (0.00 to 2.00)"],
    ["LeNet-Q", "–", "0.1", "5", "5.0×10⁻¹", "run a_b <c>, or `", "yes", "1.00 (0.00 to 2.00)"],
]


def shown(monkeypatch, *given, **options) -> dict[str, str]:
    bundles = []
    monkeypatch.setattr(tables, "display", lambda bundle, raw: bundles.append(bundle))
    tables.show(*given, **options)
    return bundles[0]


@pytest.fixture(scope="module")
def bundle() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        forms = {"duration": 1, "p value": ".1e"}
        return shown(patch, FRAME, "What was *found*.", "tab-found", units={"duration": "s"}, decimals=forms)


def test_jupyter_shows_words_units_decimals_minus_signs_and_no_nan(bundle):
    rows = re.findall(r"<tr>(.*?)</tr>", bundle["text/html"])
    cells = [
        [html.unescape(re.sub("</?code>", "", text)) for text in re.findall(r"<t[hd] .*?>(.*?)</t[hd]>", row)] for row in rows
    ]
    assert cells == [HEAD, *ROWS]
    assert "run <code>a_b &lt;c&gt;</code>, or `" in bundle["text/html"]


def test_jupyter_has_a_caption_and_heads_of_columns_and_rows(bundle):
    found = bundle["text/html"]
    assert "<caption>What was *found*.</caption>" in found
    assert (found.count('<th scope="col"'), found.count('<th scope="row"'), found.count("<th ")) == (8, 3, 11)


def test_a_terminal_shows_the_same(bundle):
    said = bundle["text/plain"].replace("`a_b <c>`", "a_b <c>")
    assert all(cell in said for row in [HEAD, *ROWS] for cell in row)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory) -> str:
    """A page of the book with such a table, as HTML."""
    folder = tmp_path_factory.mktemp("book")
    output = nbformat.v4.new_output("display_data", data=bundle)
    cells = [
        nbformat.v4.new_markdown_cell("# A page\n\nSee {numref}`tab-found`."),
        nbformat.v4.new_code_cell("show(frame)", outputs=[output], execution_count=1),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "index.ipynb")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    chosen = {name: config[name] for name in ("nb_mime_priority_overrides", "nb_render_markdown_format")}
    own = {"extensions": ["myst_nb", "table_heads"], "numfig": True, "nb_execution_mode": "off", "html_theme": "basic"}
    own["myst_enable_extensions"] = ["dollarmath"]  # as Jupyter Book does
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "_ext"))
        places = [folder, None, folder / "html", folder / "trees"]
        Sphinx(*places, "html", own | chosen, status=None, warningiserror=True).build()
    return (folder / "html" / "index.html").read_text(encoding="utf-8")


def test_the_book_numbers_a_table_and_quotes_its_number(built):
    assert re.search(
        r'<caption><span class="caption-number">Table 1 </span><span class="caption-text">What was <em>found</em>', built
    )
    assert re.search(r'href="#tab-found"><span class="std std-numref">Table 1</span>', built)


def test_the_book_shows_the_same_cells_with_heads_that_say_of_what(built):
    heads = re.findall(r'<th scope="(\w+)" class="[^"]*"><p>(.*?)</p>', built)
    assert heads == [("col", text) for text in HEAD] + [("row", row[0]) for row in ROWS]
    code = re.compile(r'<code class="[^"]*">(.*?)</code>')
    cells = [re.sub("</?span[^>]*>", "", code.sub(r"\1", cell)) for cell in re.findall(r"<td[^>]*><p>(.*?)</p></td>", built)]
    assert len(code.findall(built)) == 1
    assert cells == [cell.replace("<", "&lt;").replace(">", "&gt;") for row in ROWS for cell in row[1:]]


def test_numbers_stand_right_and_words_left(built):
    sides = re.findall(r'<td class="text-(\w+)">', built)[:7]
    assert sides == ["right", "right", "right", "right", "left", "right", "right"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("found", {}, "the name of a table begins with tab-, got 'found'"),
        ("tab-found", {"units": {"time": "s"}}, "no column time: the table has accuracy, duration"),
        ("tab-found", {"decimals": {"time": 1}}, "no column time"),
    ],
)
def test_a_slip_is_refused(monkeypatch, name, options, said):
    with pytest.raises(ValueError, match=said):
        shown(monkeypatch, FRAME, "", name, **options)


def test_a_raw_tuple_is_refused(monkeypatch):
    with pytest.raises(TypeError):
        shown(monkeypatch, pd.DataFrame({"a": [(1, 2)]}), "", "tab-a")


def test_several_levels_are_words_too(monkeypatch):
    rows = pd.MultiIndex.from_tuples([("ants", "Q"), ("ants", "C")], names=["data", "network"])
    found = shown(monkeypatch, pd.DataFrame({("accuracy", "mean"): [1.0, 2.0]}, index=rows), "", "tab-a")["text/markdown"]
    assert "| data, network | accuracy, mean |" in found and "| ants, Q | 1.00 |" in found


def test_an_interval_far_from_one_is_written_in_powers_of_ten(monkeypatch):
    frame = pd.DataFrame({"left": [Interval(5.9e-41, 5.1e-41, 6.8e-41)]})
    assert "5.9×10⁻⁴¹ (5.1×10⁻⁴¹ to 6.8×10⁻⁴¹)" in shown(monkeypatch, frame, "", "tab-a", decimals=".1e")["text/plain"]


def test_a_p_value_is_never_zero(monkeypatch):
    frame = pd.DataFrame({"p": [1e-5, 1e-4, 0.0, 0.5]})
    found = shown(monkeypatch, frame, "", "tab-a", decimals={"p": ".4p"})["text/html"]
    assert re.findall(r">([^<>]*)</td>", found) == ["&lt; 0.0001", "0.0001", "&lt; 0.0001", "0.5000"]


def test_every_encoding_has_words():
    assert set(tables.ENCODINGS) == set(ENCODINGS)
