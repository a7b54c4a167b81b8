"""A chapter as a program: its declared parameters, running it, and reading its results back.

A chapter is a notebook with one cell tagged `parameters`, whose lines read

    epochs: int = 3  # passes over the training images, in [1, 1000]

that is name, type, default, meaning, and the allowed values: an interval `in [low, high]` with round brackets for excluded
ends, or a set `in {a, b}`, in which `*` stands for anything; for lists both hold for each element, and `2 distinct` asks for
that many different ones. The comment is the contract that `hqnn run` enforces before a kernel starts, and the chapter itself
anywhere else.
"""

import ast
import difflib
import io
import json
import os
import re
import sys
import tempfile
import time
import tokenize
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from platform import python_version

BOOK = Path(__file__).parent.parent / "book"
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
RECORDED = ("hqnn-utils", "pennylane", "torch", "numpy")


class ChapterError(Exception):
    """A chapter that cannot be found, run or written; the message says what to do."""


class ParameterError(ChapterError):
    """A parameter that the chapter does not declare, or a value that it does not allow."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str  # int, float, str, bool, or list[…] of one of these
    default: object
    help: str  # the comment: meaning, unit, allowed values

    def parse(self, text: str):
        """The value that a command line means by `text`, checked.

        Raises:
            ParameterError: it is not of this parameter's type, or not allowed.
        """
        if self.type == "str":
            return self.check(text)
        if self.type == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if self.type == "list[str]" and not text.startswith("["):
            return self.check([word.strip() for word in text.split(",")])  # words need no quotes
        if self.type.startswith("list") and not text.startswith("["):
            text = f"[{text}]"
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that literal_eval may raise
            raise self._refusal(text, f"expected {self.type}") from None
        return self.check(value)

    def check(self, value):
        """`value`, if it has this parameter's type and is allowed.

        Raises:
            ParameterError: names the parameter, the value and what was expected.
        """
        is_list = self.type.startswith("list[")
        element = TYPES[self.type.removeprefix("list[").removesuffix("]")]
        values = value if is_list and isinstance(value, list | tuple) else [value]
        if is_list != isinstance(value, list | tuple) or not all(_is(item, element) for item in values):
            raise self._refusal(value, f"expected {self.type}")
        distinct = re.search(r"(\d+) distinct", self.help)
        if distinct and not len(values) == len(set(values)) == int(distinct[1]):
            raise self._refusal(value, f"expected {distinct[1]} different values")
        if not values:
            raise self._refusal(value, "expected at least one value")
        if not all(self._allows(item) for item in values):
            raise self._refusal(value, f"allowed is {self.help[self.help.rindex('in ') :]}")
        return value

    def _allows(self, item) -> bool:
        if interval := re.search(r"in ([\[(])([^\[({},]+),([^\])},]+)([\])])$", self.help):
            left, low, high, right = interval.groups()
            above = item >= float(low) if left == "[" else item > float(low)
            below = item <= float(high) if right == "]" else item < float(high)
            return above and below
        if choices := re.search(r"in \{(.*)\}$", self.help):
            return any(fnmatchcase(str(item), choice.strip()) for choice in choices[1].split(","))
        return True

    def _refusal(self, value, why: str) -> ParameterError:
        return ParameterError(f"parameter {self.name} = {value!r} refused: {why} ({self.help})")


def _is(value, wanted: type) -> bool:
    if isinstance(value, bool):  # a bool is an int to Python, not to a reader
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


def declarations(source: str) -> dict[str, Parameter]:
    """The parameters that the lines of a cell declare, by name; lines without an annotation declare nothing."""
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        line.target.id: Parameter(
            line.target.id,
            ast.unparse(line.annotation),
            ast.literal_eval(line.value),
            comments.get(line.end_lineno, ""),
        )
        for line in ast.parse(source).body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None
    }


def chapters() -> dict[str, Path]:
    """The chapters of the book by name: every notebook under `book/`."""
    # Hidden ones are Jupyter's checkpoints and runs that are still going on.
    notebooks = [path.relative_to(BOOK) for path in sorted(BOOK.rglob("*.ipynb"))]
    return {path.stem: BOOK / path for path in notebooks if not any(part.startswith(".") for part in path.parts)}


def find(chapter: str) -> Path:
    """The notebook of a chapter, given by name (`pqc`), with its part (`foundations/pqc`), or as a path to a notebook.

    Raises:
        ChapterError: there is none; names the near misses, or all chapters.
    """
    if chapter.endswith(".ipynb") and Path(chapter).is_file():
        return Path(chapter)
    known, wanted = chapters(), chapter.removesuffix(".ipynb")
    for name, path in known.items():
        if wanted in (name, path.relative_to(BOOK).with_suffix("").as_posix()):
            return path
    near = difflib.get_close_matches(Path(chapter).stem, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the book has {', '.join(known)}"
    raise ChapterError(f"unknown chapter {chapter!r}: {hint}")


def parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a chapter declares; none for a chapter without a parameters cell."""
    for cell in _read(path)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return declarations("".join(cell["source"]))
    return {}


