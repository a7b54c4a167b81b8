"""Running a chapter: which there are, and executing one with parameters into a notebook of its own."""

import difflib
import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from hqnn_utils import files, parameters, results
from hqnn_utils.parameters import ChapterError

BOOK = files.place("book")


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
    values = parameters.validated(parameters.of(path), given)
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
    clock = time.perf_counter()
    papermill.execute_notebook(path, target, values, stderr_file=sys.stderr, progress_bar=True)
    notebook = nbformat.read(target, as_version=4)
    # papermill leaves this machine's paths and a clock on every cell; the record keeps what a reader can use.
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:  # progress bars, shown while they moved
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" or "\r" not in o.text]
    # What only the runner knows; the chapter has recorded the rest itself.
    told = {"chapter": path.stem, "wall_time_s": round(time.perf_counter() - clock, 1), "cores": os.cpu_count()}
    notebook.metadata["hqnn"] = told | {"run": results.record(target).get("run")}
    nbformat.write(notebook, target)
    results.write_numbers(target)
