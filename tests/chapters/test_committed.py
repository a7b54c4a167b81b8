"""What every committed chapter must be: one run from top to bottom on the real data, with figures that all readers can use."""

import ast
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import readme_picture
from nbclient import NotebookClient

from hqnn_utils.notebooks import parameters, results, runs

BOOK = Path(__file__).parents[2] / "book"
PATHS = list(runs.chapters().values())
chapter = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
PROSE = [BOOK.parent / "README.md", *BOOK.rglob("*.md"), *PATHS]
FENCED = re.compile(r"^(`{3,}).*?^\1", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def called(source: str) -> list[str]:
    """Names of the functions that a cell calls."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [getattr(call, "id", getattr(call, "attr", "")) for call in calls]


def functions(path: Path) -> list:
    """Functions and classes that a chapter defines, without their methods."""
    trees = [ast.parse(cell.source) for cell in code_cells(path)]
    return [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def body(function) -> str:
    """What a function does, whatever its name and its docstring."""
    kept = function.body[1:] if ast.get_docstring(function) else function.body
    return ast.dump(ast.Module(kept, [])) + ast.dump(getattr(function, "args", ast.Tuple()))


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
    assert {"pqc", "entanglement", "quantum_classifier", "quantum_entanglement", "many_networks"} <= set(runs.chapters())


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
def test_every_figure_is_kept_as_a_picture_and_as_a_drawing_that_names_neither_a_day_nor_a_version(path):
    for output in (output for cell in code_cells(path) for output in cell.outputs):
        data = output.get("data", {})
        assert ("image/png" in data) == ("image/svg+xml" in data)
        assert not re.search(r"<dc:date>|<dc:creator>", data.get("image/svg+xml", ""))


@chapter
def test_cells_are_short_enough_to_read(path):
    """But the parameters, which papermill wants in one cell."""
    cells = [cell for cell in code_cells(path) if "parameters" not in cell.metadata.get("tags", [])]
    assert not {cell.id: n for cell in cells if (n := len(cell.source.splitlines())) > 15}


@chapter
def test_results_are_recorded_out_of_sight_and_once_a_section(path):
    """A section goes from one heading to the next; headings within fences are none."""
    recorded = [0]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            recorded += [0] * len(HEADING.findall(FENCED.sub("", cell.source)))
            continue
        assert "glue" not in called(cell.source), f"{cell.id}: `record` takes all results of a section"
        if "record" in called(cell.source):
            assert "remove-cell" in cell.metadata.get("tags", []), f"{cell.id} stands in the reader's way"
            recorded[-1] += called(cell.source).count("record")
    assert max(recorded) == 1


def test_what_two_chapters_need_is_in_the_package():
    """One name means one thing in the whole book, and nothing is written twice under two names."""
    defined = [(path.stem, function) for path in PATHS for function in functions(path)]
    for what in (lambda function: function.name, body):
        chapters = {}
        for chapter_, function in defined:
            chapters.setdefault(what(function), {}).setdefault(chapter_, function.name)
        assert not [where for where in chapters.values() if len(where) > 1]


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
        if not {"datasets", "dataset"} & declared.keys():  # of printed numbers alone
            return
        names = declared["datasets"].default if "datasets" in declared else [declared["dataset"].default]
        assert names and "digits" not in names
        assert re.fullmatch(r"[0-9a-f]{64}", results.of(path)["dataset_sha256"].value)


@chapter
def test_a_chapter_ends_in_a_verdict_and_exercises_with_solutions(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    assert "**What the slides claim.**" in text or text.split("\n\n")[1].startswith("> **In short.** ")
    assert re.search(r'^(## Verdict|> \*\*Verdict: |> \*\*")', text, re.MULTILINE)
    exercises = re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution-start\} (\S+)\n:class: dropdown", text)
    assert exercises and sorted(exercises) == sorted(solutions)


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


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_no_number_stands_twice_because_its_unit_was_taken_for_it(page):
    """What touches a comment is replaced: of `3 %<!--=x-->` the sign of per cent, and the 3 would stay."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n".join(c.source for c in nbformat.reads(text, as_version=4).cells if c.cell_type == "markdown")
    assert not re.findall(r"(?:^|\s)[−\d.,]+ [−\d.,%]+<!--=\S*", text)


def test_pages_quote_numbers_and_not_by_another_way():
    texts = {page: page.read_text(encoding="utf-8") for page in PROSE}
    assert sum(text.count("<!--=") for text in texts.values()) > 700
    assert not [page for page, text in texts.items() if "{glue:" in text]


@chapter
def test_prose_has_no_directive_that_only_a_book_shows(path):
    """Jupyter, VS Code, Colab and GitHub show it raw; a callout is a quotation, and exercises are code to them."""
    assert ":::" not in "".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


@chapter
def test_a_chapter_reaches_for_nothing_that_only_a_checkout_has(path):
    code = "\n".join(cell.source for cell in code_cells(path))
    assert not re.findall(r"sys\.path|\.\./|\btests/", code)


WITHOUT = """
import sys
from pathlib import Path
sys.path[:] = [folder for folder in sys.path if not (Path(folder) / "hqnn_utils").exists()]
for name in [name for name in sys.modules if name.startswith("hqnn_utils")]:
    del sys.modules[name]
"""


def test_without_the_package_every_chapter_says_so_before_it_imports_anything(tmp_path):
    first = [next(cell.source for cell in code_cells(path) if "hqnn_utils" in cell.source) for path in PATHS]
    cells = [nbformat.v4.new_code_cell(source) for source in (WITHOUT, *first)]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells), allow_errors=True, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    first, *others = [[output for output in cell.outputs if output.output_type == "error"] for cell in cells]
    assert first == [] and len(others) == len(PATHS)
    for (error,) in others:
        assert error.ename == "SystemExit" and "No hqnn_utils: `pip install`" in error.evalue
        assert len(error.traceback) <= 2, "a sentence, no traceback"


