"""The parameters that a chapter declares, and what they allow.

A chapter is a notebook with one cell tagged `parameters`, whose lines read::

    epochs: int = 3  # passes over the training images, in [1, 1000]

that is name, type, default, meaning, and the allowed values: an interval `in [low, high]` with round brackets for excluded
ends, or a set `in {a, b}`, in which `*` stands for anything; for lists both hold for each element, and `distinct`,
`2 distinct` or `at least 2 distinct` ask for different ones, for so many, or for no fewer. The comment is the contract that
`hqnn run` enforces before a kernel starts, and the chapter itself anywhere else; a line without one is refused. A default may
be simple arithmetic, such as `np.pi / 4` or `10**4`, since the cell is read to find it, never run.
"""

import ast
import difflib
import io
import math
import operator
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hqnn_utils.errors import ChapterError
from hqnn_utils.files import read_notebook
from hqnn_utils.notebooks import results

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
LINE = "`name: type = value  # meaning, in [low, high]` (or `… in {a, b}`)"
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: (math.pow(base, exponent), base**exponent)[1],  # the first refuses what has no end
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
UNREADABLE = (SyntaxError, ValueError, tokenize.TokenError, MemoryError, RecursionError)
"""What Python's parsers raise."""


class ParameterError(ChapterError):
    """A parameter that the chapter does not declare, or a value that it does not allow."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str  # int, float, str, bool, or list[…] of one of these
    default: object
    help: str  # the comment: meaning, unit, allowed values

    def parse(self, text: str) -> object:
        """The value that a command line means by `text`, checked.

        Raises:
            ParameterError: it is not of this parameter's type, or not allowed.
        """
        if self.type == "str":
            return self.check(text)
        if self.type == "bool" and text.lower() in ("true", "false"):
            return self.check(text.lower() == "true")
        if self.type == "list[str]" and not text.startswith("["):
            return self.check([word.strip() for word in text.split(",")])  # words need no quotes
        if self.type.startswith("list") and not text.startswith("["):
            text = f"[{text}]"
        try:
            value = ast.literal_eval(text)
        except (*UNREADABLE, TypeError):
            raise self._refusal(text, f"expected {self.type}") from None
        return self.check(value)

    def check(self, value: object) -> object:
        """`value`, if it has this parameter's type and is allowed.

        Raises:
            ParameterError: names the parameter, the value and what was expected.
        """
        is_list = self.type.startswith("list[")
        element = TYPES[self.type.removeprefix("list[").removesuffix("]")]
        values = value if is_list and isinstance(value, list | tuple) else [value]
        wrong = [item for item in values if not _is(item, element)]
        if wrong or is_list != isinstance(value, list | tuple):
            raise self._refusal(value, f"expected {self.type}" + _hint(wrong[:1], element))
        if wants := re.search(r"(at least )?(\d+ )?distinct", self.help):
            at_least, number = wants[1] or "", int(wants[2] or len(set(values)))
            if len(set(values)) < number or (not at_least and len(values) > number):
                raise self._refusal(value, f"expected {at_least}{wants[2] or ''}different values")
        if not values:
            raise self._refusal(value, "expected at least one value")
        if not all(self._allows(item) for item in values):
            raise self._refusal(value, f"allowed is {self.help[self.help.rindex('in ') :]}")
        return value

    def complete(self) -> "Parameter":
        """This parameter, if its type is one that can be checked and its comment ends in the allowed values.

        Raises:
            ParameterError: says which of the two is missing, and what a line should look like.
        """
        if not re.fullmatch(rf"(list\[)?({'|'.join(TYPES)})(?(1)\])", self.type):
            raise ParameterError(
                f"parameter {self.name} has the type {self.type}: expected {', '.join(TYPES)} or list[…] of one"
            )
        if not _allowed(self.help):
            found = f"the comment {self.help!r}, which ends" if self.help else "no comment, which would end"
            raise ParameterError(f"parameter {self.name} has {found} in no allowed values: expected {LINE}")
        return self

    def _allows(self, item: Any) -> bool:
        match _allowed(self.help):
            case [patterns]:
                return any(fnmatchcase(str(item), pattern) for pattern in patterns)
            case [left, low, high, right]:
                return (item >= low if left == "[" else item > low) and (item <= high if right == "]" else item < high)
        return True

    def _refusal(self, value: object, why: str) -> ParameterError:
        return ParameterError(f"parameter {self.name} = {_shown(value)} refused: {why} ({self.help})")


def _allowed(comment: str) -> tuple:
    """The interval as (bracket, low, high, bracket), or a set as (its patterns,); empty if the comment ends in neither."""
    if interval := re.search(r"\bin ([\[(])([^\[({},]+),([^\])},]+)([\])])$", comment):
        left, low, high, right = interval.groups()
        try:
            return left, float(low), float(high), right
        except ValueError:
            return ()
    choices = re.search(r"\bin \{(.*)\}$", comment)
    return ([choice.strip() for choice in choices[1].split(",")],) if choices else ()


def _is(value: object, wanted: type) -> bool:
    if isinstance(value, bool):  # a bool is an int to Python, not to a reader
        return wanted is bool
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return False  # bytes of a command line that are no text, which no notebook can keep
    return isinstance(value, int | float if wanted is float else wanted)


def _hint(wrong: list, wanted: type) -> str:
    """How to write a number that arrived as a text; with an exponent, YAML 1.1 knows one only by its point and sign."""
    try:
        number = float(wrong[0]) if wanted in (int, float) and isinstance(wrong[0], str) else math.nan
    except (ValueError, IndexError):
        return ""
    if not math.isfinite(number) or (wanted is int and not number.is_integer()):
        return ""
    mantissa, _, exponent = wrong[0].strip().lower().partition("e")
    point = "" if "." in mantissa else ".0"
    written = f"{mantissa}{point}e{int(exponent):+}" if exponent else wrong[0].strip()
    return f"; this is a text, for YAML too: write {written if wanted is float else int(number)}"


def _shown(value: object) -> str:
    try:
        return _short(repr(value))
    except ValueError:  # Python writes no integer of that many digits
        return "a number with thousands of digits"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]} …"


def declarations(source: str) -> dict[str, Parameter]:
    """The parameters that the lines of a parameters cell declare, by name.

    Raises:
        ParameterError: the cell cannot be read, or a line of it assigns a value without saying type and allowed values.
    """
    try:
        lines = _lines(source)
    except UNREADABLE as error:
        raise ParameterError(f"the parameters cell is not Python that can be read ({error}): expected lines {LINE}") from None
    declared = {}
    for line, comment in lines:
        if isinstance(line, ast.Assign):
            names = ast.unparse(line.targets[0])
            raise ParameterError(f"parameter {names} has no type behind its name in the parameters cell: expected {LINE}")
        if isinstance(line, ast.AnnAssign):
            name = ast.unparse(line.target)
            declared[name] = Parameter(name, ast.unparse(line.annotation), _default(name, line.value), comment).complete()
    return declared


def _lines(source: str) -> list[tuple[ast.stmt, str]]:
    """The statements of a cell, each with the comment on its last line."""
    code = re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)  # IPython's own lines, such as %%time
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type == tokenize.COMMENT
    }
    return [(line, comments.get(line.end_lineno or 0, "")) for line in ast.parse(code).body]


def _default(name: str, written: ast.expr | None) -> object:
    try:
        return _value(written)
    except (ValueError, ArithmeticError, TypeError) as error:
        shown = _short(ast.unparse(written)) if written else "nothing"
        why = f"{error}; expected a number, a text, a list, or arithmetic with numbers and pi or e, as in np.pi / 4"
        raise ParameterError(f"the value of parameter {name} cannot be read from {shown}: {why}") from None


def _value(written: ast.expr | None) -> object:
    """The value of a literal, or of arithmetic with numbers and mathematical constants; nothing is run."""
    match written:
        case ast.Constant(value):
            return value
        case ast.List(items) | ast.Tuple(items):
            return [_value(item) for item in items]
        case ast.UnaryOp(sign, operand) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_number(operand))
        case ast.BinOp(left, sign, right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_number(left), _number(right))
        case ast.Attribute(ast.Name("math" | "np" | "numpy" | "torch"), "pi" | "e" | "tau" as constant):
            return getattr(math, constant)
        case ast.Name("pi" | "e" | "tau" as constant):
            return getattr(math, constant)
    raise ValueError("that would have to be run" if written else "there is none")


def _number(written: ast.expr) -> int | float:
    value = _value(written)
    if not isinstance(value, int | float):
        raise ValueError("arithmetic is for numbers")
    return value


def of(path: Path) -> dict[str, Parameter]:
    """The parameters that a chapter declares; none for a chapter without a parameters cell.

    The defaults of an executed notebook are the values with which it was run.
    """
    declared = declarations(_tagged(path, "parameters"))
    return declared | {name: replace(declared[name], default=value) for name, value in injected(path, declared).items()}


def injected(path: Path, declared: dict[str, Parameter]) -> dict[str, object]:
    """The values that papermill wrote into a notebook when it was run, by name; none in a chapter."""
    values = {name: _default(name, value) for name, value in _assigned(_tagged(path, "injected-parameters")).items()}
    return {name: value for name, value in values.items() if _known(name, declared)}


def _tagged(path: Path, tag: str) -> str:
    return next((cell["source"] for cell in read_notebook(path)["cells"] if tag in cell["metadata"]["tags"]), "")


def _assigned(source: str) -> dict[str, ast.expr]:
    """What papermill's cell assigns, by name."""
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(f"the cell with injected parameters is no Python ({error})") from None
    return {ast.unparse(line.targets[0]): line.value for line in lines if isinstance(line, ast.Assign)}


