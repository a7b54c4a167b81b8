"""The parameters that a chapter declares, and what they allow.

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
import re
import tokenize
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

TYPES = {"int": int, "float": float, "str": str, "bool": bool}


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


def of(path: Path) -> dict[str, Parameter]:
    """The parameters that a chapter declares; none for a chapter without a parameters cell."""
    for cell in read(path)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return declarations("".join(cell["source"]))
    return {}


def read(path: Path) -> dict:
    """A notebook, plainly as JSON: nbformat takes a second to import, which a refusal need not wait for."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return {"cells": notebook["cells"], "metadata": notebook["metadata"]}
    except (ValueError, TypeError, KeyError):
        raise ChapterError(f"{path} is no notebook: a chapter is an .ipynb file, see `hqnn run --help`") from None


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
    from hqnn_utils import results  # here, because it reads notebooks by this module

    values = {name: namespace[name] for name in declared}
    results.begin(values, {name: p.default for name, p in declared.items() if values[name] != p.default})


def _declares(source: str) -> bool:
    try:
        return bool(declarations(source))
    except (SyntaxError, ValueError, tokenize.TokenError):  # magics, and annotations of something that is no literal
        return False
