"""What a chapter found: results recorded in the executed notebook, read back from it, and written into its sentences.

A chapter records its own run: `check_parameters` calls `begin` with the parameters that are in force, and every `glue` belongs
to that run. So whatever executes a notebook (`hqnn run`, papermill, nbclient, JupyterLab), what is on record is what was
computed. In Jupyter the results of a cell are a small table below it; the rendered book quotes them in its sentences::

    The angle is 0.80<!--=theta:.2f--> radians.

The comment names the result and its format, and nobody sees it; the number before it is written there by `write_numbers`.
Other pages name the chapter too: `0.80<!--=foundations/pqc::theta:.2f-->`.
"""

import html
import math
import numbers
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from platform import python_version
from typing import Any, TypeVar
from uuid import uuid4

from hqnn_utils import files
from hqnn_utils.errors import ChapterError
from hqnn_utils.files import read_notebook

RECORDED = ("hqnn-utils", "pennylane", "torch", "numpy")
RUN, FOUND = "application/vnd.hqnn.run+json", "application/vnd.hqnn.results+json"
HIDDEN = {"mime_prefix": "application/papermill.record/"}
"""What makes MyST-NB leave an output out of the page, as scrapbook defined it."""


T = TypeVar("T")


class _Run:
    """The run that is going on in this process, and what the present cell has glued."""

    name = ""
    number = 0  # of outputs, since MyST-NB wants different names for them
    glued: dict[str, dict]
    of_seeds: dict[str, dict]


def begin(values: dict, changed: dict) -> None:
    """Open a new record, with the parameters that are in force. Called by `check_parameters`.

    Args:
        values: every parameter of the chapter, by name.
        changed: the defaults of those that have another value here; a note then says where this run's numbers stand.
    """
    _Run.name, _Run.glued, _Run.of_seeds = uuid4().hex[:12], {}, {}
    record = {
        "run": _Run.name,
        "parameters": values,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": {"python": python_version()} | {name: version(name) for name in RECORDED},
    }
    note = {}
    if changed:
        told = ", ".join(f"{name} = {values[name]!r} (not {default!r})" for name, default in changed.items())
        text = (
            f"This run has {told}. The numbers in the sentences are those of the run that wrote them; the numbers of this run "
            "stand in the tables below the cells, and `hqnn numbers FILE` writes them into the sentences of a saved notebook."
        )
        note = {"text/markdown": f"> {text}", "text/plain": text}
    _show({RUN: record} | note)


def glue(name: str, value: float | int | str, unit: str = "", tolerance: float = 0.0) -> None:
    """Record a result in the executed notebook, where sentences can quote it and `of` reads it back.

    Args:
        name: of the result.
        value: a finite number or a string; numpy and torch scalars become plain numbers.
        unit: of the value, e.g. `"s"`.
        tolerance: by how much a run on another machine may differ, in the same unit.

    Raises:
        ValueError: a value that is no finite number, string or truth value, or a name that a sentence could not quote.

    All results of a cell are written as one output, when the cell ends.
    """
    value = _checked(name, value)
    if _is_recording():
        _Run.glued[name] = {"value": value, "unit": unit, "tolerance": float(tolerance)}


def _checked(name: str, value: Any) -> float | int | str:
    value = value.item() if hasattr(value, "item") else value
    if not re.fullmatch(r"[^\s<>:]+", name):
        raise ValueError(f"a result needs a name without spaces, colons and angle brackets, got {name!r}")
    if not isinstance(value, str | numbers.Real) or (not isinstance(value, str) and not math.isfinite(value)):
        raise ValueError(f"result {name!r} is {value!r}, which is no finite number and no text: look at how it was computed")
    return value  # type: ignore[return-value]


def _is_recording() -> bool:
    """Whether this is a cell of a notebook; its results are then written when it ends."""
    from IPython import get_ipython

    if not (shell := get_ipython()):
        return False
    if not getattr(_Run, "glued", None) and not getattr(_Run, "of_seeds", None):
        _Run.glued, _Run.of_seeds = {}, {}
        # At the end of the cell: one output, behind all others. Registered anew each time, since it takes itself out again.
        shell.events.register("post_run_cell", _cell_ended)
    return True


def record_seeds(
    facts: object,
    seeds: Iterable[int],
    name: str = "",
    unit: str | Mapping[str, str] = "",
    tolerance: float | Mapping[str, float] = 0.0,
) -> None:
    """Record what every seed gave, for tables of many runs; the page shows nothing of it, and no sentence can quote it.

    Args:
        facts: by name, one finite number a seed, and again mappings; named as by `record`.
        seeds: which these are, in the same order.
        name, unit, tolerance: as for `record`.

    Raises:
        ValueError: another number of values than of seeds, or as `record`.
    """
    listed, seeds = _apart(_results(facts, name)), [int(seed) for seed in seeds]
    for full, values in listed:
        numbers = [_checked(full, value) for value in values]
        if len(numbers) != len(seeds):
            raise ValueError(f"result {full!r} has {len(numbers)} values for {len(seeds)} seeds")
        known = {"unit": _fitting(unit, full, ""), "tolerance": float(_fitting(tolerance, full, 0.0))}
        if _is_recording():
            _Run.of_seeds[full] = {"seeds": seeds, "values": numbers} | known