def _known(name: str, declared: dict[str, Parameter]) -> bool:
    """Whether a name is declared; the paths that papermill injects with `--inject-paths` are no parameters.

    Raises:
        ParameterError: it is neither.
    """
    if name not in declared and not name.startswith("PAPERMILL_"):
        near = difflib.get_close_matches(name, declared)
        hint = f"did you mean {' or '.join(near)}?" if near else f"this chapter declares {', '.join(declared) or 'none'}"
        raise ParameterError(f"unknown parameter {_shown(name)}: {hint}")
    return name in declared


def validated(declared: dict[str, Parameter], given: dict[str, str]) -> dict[str, object]:
    """The values of parameters given as text, all of them checked, and so are the defaults of the others.

    Raises:
        ParameterError: an unknown name (the near misses are named), or a value of the wrong type or out of range.
    """
    for name, parameter in declared.items():
        if name not in given:
            parameter.check(parameter.default)
    return {name: declared[name].parse(text) for name, text in given.items() if _known(name, declared)}


def check_parameters(namespace: dict) -> None:
    """Hold a running notebook's parameters against what its parameters cell declares.

    Args:
        namespace: the notebook's `globals()`. IPython keeps the source of every cell that was run, so the comments of the
            parameters cell can be read wherever the notebook lies and whoever runs it. A chapter that was turned into a
            script, or that `%run` executes, is read from its file.

    Raises:
        ParameterError: as `validated`, also for names that plain papermill injected without a declaration.
    """
    cells = _cells(namespace)
    declared = declarations(_declaring(cells))
    last = next((source for source in reversed(cells) if source.startswith("# Parameters\n")), "")  # papermill's cell
    for name in _assigned(last):
        _known(name, declared)
    for name, parameter in declared.items():
        if name not in namespace:
            raise ParameterError(f"parameter {name} has no value: run the parameters cell first")
        parameter.check(namespace[name])
    values = {name: namespace[name] for name in declared}
    results.begin(values, {name: p.default for name, p in declared.items() if values[name] != p.default})


def _cells(namespace: dict) -> list[str]:
    """The source of what runs, cell by cell."""
    if file := namespace.get("__file__"):
        if file.endswith(".ipynb"):  # IPython's %run
            return [cell["source"] for cell in read_notebook(Path(file))["cells"]]
        # A script made from a notebook: two empty lines or a mark stand between cells, whichever tool made it.
        return re.split(r"\n{3,}|^# %%.*\n", Path(file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    # `In` holds what IPython made of a cell with magics; `_i3` is what stands in the third.
    return [namespace.get(f"_i{number}", source) for number, source in enumerate(namespace.get("In", []))]


def _declaring(cells: list[str]) -> str:
    """The parameters cell, as it was run last; other cells that declare something do not replace it."""
    found, names = "", set[str]()
    for source in cells:
        try:
            lines = [(line, comment) for line, comment in _lines(source) if isinstance(line, ast.AnnAssign)]
        except UNREADABLE:  # text, and cells in other languages
            continue
        here = {ast.unparse(line.target) for line, _ in lines}
        if any(_allowed(comment) for _, comment in lines) and (here & names or not names):
            found, names = source, here
    if not found:
        raise ParameterError(f"no cell that was run and kept in the history declares parameters in lines {LINE}")
    return found
