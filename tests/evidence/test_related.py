"""What is quoted of other people's papers: no number without its print, and no paper without its source."""

import re
from pathlib import Path

import pytest

from hqnn_utils.evidence.claims import related

BIB = (Path(__file__).parents[2] / "book/references.bib").read_text(encoding="utf-8")
PAPERS = related()
COMPARED = {(key, name): c for key, paper in PAPERS.items() for name, c in paper.get("comparisons", {}).items()}
paper = pytest.mark.parametrize("key", PAPERS)


@paper
def test_a_paper_says_where_it_is_what_it_concludes_and_what_was_read_of_it(key):
    entry = PAPERS[key]
    assert re.fullmatch(r"\d{4}\.\d{5}", entry["arxiv"]) and all(entry[key] for key in ("by", "title", "task", "says"))
    assert entry["side"] in ("for", "against", "mixed", "open")
    assert entry["read"] in ("abstract", "abstract, code")


@paper
def test_a_paper_stands_in_the_references_under_its_number(key):
    assert re.search(rf"{{{key},[^@]*eprint = {{{PAPERS[key]['arxiv']}}}", BIB)


@pytest.mark.parametrize("table", [*PAPERS.values(), *COMPARED.values()])
def test_every_printed_value_of_others_reads_as_its_meaning(table):
    for claim in (entry for entry in table.values() if isinstance(entry, dict) and "printed" in entry):
        number = float(claim["printed"].rstrip("%"))
        assert claim["value"] == pytest.approx(number / 100 if claim["printed"].endswith("%") else number)


def test_printed_accuracies_are_counts_of_the_images_they_are_said_to_be_of():
    alone = PAPERS["shahjalal2025"]
    for table, kinds in [(alone, ["quantum"]), *((c, ["quantum", "classical"]) for c in COMPARED.values())]:
        for kind in kinds:
            share = round(table[kind]["value"] * table["images"]) / table["images"]
            assert abs(share - table[kind]["value"]) < 0.5001e-4, (table, kind)