def record(
    facts: object,
    name: str = "",
    unit: str | Mapping[str, str] = "",
    tolerance: float | Mapping[str, float] = 0.0,
) -> None:
    """Record the results of a section, in one call, in a cell that the page does not show.

    What is named is joined by underscores: `record({"accuracy": {"quantum": 0.9, "sine": mean_interval(found)}})` records
    `accuracy_quantum`, `accuracy_sine`, `accuracy_sine_low` and `accuracy_sine_high`.

    Args:
        facts: by name, numbers and texts, as for `glue`, named tuples (an `Interval` …), whose `value` has no name of its own,
            tables, by row and column, and again mappings.
        name: put before all names.
        unit, tolerance: as for `glue`, of all results, or by pattern, as of a shell, with `*` and `?`; the first that fits
            counts.

    Raises:
        ValueError: two results of one name, or as `glue`.
    """
    for full, value in _apart(_results(facts, name)):
        glue(full, value, _fitting(unit, full, ""), _fitting(tolerance, full, 0.0))


def _apart(named: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Results, no two of which have one name."""
    listed = list(named)
    if doubled := {name for name, _ in listed if [other for other, _ in listed].count(name) > 1}:
        raise ValueError(f"two results of one name: {', '.join(sorted(doubled))}")
    return listed


def _results(facts: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(facts, "iterrows"):  # not by its class: pandas takes a while to import
        facts = {row: dict(cells) for row, cells in facts.iterrows()}
    elif hasattr(facts, "_asdict"):
        facts = {key if key != "value" else "": value for key, value in facts._asdict().items()}
    if not isinstance(facts, Mapping):
        yield name, facts
        return
    for key, value in facts.items():
        yield from _results(value, "_".join(str(part) for part in (name, key) if part != ""))


def _fitting(given: T | Mapping[str, T], name: str, otherwise: T) -> T:
    if not isinstance(given, Mapping):
        return given
    return next((value for pattern, value in given.items() if fnmatchcase(name, pattern)), otherwise)


def _cell_ended(result: object) -> None:
    from IPython import get_ipython

    get_ipython().events.unregister("post_run_cell", _cell_ended)
    glued, of_seeds, _Run.glued, _Run.of_seeds = _Run.glued, _Run.of_seeds, {}, {}
    rows = [(name, f"{_plain(fact['value'])} {fact['unit']}".rstrip()) for name, fact in glued.items()]
    cells = "".join(f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    table = f"<table><caption>Results of this cell</caption>{cells}</table>"
    text = "\n".join(f"{name} = {value}" for name, value in rows)
    shown = {"text/html": table, "text/plain": text} if rows else {}
    # Lists, since notebooks sort what is in a dictionary.
    found = {"run": _Run.name, "results": [{"name": name} | fact for name, fact in glued.items()]}
    if of_seeds:
        found["of_seeds"] = [{"name": name} | fact for name, fact in of_seeds.items()]
    _show({FOUND: found} | shown)


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _show(data: dict) -> None:
    from IPython.display import display

    _Run.number += 1
    display(data, raw=True, metadata={"scrapbook": {"name": f"hqnn-{_Run.number}"} | HIDDEN, "hqnn": True})


@dataclass(frozen=True)
class Result:
    """A number or a string that a chapter glued."""

    value: float | int | str
    unit: str
    tolerance: float

    def agrees(self, other: "Result") -> bool:
        """Whether another run's result is the same within the tolerance that this one declares."""
        if isinstance(self.value, str) or isinstance(other.value, str):
            return self.value == other.value
        return self.value == other.value or abs(self.value - other.value) <= self.tolerance


def is_record(output: dict) -> bool:
    """Whether an output of a notebook was made by `begin` or `glue`."""
    return bool(output.get("metadata", {}).get("hqnn"))


def in_outputs(outputs: list[dict], run: str | None = None) -> dict[str, Result]:
    """What `glue` left in some outputs, by name; with the name of a run, only what belongs to it."""
    facts = [fact for part in _parts(outputs, run) for fact in part["results"]]
    return {fact["name"]: Result(fact["value"], fact["unit"], fact["tolerance"]) for fact in facts}


def of_seeds_in(notebook: dict) -> dict[str, dict[int, Result]]:
    """What `record_seeds` left in a notebook that was read already: name → seed → result; of the run on record."""
    facts = [fact for part in _parts(_outputs(notebook), run_in(notebook).get("run")) for fact in part.get("of_seeds", [])]
    return {
        fact["name"]: {
            seed: Result(value, fact["unit"], fact["tolerance"])
            for seed, value in zip(fact["seeds"], fact["values"], strict=True)
        }
        for fact in facts
    }


def _parts(outputs: list[dict], run: str | None) -> list[dict]:
    parts = [output["data"][FOUND] for output in outputs if is_record(output) and FOUND in output["data"]]
    return [part for part in parts if run in (None, part["run"])]


def of(path: Path) -> dict[str, Result]:
    """The results in an executed notebook, by name: of the run on record, not what an earlier one left in other cells."""
    return in_notebook(read_notebook(path))


def in_notebook(notebook: dict) -> dict[str, Result]:
    """As `of`, of a notebook that was read already."""
    return in_outputs(_outputs(notebook), run_in(notebook).get("run"))


def run_of(path: Path) -> dict:
    """What a notebook says of the run that computed it; empty if it has no record.

    Returns:
        run (its name), parameters, date, versions; `finished`: whether every cell was executed, in order and without an error;
        of a run by `hqnn run` also chapter, wall_time_s and cores, and `failed`, if it did.
    """
    return run_in(read_notebook(path))


def run_in(notebook: dict) -> dict:
    """As `run_of`, of a notebook that was read already."""
    own: dict = next((o["data"][RUN] for o in reversed(_outputs(notebook)) if is_record(o) and RUN in o["data"]), {})
    by_runner = notebook["metadata"].get("hqnn", {})
    found = (by_runner if by_runner.get("run") == own.get("run") else {}) | own
    if not found:
        return {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    counts = [cell["execution_count"] or 0 for cell in cells]
    in_order = all(0 < one < after for one, after in pairwise([*counts, math.inf]))
    failed = "failed" in found or any(output["output_type"] == "error" for output in _outputs(notebook))
    of_others = {o["data"][FOUND]["run"] for o in _outputs(notebook) if is_record(o) and FOUND in o["data"]} - {
        own.get("run", "")
    }
    return found | {"finished": in_order and not failed and not of_others}


def _outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


VALUE, NAME, FORMAT = r"""[^\s()*"$|<>/]*""", r"[^\s<>:]+", r"[^\s<>]*"
QUOTED = re.compile(rf"(?P<value>{VALUE})<!--=(?:(?P<chapter>{NAME})::)?(?P<name>{NAME})(?::(?P<format>{FORMAT}))?-->")
"""A number in a sentence, and the comment that says where it comes from."""


def filled(text: str, of_chapter: Callable[[str], dict[str, Result]]) -> str:
    """A text with every quoted number as its chapter has it now; `—` stands where that has no such result.

    Args:
        text: Markdown.
        of_chapter: name of a chapter, with its part, or `""` for the chapter itself → its results.

    Raises:
        ChapterError: a format that does not fit its value.
    """

    def quote(mark: re.Match) -> str:
        result = of_chapter(mark["chapter"] or "").get(mark["name"])
        comment = mark[0][len(mark["value"]) :]
        return (written(result.value, mark["format"] or "") if result else "—") + comment

    try:
        return QUOTED.sub(quote, text)
    except ValueError as error:
        raise ChapterError(f"a number is quoted with a format that does not fit it: {error}") from None


def written(value: object, format_: str) -> str:
    """A value as a sentence has it: with a real minus sign, and powers of ten instead of an `e`."""
    text = f"{value:{format_}}"
    if isinstance(value, str):
        return text
    mantissa, e, exponent = text.partition("e")
    if e:
        mantissa += "×10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return mantissa.replace("-", "−" if re.search("[1-9]", mantissa) else "")  # a loss of nothing is no loss


def put_numbers(notebook: dict) -> None:
    """Write the results in a notebook into its own sentences and captions, and drop the note that they are another run's.

    Raises:
        ChapterError: it quotes a chapter that there is not, or with a format that does not fit.
    """
    own = in_notebook(notebook)

    def with_numbers(text: str) -> str:
        return filled(text, lambda chapter: _committed(chapter) if chapter else own)

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_numbers("".join(cell["source"]))
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "caption" in figure:
            figure["caption"] = with_numbers(figure["caption"])
    for output in _outputs(notebook):
        if is_record(output) and RUN in output["data"]:
            output["data"] = {RUN: output["data"][RUN]}


def write_numbers(path: Path) -> bool:
    """Write the recorded numbers into the sentences of a notebook, or of a page in Markdown; whether anything changed.

    Raises:
        ChapterError: as `put_numbers`, or no notebook; nothing is written.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            import nbformat  # here, because a refused parameter must not wait for it

            notebook = nbformat.reads(text, as_version=4)
            put_numbers(notebook)
            new = nbformat.writes(notebook) + "\n"
        else:
            new = filled(text, _committed)
    except (ValueError, KeyError, OSError) as error:
        raise ChapterError(f"{path}: its numbers cannot be written ({error})") from None
    if new != text:
        files.write(path, new)
    return new != text


@cache
def _committed(chapter: str) -> dict[str, Result]:
    """Results of a chapter of the book."""
    path = files.place("book") / f"{chapter}.ipynb"
    if not chapter or not path.is_file():
        raise ChapterError(
            f"a page quotes {chapter or 'no chapter'!r}, and there is no such chapter: write part/chapter::name"
        )
    return of(path)
