"""A sweep: many runs of one chapter, over a grid, a list or a random sample of its parameters, and over seeds::

    chapter = "quantum_entanglement"
    seeds = 5                                      # of the chapter's own `seed`, or `first_seed` and `seeds`

    [fixed]
    epochs = 10

    [grid]                                         # every value with every other
    depth = [1, 2, 4]
    entangler = ["ring", "linear"]

    [[list]]                                       # rows of values that belong together, with each point of the grid
    optimizer = "adam"
    learning_rate = 1e-3

    [sample]                                       # drawn at random, with each of the others
    runs = 10
    seed = 0
    n_qubits = { low = 2, high = 6 }               # also `log = true`, or `choices = […]`

A sweep is validated whole before anything starts. `engines.run` runs it, `collected` reads it back.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from hqnn_utils.errors import SweepError
from hqnn_utils.notebooks import parameters, results, runs
from hqnn_utils.notebooks.parameters import Parameter, ParameterError
from hqnn_utils.sweeps import origins, samples

KEYS = ("chapter", "fixed", "grid", "list", "sample", "seeds", "output")
SEEDING = ("seed", "first_seed", "seeds")


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its name, what is given to its chapter, every parameter in force, and what not all runs have."""

    name: str
    given: Mapping[str, object]
    in_force: Mapping[str, object]
    own: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The description of a sweep, as in a TOML file.

    Args:
        chapter: as for `runs.find`.
        fixed: parameters that have one value in all runs.
        grid: parameter → its values; every value with every other.
        rows: tables of parameters that belong together; `[[list]]` of a file.
        sample: `runs`, `seed`, and parameter → `{low, high}` (both included, evenly, or evenly in the logarithm with `log`)
            or `{choices}`.
        seeds: how many, from 0 on, or which. Where a chapter declares `first_seed` and `seeds`, they are the networks of one
            run, trained at once; where it declares `seed`, each is a run.
        output: folder or URL to keep the runs in; by default `runs/CHAPTER-sweep`.

    A value that stands for a list of one may be given alone.
    """

    chapter: str
    # As they are written by hand; `runs` refuses what they must not be.
    fixed: Any = field(default_factory=dict)
    grid: Any = field(default_factory=dict)
    rows: Any = ()
    sample: Any = field(default_factory=dict)
    seeds: Any = None
    output: str = ""

    @classmethod
    def read(cls, path: Path) -> "Sweep":
        """The sweep that a TOML file describes; its output is by default `runs/` and the name of the file.

        Raises:
            SweepError: it cannot be read, or holds what no sweep has.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SweepError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
            raise SweepError(f"{path} is no TOML file that describes a sweep: {error}") from None
        for key in table:
            _known(key, KEYS, f"{path} has the unknown entry", "a sweep has")
        if not isinstance(table.get("chapter"), str):
            raise SweepError(f'{path} names no chapter: expected a line chapter = "pqc"')
        return cls(**{"output": f"runs/{path.stem}"} | {{"list": "rows"}.get(key, key): value for key, value in table.items()})

    @property
    def place(self) -> str:
        """Where the runs are kept."""
        return self.output or f"runs/{self.path.stem}-sweep"

    @cached_property
    def path(self) -> Path:
        """The notebook of the chapter."""
        return runs.find(self.chapter)

    @cached_property
    def declared(self) -> dict[str, Parameter]:
        """The parameters of the chapter."""
        return parameters.of(self.path)

    def runs(self) -> list[Run]:
        """All runs, each with a name of its own; what is not allowed is refused here, before anything starts.

        Raises:
            ChapterError, ParameterError: no such chapter, an unknown parameter, a value of another type or out of range.
            SweepError: a part of the sweep is empty or not of its kind, a parameter stands in two parts, or two runs are one.
        """
        parts = [[self._checked("fixed", self.fixed)], self._grid(), self._rows(), self._samples(), self._seeds()]
        self._check_apart(parts)
        defaults = {name: samples.value(p, p.default) for name, p in self.declared.items()}
        code, found = origins.code(self.path), dict[str, Run]()
        for combined in product(*parts):
            given = {name: value for part in combined for name, value in part.items()}
            in_force = defaults | given
            own = {name: value for name, value in given.items() if name not in self.fixed}
            run = Run(origins.name(code, in_force), given, in_force, own)
            if run.name in found:
                raise SweepError(f"two runs of this sweep are one and the same: {told(given)}; leave one of them out")
            found[run.name] = run
        return list(found.values())

    def _checked(self, part: str, values: object) -> dict[str, object]:
        """Values of one run, of the types that the chapter declares, and allowed."""
        if not isinstance(values, Mapping):
            raise SweepError(f"{part} must be a table of parameters, got {values!r}")
        return {name: samples.value(self._parameter(name), value) for name, value in values.items()}

    def _parameter(self, name: str) -> Parameter:
        if name not in self.declared:
            near = difflib.get_close_matches(name, self.declared)
            hint = f"did you mean {' or '.join(near)}?" if near else f"this chapter declares {', '.join(self.declared)}"
            raise ParameterError(f"unknown parameter {name!r}: {hint}")
        return self.declared[name]

    def _grid(self) -> list[dict]:
        if not isinstance(self.grid, Mapping):
            raise SweepError(f"grid must be a table of parameters, got {self.grid!r}")
        for name, values in self.grid.items():
            self._parameter(name)
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise SweepError(f"the grid has {name} = {values!r}: expected a list of values; one value belongs under fixed")
            if not values:
                raise SweepError(f"the grid is empty: {name} has no value")
        axes = [[self._checked("the grid", {name: value}) for value in values] for name, values in self.grid.items()]
        return [{name: value for point in combined for name, value in point.items()} for combined in product(*axes)]

    def _rows(self) -> list[dict]:
        if isinstance(self.rows, str | Mapping) or not isinstance(self.rows, Sequence):
            raise SweepError(f"list must be tables of parameters, each under [[list]], got {self.rows!r}")
        return [self._checked("a row of the list", row) for row in self.rows] or [{}]

    def _samples(self) -> list[dict]:
        if not self.sample:
            return [{}]
        if not isinstance(self.sample, Mapping):
            raise SweepError(f"sample must be a table with runs, seed and parameters, got {self.sample!r}")
        drawn = {name: how for name, how in self.sample.items() if name not in ("runs", "seed")}
        number, seed = self.sample.get("runs", 0), self.sample.get("seed", 0)
        if not _is_count(number) or number == 0 or not _is_count(seed) or not drawn:
            raise SweepError("a sample needs runs = a number of at least 1, seed = a number, and parameters to draw")
        columns = {name: samples.draws(self._parameter(name), how, number, seed) for name, how in drawn.items()}
        return [{name: values[k] for name, values in columns.items()} for k in range(number)]

    def _seeds(self) -> list[dict]:
        if self.seeds is None:
            return [{}]
        wanted = list(range(self.seeds)) if _is_count(self.seeds) else self.seeds
        if not isinstance(wanted, list | tuple) or not wanted or not all(_is_count(seed) for seed in wanted):
            raise SweepError(f"seeds must be a number of at least 1 or a list of numbers, got {self.seeds!r}")
        if {"first_seed", "seeds"} <= self.declared.keys():
            if wanted != list(range(wanted[0], wanted[0] + len(wanted))):
                raise SweepError(f"this chapter trains seeds that follow each other at once, got {wanted}: use two sweeps")
            return [self._checked("seeds", {"first_seed": wanted[0], "seeds": len(wanted)})]
        if "seed" not in self.declared:
            raise SweepError(f"seeds are given, and {self.path.stem} declares neither seed nor first_seed and seeds")
        return [self._checked("seeds", {"seed": seed}) for seed in wanted]

    def _check_apart(self, parts: list[list[dict]]) -> None:
        """No parameter is given twice."""
        names = [set().union(*part) for part in parts]
        for place, one in enumerate(names):
            if twice := sorted(one & set().union(*names[place + 1 :])):
                raise SweepError(f"{', '.join(twice)} stands in two parts of the sweep: a parameter belongs in one")


def told(values: Mapping[str, object]) -> str:
    """Parameters as a sentence has them."""
    return ", ".join(f"{name} = {value!r}" for name, value in values.items()) or "no parameter given"


def expected_seconds(sweep: Sweep, known: Sequence[float | int]) -> float | None:
    """How long one run takes: the mean of what finished runs took, else what the chapter's own run took; `None` if unknown."""
    if known:
        return sum(known) / len(known)
    return results.run_of(sweep.path).get("wall_time_s")


def _known(key: str, names: Sequence[str], what: str, has: str) -> None:
    if key not in names:
        near = difflib.get_close_matches(key, names)
        raise SweepError(f"{what} {key!r}: " + (f"did you mean {near[0]}?" if near else f"{has} {', '.join(names)}"))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