def _of_notebook(path: Path) -> tuple[dict, dict]:
    """The setting that a chapter was run with, and the numbers that it found."""
    found = {name: r.value for name, r in results.of(path).items() if isinstance(r.value, float)}
    return results.run_of(path)["parameters"] | {"chapter": path.stem}, found


def _of_table(path: Path) -> list[tuple[dict, dict]]:
    """The settings of a committed table and what they found; a parameter that came later had its default."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    rows = []
    for row in table.to_dict("records") if "run" in table else ():
        default = {name: p.default for name, p in parameters.of(runs.chapters()[row["chapter"]]).items()}
        setting = {name: row.get(name, value) for name, value in default.items()} | {"chapter": row["chapter"]}
        rows.append((setting, {k: v for k, v in row.items() if isinstance(v, float)}))
    return rows


def test_a_setting_that_was_run_in_two_places_found_one_thing():
    chapters = [_of_notebook(path) for path in PATHS]
    tables = [row for path in sorted((BOOK.parent / "data/results").glob("*.csv")) for row in _of_table(path)]
    compared = 0
    for setting, found in chapters:
        for same, values in tables:
            if same == setting:
                both = (found.keys() & values.keys()) - setting.keys()
                apart = {k: (found[k], values[k]) for k in both if abs(found[k] - values[k]) > 1e-9}
                assert not apart, f"{setting['chapter']} and a table of its runs disagree: {apart}"
                compared += len(both)
    assert compared > 10  # the default run of `many_networks` is a row of `slides`


def test_the_picture_of_the_readme_is_the_chapters():
    assert readme_picture.PICTURE.read_text(encoding="utf-8") == readme_picture.drawing()
    assert "](book/map.svg)" in (readme_picture.ROOT / "README.md").read_text(encoding="utf-8")