def _read(path: Path) -> dict:
    """A notebook, plainly as JSON: nbformat takes a second to import, which a refusal need not wait for."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return {"cells": notebook["cells"], "metadata": notebook["metadata"]}
    except (ValueError, TypeError, KeyError):
        raise ChapterError(f"{path} is no notebook: a chapter is an .ipynb file, see `hqnn run --help`") from None


def record(path: Path) -> dict:
    """What `run` recorded in a notebook: chapter, parameters, date, wall time in seconds, cores, versions; or nothing."""
    return _read(path)["metadata"].get("hqnn", {})


def validated(declared: dict[str, Parameter], given: dict[str, str]) -> dict:
    """The values of parameters given as text, all of them checked.

    Raises:
        ParameterError: an unknown name (the near misses are named), or a value of the wrong type or out of range.
    """
    for name in given:
        if name not in declared:
            raise ParameterError(_unknown(name, declared))
    return {name: declared[name].parse(text) for name, text in given.items()}


def _unknown(name: str, declared: dict[str, Parameter]) -> str:
    near = difflib.get_close_matches(name, declared)
    hint = f"did you mean {' or '.join(near)}?" if near else f"this chapter declares {', '.join(declared) or 'none'}"
    return f"unknown parameter {name!r}: {hint}"


def check_parameters(namespace: dict) -> None:
    """Hold a running notebook's parameters against what its parameters cell declares.

    Args:
        namespace: the notebook's `globals()`. IPython keeps the source of every cell that was run in `In`, so the comments of
            the parameters cell can be read wherever the notebook lies and whoever runs it.

    Raises:
        ParameterError: as `validated`, also for names that plain papermill injected without a declaration.
    """
    history = namespace["In"]
    position = max((i for i, source in enumerate(history) if _declares(source)), default=None)
    if position is None:
        raise ParameterError("no cell of this notebook declares parameters as `name: type = value  # meaning`")
    declared = declarations(history[position])
    for source in history[position + 1 :]:
        if source.startswith("# Parameters\n"):  # papermill's injected cell
            for line in ast.parse(source).body:
                if isinstance(line, ast.Assign) and line.targets[0].id not in declared:
                    raise ParameterError(_unknown(line.targets[0].id, declared))
    for name, parameter in declared.items():
        parameter.check(namespace[name])


def _declares(source: str) -> bool:
    try:
        return bool(declarations(source))
    except (SyntaxError, ValueError, tokenize.TokenError):  # magics, and annotations of something that is no literal
        return False


def glue(name: str, value: float | int | str, unit: str = "", tolerance: float = 0.0) -> None:
    """Record a result in the executed notebook, where prose can quote it and `results` reads it back.

    Args:
        name: of the result; prose quotes it as `{glue:text}`.
        value: a number or a string; numpy and torch scalars become plain numbers, which a format such as `:.3f` needs.
        unit: of the value, e.g. `"s"`.
        tolerance: by how much a run on another machine may differ, in the same unit.

    The output has the form that scrapbook defined and MyST-NB reads, plus unit and tolerance.
    """
    from IPython.display import display

    value = value.item() if hasattr(value, "item") else value
    prefix = "application/papermill.record/"  # stored, not shown
    scrap = {"scrapbook": {"name": name, "mime_prefix": prefix}, "hqnn": {"unit": unit, "tolerance": tolerance}}
    display({f"{prefix}text/plain": repr(value)}, raw=True, metadata=scrap)


@dataclass(frozen=True)
class Result:
    """A number or a string that a chapter glued."""

    value: object
    unit: str
    tolerance: float

    def agrees(self, other: "Result") -> bool:
        """Whether another run's result is the same within the tolerance that this one declares."""
        if isinstance(self.value, str) or isinstance(other.value, str):
            return self.value == other.value
        return self.value == other.value or abs(self.value - other.value) <= self.tolerance


