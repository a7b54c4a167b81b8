"""What every committed chapter must be: one run from top to bottom on the real data, with figures that all readers can use."""

import re
from pathlib import Path

import nbformat
import pytest

from hqnn_utils.notebooks import parameters, results, runs

BOOK = Path(__file__).parents[2] / "book"
PATHS = list(runs.chapters().values())
chapter = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
PROSE = [*BOOK.rglob("*.md"), *PATHS]


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    """The text of a page without code, mathematics, roles and quoted numbers."""
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    text = results.QUOTED.sub("", text)
    for pattern in (r"(?<!`)`[^`]+`(?!`)", r"^(`{3,}).*?^\1", r"\$\$.*?\$\$", r"\$[^$]*\$"):
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    return text


def test_there_are_chapters():
    assert {"pqc", "entanglement", "quantum_classifier", "quantum_entanglement", "how_strong"} <= set(runs.chapters())


@chapter
def test_cells_were_executed_in_order_from_one(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@chapter
def test_no_output_is_an_error_or_a_warning(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@chapter
def test_every_figure_has_a_caption_a_name_and_an_alternative_text(path):
    for cell in code_cells(path):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            mystnb = cell.metadata["mystnb"]
            assert mystnb["figure"]["caption"] and mystnb["figure"]["name"].startswith("fig-")
            assert len(mystnb["image"]["alt"]) > 30, "say what the picture shows"


@chapter
def test_cells_are_short_enough_to_read(path):
    shown = [cell for cell in code_cells(path) if "parameters" not in cell.metadata.get("tags", [])]  # one line a parameter
    assert max(len(cell.source.splitlines()) for cell in shown) <= 25


@chapter
def test_the_parameters_cell_declares_meaning_and_allowed_values(path):
    declared = parameters.of(path)
    assert declared
    for parameter in declared.values():
        assert re.search(r"\w.*, (each )?in [\[({].*[\])}]$", parameter.help), f"{parameter.name}: {parameter.help!r}"
        parameter.check(parameter.default)


@chapter
def test_the_run_on_record_had_the_default_parameters(path):
    record = results.run_of(path)
    assert record["finished"] and record["parameters"] == {name: p.default for name, p in parameters.of(path).items()}
    assert record["wall_time_s"] > 0 and {"python", "torch", "pennylane"} <= record["versions"].keys()


@chapter
def test_an_experiment_was_run_on_real_data_and_says_on_which(path):
    if path.parent.name in ("experiments", "evidence"):
        declared = parameters.of(path)
        names = declared["datasets"].default if "datasets" in declared else [declared["dataset"].default]
        assert names and "digits" not in names
        assert re.fullmatch(r"[0-9a-f]{64}", results.of(path)["dataset_sha256"].value)


@chapter
def test_a_chapter_ends_in_a_verdict_and_exercises_with_solutions(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    assert "What the slides claim" in text and "\n## Verdict" in "\n" + text
    exercises = re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution-start\} (\S+)\n:class: dropdown", text)
    assert len(exercises) >= 3 and sorted(exercises) == sorted(solutions)


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_no_percentage_is_typed_in_prose(page):
    typed = re.findall(r"\d+(?:\.\d+)?\s?%", prose(page))
    assert set(typed) <= {"95 %", "100 %"}, "glue it: only a confidence level and a perfect score may be typed"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_every_number_that_a_page_quotes_is_the_one_on_record(page, tmp_path):
    copy = tmp_path / page.name
    copy.write_bytes(page.read_bytes())
    assert not results.write_numbers(copy), "stale: `make numbers` writes them anew"
    assert "—<!--=" not in copy.read_text(encoding="utf-8"), "quoted, and not recorded"


def test_pages_quote_numbers_and_not_by_another_way():
    texts = {page: page.read_text(encoding="utf-8") for page in PROSE}
    assert sum(len(results.QUOTED.findall(text)) for text in texts.values()) > 700
    assert not [page for page, text in texts.items() if "{glue:" in text]


@chapter
def test_prose_has_no_directive_that_only_a_book_shows(path):
    """Jupyter, VS Code, Colab and GitHub show it raw; a callout is a quotation, and exercises are code to them."""
    assert ":::" not in "".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
