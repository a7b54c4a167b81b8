"""What many runs found, in one table: tidy, with one row a run and result, or wide, with one row a run.

Columns are the run's name, chapter and status (finished, failed or waiting), its parameters, and of each result::

    of_dataset   the data set that its name has in it, if any
    quantity     its name without the data set
    of_seed      the seed it belongs to, where a chapter recorded one value a seed
    value, text  the number, or the text
    unit, tolerance

then wall_time_s, date, versions, the checksum of its data, and of a failed run the error. A missing entry is empty.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from hqnn_utils import files
from hqnn_utils.errors import ChapterError
from hqnn_utils.notebooks import parameters, results, runs
from hqnn_utils.sweeps import origins, samples
from hqnn_utils.sweeps.stores import INDEX, Store

OF_RESULT = ["of_dataset", "quantity", "result", "of_seed", "value", "text", "unit", "tolerance"]
FAILED = ".failed.ipynb"


def long(place: str) -> pd.DataFrame:
    """One row a run and result of the runs in a folder, or below a URL; a run without results has one row, too.

    Of a sweep's folder these are its runs, also those that wait for their turn; of another folder, its executed notebooks.

    Raises:
        ChapterError: there is no run, or the place cannot be read.
    """
    store = Store(place)
    there = store.names()
    rows = [row for name, known in _runs(store, there).items() for row in _rows(store, there, name, known)]
    if not rows:
        raise ChapterError(f"there are no runs in {store.place}: expected a folder that `hqnn sweep` or `hqnn run` wrote")
    first = ["run", "chapter", "status"]
    last = ["wall_time_s", "date", *results.RECORDED, "python", "code", "data", "error"]
    names = dict.fromkeys(column for row in rows for column in row)
    own = [column for column in names if column not in {*first, *OF_RESULT, *last}]
    frame = pd.DataFrame(rows).reindex(columns=[*first, *own, *OF_RESULT, *last])
    return frame.astype({"value": float, "tolerance": float, "of_seed": "Int64"})


def _runs(store: Store, there: set[str]) -> dict[str, dict]:
    """What is known of each run before its notebook is read."""
    if INDEX not in there:
        return {name.removesuffix(".ipynb").removesuffix(".failed"): {} for name in sorted(there) if name.endswith(".ipynb")}
    index = json.loads(store.read(INDEX))
    return {name: {"chapter": index["chapter"], **known} for name, known in index["runs"].items()}


def _rows(store: Store, there: set[str], name: str, known: dict) -> Iterator[dict]:
    """The rows of one run."""
    file = next((file for file in (f"{name}.ipynb", f"{name}{FAILED}") if file in there), "")
    notebook = files.parse_notebook(store.read(file), f"{store.place}/{file}") if file else {"cells": [], "metadata": {}}
    found = results.run_in(notebook)
    if file and not found:  # a notebook that no run wrote
        return
    status = "failed" if file.endswith(FAILED) else "finished" if found.get("finished") else "waiting"
    parameters = known.get("parameters") or found.get("parameters", {})
    failed = found.get("failed", {})
    base = {
        "run": name,
        "chapter": known.get("chapter") or found.get("chapter", ""),
        "status": status,
        **{_column(name): _cell(value) for name, value in parameters.items()},
        **{key: found.get(key) for key in ("wall_time_s", "date", "code")},
        **found.get("versions", {}),
        "data": known.get("data", found.get("data", "")),
        "error": f"{failed['error']}: {failed['message']}".strip().splitlines()[0] if failed else "",  # a row is a line
    }
    of_run = list(_results(notebook)) if status == "finished" else []
    yield from (base | row for row in of_run or [{}])


def _cell(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _column(parameter: str) -> str:
    """The column of a parameter, whatever it is called."""
    taken = {"run", "chapter", "status", *OF_RESULT, "wall_time_s", "date", "code", "data", "error"}
    return f"parameter_{parameter}" if parameter in taken else parameter


def _results(notebook: dict) -> Iterator[dict]:
    for name, result in results.in_notebook(notebook).items():
        yield _row(name, None, result)
    for name, of_seed in results.of_seeds_in(notebook).items():
        yield from (_row(name, seed, result) for seed, result in of_seed.items())


def _row(name: str, seed: int | None, result: results.Result) -> dict:
    dataset, quantity = _divided(name)
    is_text = isinstance(result.value, str)
    told = {"text": result.value} if is_text else {"value": float(result.value)}
    named = {"of_dataset": dataset, "quantity": quantity, "result": name, "of_seed": seed}
    return named | told | {"unit": result.unit, "tolerance": result.tolerance}


@cache
def _datasets() -> list[str]:
    return [name for name, entry in files.table("datasets.toml").items() if entry["kind"] != "weights"]


def _named(values: dict) -> set[str]:
    """The data sets that parameters name."""
    return {word for value in values.values() for word in str(value).split(", ")} & set(_datasets())


@cache
def _divided(name: str) -> tuple[str, str]:
    """The data set in a result's name, and the rest of it."""
    part = re.search(rf"(?:^|_)((?:{'|'.join(_datasets())})(?:_clean)?)(?:_|$)", name)
    if not part:
        return "", name
    rest = f"{name[: part.start()]}_{name[part.end() :]}".strip("_")
    return part[1], rest or "value"


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row a run, or a run and data set where one has several, with a column for each result; values of seeds are left out.

    A result that names no data set stands in each row of its run, and one of a data set that the run's parameters do not
    name, such as a published number for comparison, in none.

    Args:
        table: as of `long`.
    """
    table = table[table["of_seed"].isna()]
    about = table.drop(columns=OF_RESULT).drop_duplicates("run").set_index("run")
    cells: dict[tuple[str, str], dict] = {}
    columns = ["run", "of_dataset", "quantity", "value", "text"]
    for run, dataset, quantity, value, text in table[columns].itertuples(index=False):
        row = cells.setdefault((run, dataset if isinstance(dataset, str) else ""), {})
        if isinstance(quantity, str):
            row[quantity] = text if isinstance(text, str) else value
    named = {run: _named(values) for run, values in about.astype(str).to_dict("index").items()}
    of_others = [(run, set_) for run, set_ in cells if set_ and named[run] and set_.removesuffix("_clean") not in named[run]]
    cells = {key: row for key, row in cells.items() if key not in of_others}
    several = {run for run, dataset in cells if dataset}
    rows = [
        {"run": run, "of_dataset": dataset} | cells.get((run, ""), {}) | row
        for (run, dataset), row in cells.items()
        if dataset or run not in several
    ]
    found = pd.DataFrame(rows)
    clashing = {name: f"result_{name}" for name in found.columns if name in about.columns}
    return about.join(found.rename(columns=clashing).set_index("run"), how="right").reset_index()


def write(table: pd.DataFrame, output: Path) -> None:
    """Write a table as CSV, Parquet or HTML, by the ending of the name, whole or not at all.

    Raises:
        ChapterError: another ending, or Parquet where nothing can write it.
    """
    ways: dict[str, Callable[[Path], object]] = {
        ".csv": lambda path: table.to_csv(path, index=False, lineterminator="\n"),
        ".parquet": lambda path: table.to_parquet(path, index=False, engine="fastparquet"),
        ".html": lambda path: path.write_text(table.to_html(index=False, na_rep="", border=0), encoding="utf-8"),
    }
    if output.suffix not in ways:
        raise ChapterError(f"a table is written as {', '.join(ways)}, and {output} ends in none of them")
    try:
        with files.beside(output) as temporary:
            ways[output.suffix](temporary)
    except ImportError:
        raise ChapterError("Parquet needs fastparquet, which the extra [cluster] installs; CSV needs nothing") from None


def committed(name: str) -> pd.DataFrame:
    """A table of `data/results/`, as chapters read it.

    A sweep takes hours, and a reader's cell seconds, so the table is committed. It says for which data it was made, and is
    refused where these are others. One of another code or version is read, or a release would shut the chapters that read
    it; `of_other_code` finds it, and a chapter shows by `anew` that some of its runs still give the same.

    Args:
        name: of the table, e.g. `"depth"` for `data/results/depth.csv`, which `data/sweeps/depth.toml` describes. It has one
            row a run, as of `wide`.

    Raises:
        ChapterError: there is none, or it does not fit; names the command that renews it.
    """
    path = files.place("data/results") / f"{name}.csv"
    renewing = "`make results` in a checkout of the book renews it"
    if not path.is_file():
        raise ChapterError(f"there is no table {path}: {renewing}")
    table = _read(path)
    runs = table.drop_duplicates("run").drop(columns=["wall_time_s", "date", "error"]).astype(object)
    for row in runs.where(runs.notna(), "").to_dict("records"):
        words = {column: str(value).split(", ") for column, value in row.items()}
        if origins.data(words) != row["data"]:
            raise ChapterError(f"the table {name} was made from other data than the catalogue's: {renewing}")
    return table


def _read(path: Path) -> pd.DataFrame:
    """A table as it was written: what its chapter takes as text stays text, even where it reads `true` or `1`."""
    texts, first = {"data": str, "run": str}, pd.read_csv(path, dtype=str, nrows=1).to_dict("records")
    with suppress(ChapterError):  # a chapter that is gone
        declared = parameters.of(runs.find(first[0]["chapter"])) if first and "chapter" in first[0] else {}
        texts |= {_column(name): str for name, parameter in declared.items() if parameter.type == "str"}
    return pd.read_csv(path, dtype=texts)


def anew(row: Mapping[str, object]) -> dict[str, results.Result]:
    """The results, by name, of a run of a committed table, executed once more: so that a chapter that reads it can fail.

    Args:
        row: of a table as of `committed`.

    Raises:
        ChapterError: as `runs.find` and `parameters.validated`. What ends the run itself is raised as it is.
    """
    path, declared, values = _described(row)
    execution = runs.Execution(path, declared, values)
    execution.run(progress=False)
    return results.in_notebook(execution.notebook)


def _described(row: Mapping[str, object]) -> tuple[Path, dict[str, parameters.Parameter], dict[str, Any]]:
    """The chapter of a row, what it declares, and its parameters in that row."""
    path = runs.find(str(row["chapter"]))
    declared = parameters.of(path)
    given = {name: row[_column(name)] for name in declared if _column(name) in row}
    return path, declared, parameters.validated(declared, {name: "" if pd.isna(v) else str(v) for name, v in given.items()})


def of_other_code() -> dict[str, str]:
    """Every table of `data/results/` by name, and which of its runs the code that is here would not give that name.

    A run is named by what its chapter and the package say, its parameters and its data (`origins`), so this finds every edit
    since. `committed` reads such a table all the same: else no chapter could be run after an edit until hours of sweeps are.

    Returns:
        A sentence; empty where all runs are of this code.
    """
    return {path.stem: _of_other_code(path) for path in sorted(files.place("data/results").glob("*.csv"))}


def _of_other_code(path: Path) -> str:
    table = _read(path)
    if "run" not in table:
        return "does not say by which code it was made"
    rows = table.drop_duplicates("run").to_dict("records")
    others = sum(not _is_of_this_code(row) for row in rows)
    return f"{others} of {len(rows)} runs are of another code of chapter or package, or of other data" if others else ""


def _is_of_this_code(row: Mapping[Any, Any]) -> bool:
    try:
        path, declared, values = _described(row)
    except ChapterError:  # a chapter that is gone, or takes other parameters
        return False
    in_force = {name: samples.value(p, values.get(name, p.default)) for name, p in declared.items()}
    return origins.name(_code(path), in_force) == row["run"]


@cache
def _code(path: Path) -> str:
    return origins.code(path)