def scrap(output: dict) -> tuple[str, Result] | None:
    """Name and result of a notebook output that `glue` made, or None for any other output."""
    metadata = output.get("metadata", {})
    if "hqnn" not in metadata:
        return None
    text = "".join(output["data"][metadata["scrapbook"]["mime_prefix"] + "text/plain"])
    facts = metadata["hqnn"]
    value = float(text) if text in ("nan", "inf", "-inf") else ast.literal_eval(text)
    return metadata["scrapbook"]["name"], Result(value, facts["unit"], float(facts["tolerance"]))


def results(path: Path) -> dict[str, Result]:
    """Everything that an executed notebook glued, by name."""
    outputs = [output for cell in _read(path)["cells"] for output in cell.get("outputs", [])]
    return dict(found for output in outputs if (found := scrap(output)))


def run(chapter: str, given: dict[str, str], output: Path | None = None) -> Path:
    """Execute a chapter with parameters and write the executed notebook, with a record of the run in its metadata.

    Args:
        chapter: as for `find`.
        given: parameters as text, by name; the chapter's defaults hold for all others.
        output: where to write; by default `runs/CHAPTER-TIME.ipynb`. With the chapter's own path its committed outputs are
            renewed, which is allowed with default parameters only.

    Returns:
        The path written. Nothing is written there unless every cell ran.

    Raises:
        ParameterError, ChapterError: before a kernel starts.
        papermill.PapermillExecutionError: a cell failed.
    """
    path = find(chapter)
    values = validated(parameters(path), given)
    output = output or Path("runs") / f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}.ipynb"
    if values and output.resolve() == path.resolve():
        raise ChapterError(f"{output} is the chapter itself, which keeps its default parameters: choose another output")
    if output.is_dir():
        raise ChapterError(f"cannot write {output}: it is a folder; choose another place with --output")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".ipynb", f".{output.stem}-", output.parent)
    except OSError as error:
        raise ChapterError(f"cannot write {output}: {error.strerror}; choose another place with --output") from None
    os.close(handle)
    beside = Path(name)
    try:
        _execute(path, beside, values)
        beside.chmod(0o644)  # mkstemp's files are private
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
    return output


def _execute(path: Path, target: Path, values: dict) -> None:
    import nbformat  # these two here, because a refused parameter must not wait for them
    import papermill

    if data := os.environ.get("HQNN_DATA"):
        os.environ["HQNN_DATA"] = str(Path(data).expanduser().resolve())  # the kernel may run in another folder
    started, clock = datetime.now(UTC), time.perf_counter()
    papermill.execute_notebook(path, target, values, stderr_file=sys.stderr, progress_bar=True)
    notebook = nbformat.read(target, as_version=4)
    # papermill leaves this machine's paths and a clock on every cell; the record keeps what a reader can use.
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:  # progress bars, shown while they moved
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" or "\r" not in o.text]
    notebook.metadata["hqnn"] = {
        "chapter": path.stem,
        "parameters": {name: p.default for name, p in parameters(path).items()} | values,
        "date": f"{started:%Y-%m-%d}",
        "wall_time_s": round(time.perf_counter() - clock, 1),
        "cores": os.cpu_count(),
        "versions": {"python": python_version()} | {name: version(name) for name in RECORDED},
    }
    nbformat.write(notebook, target)
