"""Values of parameters for a run, as they are given, or drawn at random between bounds."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hqnn_utils.errors import SweepError
from hqnn_utils.notebooks.parameters import Parameter


def value(parameter: Parameter, given: object) -> object:
    """A value as a run has it, checked; one alone stands for a list of one.

    Raises:
        ParameterError: it is not of the parameter's type, or not allowed.
    """
    alone = parameter.type.startswith("list[") and not isinstance(given, list | tuple)
    return _plain(parameter, parameter.check([given] if alone else given))


def _plain(parameter: Parameter, value: Any) -> object:
    """One form for each value, so that 1 and 1.0 name one run: as JSON reads it back."""
    if isinstance(value, list | tuple):
        return [float(item) if "float" in parameter.type else item for item in value]
    return float(value) if parameter.type == "float" else json.loads(json.dumps(value))


def draws(parameter: Parameter, how: object, number: int, seed: int) -> list:
    """So many values of a parameter, at random; the same for the same seed, whatever else is drawn.

    Args:
        how: `{low, high}`, both included, evenly, or evenly in the logarithm with `log = true`; or `{choices}`.

    Raises:
        SweepError: it cannot be drawn so.
        ParameterError: a bound or a choice is not allowed.
    """
    generator = random.Random(f"{seed} {parameter.name}")
    if not isinstance(how, Mapping) or set(how) not in ({"low", "high"}, {"low", "high", "log"}, {"choices"}):
        ways = "{low, high}, {low, high, log} or {choices}"
        raise SweepError(f"the sample has {parameter.name} = {how!r}: expected {ways}")
    if "choices" in how:
        if not isinstance(how["choices"], Sequence) or not how["choices"]:
            raise SweepError(f"the sample is empty: {parameter.name} has no choices")
        choices = [value(parameter, choice) for choice in how["choices"]]
        return [generator.choice(choices) for _ in range(number)]
    return [_between(parameter, generator, **how) for _ in range(number)]


def _between(parameter: Parameter, generator: random.Random, low: Any, high: Any, log: bool = False) -> object:
    told = f"the sample draws {parameter.name} between {low!r} and {high!r}"
    if parameter.type not in ("int", "float"):
        raise SweepError(f"{told}: only numbers can be drawn so; name choices")
    low, high = value(parameter, low), value(parameter, high)
    if not low < high or (log and low <= 0):
        raise SweepError(f"{told}: expected low < high" + ", both above 0" * bool(log))
    ends = (low - 0.5, high + 0.5) if parameter.type == "int" and not log else (low, high)  # each number has its share
    drawn = math.exp(generator.uniform(*map(math.log, ends))) if log else generator.uniform(*ends)
    short = round(drawn) if parameter.type == "int" else float(f"{drawn:.6g}")
    return value(parameter, min(max(short, low), high))
