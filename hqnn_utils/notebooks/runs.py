"""Running a chapter: which there are, and executing one with parameters into a notebook of its own."""

import difflib
import errno
import logging
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import click
import psutil

from hqnn_utils import files
from hqnn_utils.files import read_notebook
from hqnn_utils.notebooks import parameters, results
from hqnn_utils.notebooks.limits import Limits
from hqnn_utils.notebooks.parameters import ChapterError, Parameter

BOOK = files.place("book")


class RunError(ChapterError):
    """A run that ended before its end; the message says why, and what is left of it."""


def chapters() -> dict[str, Path]:
    """The chapters of the book by name: every notebook under `book/`."""
    # Hidden ones are Jupyter's checkpoints.
    notebooks = [path.relative_to(BOOK) for path in sorted(BOOK.rglob("*.ipynb")) if not _is_kept(path)]
    return {path.stem: BOOK / path for path in notebooks if not any(part.startswith(".") for part in path.parts)}


def find(chapter: str) -> Path:
    """The notebook of a chapter, given by name (`pqc`), with its part (`foundations/pqc`), or as a path to a notebook.

    Raises:
        ChapterError: there is none; names the near misses, or all chapters.
    """
    if chapter.endswith(".ipynb") and os.path.isfile(chapter):  # unlike `Path.is_file`, at ease with a name that is too long
        return Path(chapter)
    known, wanted = chapters(), chapter.removesuffix(".ipynb")
    for name, path in known.items():
        if wanted in (name, path.relative_to(BOOK).with_suffix("").as_posix()):
            return path
    near = difflib.get_close_matches(Path(chapter).stem, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the book has {', '.join(known)}"
    raise ChapterError(f"unknown chapter {chapter!r}: {hint}")


def title(path: Path) -> str:
    """The heading of a notebook."""
    text = "\n".join(cell["source"] for cell in read_notebook(path)["cells"] if cell["cell_type"] == "markdown")
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return heading[1] if heading else path.stem


def copy(folder: Path) -> list[Path]:
    """Write all chapters into a folder, each under its part, to work on them; returns where they are.

    Raises:
        ChapterError: one of them is there already; nothing is written.
    """
    places = {path: folder / path.relative_to(BOOK) for path in chapters().values()}
    if there := [place for place in places.values() if os.path.lexists(place)]:
        raise ChapterError(f"cannot copy to {folder}: {there[0]} is there already; choose another folder")
    for path, place in places.items():
        files.write(place, path.read_bytes())
    return list(places.values())


def run(
    chapter: str, given: dict[str, str], output: Path | None = None, *, overwrite: bool = False, keep_failed: bool = False
) -> Path:
    """Execute a chapter with parameters and write the executed notebook, with a record of the run in its metadata.

    Args:
        chapter: as for `find`. A run's output is a chapter like any other, with the parameters of that run as its defaults.
        given: parameters as text, by name; the chapter's defaults hold for all others.
        output: where to write, by default `runs/CHAPTER-TIME.ipynb`; `{name}` stands for a parameter's value, `-` for standard
            output. Pipes and devices are written to, links are followed.
        overwrite: replace a file that is there already. A chapter of the book is replaced only by its own run with defaults.
        keep_failed: write what ran until an error or an interruption beside the output, as `NAME.failed.ipynb`, with the error
            in its metadata under `hqnn.failed`.

    Returns:
        The path written: `output`, or with a number added if another run took that name in the meantime. Without
        `keep_failed`, nothing is written unless every cell ran.

    Raises:
        ParameterError, ChapterError: before a kernel starts.
        RunError: a cell failed, the kernel died, or the result could not be written; or it was, and a sentence quotes what
            there is not.
    """
    path = find(chapter)
    declared = parameters.of(path)
    values = parameters.validated(declared, given)
    in_force = {name: p.default for name, p in declared.items()} | values
    name = re.sub(r"(-\d{8}-\d{6}(-\d+)?)?(\.failed(-\d+)?)?$", "", path.stem)
    default = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.ipynb"
    if output is None:
        output, overwrite = next(free for free in _names(default) if not free.exists()), False
    else:
        output = Path(re.sub(r"\{(\w+)\}", lambda match: str(in_force.get(match[1], match[0])), str(output)))
    output = _place(output, overwrite, path, values)
    execution = Execution(path, declared, values)
    try:
        execution.run()
    except BaseException as error:  # whoever interrupts a run may want to look into it, too
        left = "Nothing was written; --keep-failed keeps what ran."
        if keep_failed:
            beside = default if _is_stream(output) else output
            place = _write(execution.text(error), beside.with_name(f"{beside.stem}.failed.ipynb"))
            left = f"What ran is kept in {place}."
        if isinstance(error, Exception):
            raise RunError(f"{execution.told(error)}\n{left}") from error
        error.add_note(left)
        raise
    try:
        results.put_numbers(execution.notebook)
    except ChapterError as error:  # a sentence is no reason to lose a run
        written = _write(execution.text(), output, overwrite)
        raise RunError(f"{error}\nThe run itself is whole and written: {written}; sentences have other numbers.") from None
    return _write(execution.text(), output, overwrite)


class Execution:
    """A chapter that is executed once, with some of its parameters changed.

    Args:
        path: the chapter, whose parameters are `declared` as `parameters.of` reads them.
        values: the parameters that are changed, as `parameters.validated` gives them.
        noted: what else the notebook's metadata shall say of the run, under `hqnn`.

    `notebook` is the notebook, in which outputs appear, also those of a run that fails.
    """

    def __init__(self, path: Path, declared: dict[str, Parameter], values: dict, noted: dict | None = None) -> None:
        self.notebook = _prepared(path, parameters.injected(path, declared) | values)
        self._path, self._limits = path, Limits()
        self._facts = {"parameters": {name: p.default for name, p in declared.items()} | values, **(noted or {})}
        self._started = time.perf_counter()

    def run(self, limits: Limits = Limits(), progress: bool = True) -> None:  # noqa: B008  # frozen
        """Run all cells in a fresh kernel of this Python, within limits, with or without a bar.

        Raises what papermill, nbclient and jupyter_client raise; `told` makes a sentence of it.
        """
        self._limits, self._started = limits, time.perf_counter()
        _execute(self.notebook, limits, progress)

    def text(self, failed: BaseException | None = None) -> str:
        """The notebook as it is kept, with a record of the run; of one that failed, with the cause."""
        name = re.sub(r"(-\d{8}-\d{6}(-\d+)?)?(\.failed(-\d+)?)?$", "", self._path.stem)
        seconds = round(time.perf_counter() - self._started, 1)
        return _text(self.notebook, {"chapter": name, "wall_time_s": seconds} | self._facts, failed)

    def told(self, error: Exception) -> str:
        """What a reader should see of an error of `run`: the cause, not the machinery around it."""
        if isinstance(error, TimeoutError):
            return f"{self._path.stem}: stopped, because it took longer than the limit, {self._limits}"
        return _told(self._path.stem, error, self._limits)


def _is_kept(path: Path) -> bool:
    return re.search(r"\.failed(-\d+)?$", path.stem) is not None


def _is_stream(output: Path) -> bool:
    """Whether an output is written as it comes, like `-`, a pipe or `/dev/null`, and not put in its place as a whole."""
    if str(output) == "-":
        return True
    try:
        mode = output.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _place(output: Path, overwrite: bool, chapter: Path, values: dict) -> Path:
    """Where a run will be written, links followed.

    Raises:
        ChapterError: nothing can be written there, or something is there that was not given up.
    """
    why = ""
    try:
        if _is_stream(output):
            return output
        if output.is_symlink():
            output = output.resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            why = "it is a folder"
        elif output.exists():
            known = [path for path in chapters().values() if path.samefile(output)]
            if values if output.samefile(chapter) else known:
                why = "it is a chapter itself, which is renewed only by its own run with default parameters"
            elif not output.is_file():
                why = "it is no file"
            elif not overwrite:
                why = "there is such a file already, which --overwrite would replace"
            elif not output.stat().st_mode & 0o222:
                why = "it is read-only"
        tempfile.TemporaryFile(dir=output.parent).close()  # can anything be written there?
    except (OSError, RuntimeError, ValueError) as error:  # the latter are links in a circle, and null characters
        why = getattr(error, "strerror", None) or str(error)
    if why:
        raise ChapterError(f"cannot write {output}: {why}; choose another place with --output")
    return output


def _prepared(path: Path, values: dict) -> Any:
    """The notebook as it will be executed, for this Python's kernel, with papermill's cell for the values if there are any."""
    from papermill.iorw import load_notebook_node  # here, because a refused parameter must not wait for them
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(str(path.resolve()))
    # An editor writes the name of the reader's own kernel here, which another machine does not know.
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.pop("hqnn", None)
    return parameterize_notebook(notebook, values) if values else notebook


def _execute(notebook: Any, limits: Limits, progress: bool) -> None:
    """Run all cells in a fresh kernel of this Python; outputs appear in `notebook`, also those of a run that fails."""
    # Not `papermill.execute_notebook`, whose copy of the notebook is lost with a dead kernel.
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import raise_for_execution_errors, remove_error_markers
    from traitlets.config import Config

    from hqnn_utils.notebooks import kernels

    class Kernel(AsyncKernelManager):
        """A kernel of this Python, whatever else is called `python3` on this machine."""

        kernel_spec = KernelSpec(resource_dir="", **get_kernel_dict())

        async def _async_launch_kernel(self, *args: Any, **kwargs: Any) -> None:
            await super()._async_launch_kernel(*args, **kwargs)
            limits.hold(self.provisioner.pid)  # type: ignore[union-attr]

    if next(_runs):  # one kernel alone is as fast without
        kernels.start()
    if os.environ.get("HQNN_DATA"):
        os.environ["HQNN_DATA"] = str(files.root().resolve())  # the kernel may run in another folder
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what ends a run is said by the error
    with _sockets() as connection:
        papermill_engines.execute_notebook_with_engine(
            None,
            remove_error_markers(notebook),
            "python3",
            progress_bar=progress,
            stderr_file=sys.stderr if progress else None,
            timeout_func=limits.clock(),
            shutdown_kernel="graceful" if progress else "immediate",  # many runs need not wait for what is done
            kernel_manager_class=Kernel,
            config=Config({"KernelManager": connection}),
        )
        try:
            raise_for_execution_errors(notebook, None)
        except PapermillExecutionError as error:
            if error.ename == "CellExecutionError":  # papermill's own, where a cell left none
                error.evalue = f"the kernel could not say why, {_perhaps(limits)}"
            raise


def _perhaps(limits: Limits) -> str:
    return "perhaps for lack of memory" + (f", of which it may have {limits.memory_gb:g} GB" if limits.memory_gb else "")


_runs = count()
"""Of this process."""


@contextmanager
def _sockets() -> Iterator[dict]:
    """How to reach a kernel: by files in a private folder, which no two kernels can share as they can a port.

    Where a system has no such sockets, or only a place with too long a name for them, it is TCP. Folders that killed runs left
    on this machine are removed.
    """
    prefix = "hqnn-" + re.sub(r"\W", "_", socket.gethostname())[:24] + "-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = re.fullmatch(r"(\d+)-\w+", left.name.removeprefix(prefix))
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        try:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.bind(f"{folder}/kernel-ipc-10")
            transport = "ipc"
        except (AttributeError, OSError):
            transport = "tcp"
        yield {"transport": transport, "connection_file": f"{folder}/kernel.json"}


def _text(notebook: Any, facts: dict, failed: BaseException | None) -> str:
    """A notebook as it is kept: without papermill's paths and clocks and what only moved, and with what the runner knows.

    The chapter has recorded the rest itself.
    """
    import nbformat

    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:  # progress bars, shown while they moved
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" or "\r" not in o.text]
    own = {"run": results.run_in(notebook).get("run"), **facts, "cores": os.cpu_count()}
    notebook.metadata["hqnn"] = own | ({"failed": _cause(failed)} if failed else {})
    return nbformat.writes(notebook) + "\n"  # as nbformat.write does


def _write(text: str, output: Path, overwrite: bool = False) -> Path:  # type: ignore[return]  # names never end
    """Write a run, under the first free name if none may be replaced; in a temporary folder if it cannot be written there.

    Raises:
        RunError: it was not written as asked; says where it is.
    """
    if _is_stream(output):
        with click.open_file(str(output), "w", encoding="utf-8") as stream:
            stream.write(text)
        return output
    try:
        if overwrite:
            files.write(output, text)
            return output
        for place in _names(output):
            with suppress(FileExistsError):
                return _write_new(text, place)
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}; {_rescued(text, output.name)}") from None


def _rescued(text: str, name: str) -> str:
    """Where a run is that could not be written where it was wanted."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="hqnn-run-"))
        with suppress(OSError):
            files.write(folder / name, text)
            return f"the run is kept in {folder / name}"
        shutil.rmtree(folder)
    except OSError:
        pass
    return "neither can the temporary folder be written, so the run is lost: make room and run it again"


def _names(output: Path) -> Iterator[Path]:
    yield output
    for number in count(2):
        yield output.with_name(f"{output.stem}-{number}{output.suffix}")


def _write_new(text: str, place: Path) -> Path:
    place.open("x").close()  # no other run can take the name from here on
    try:
        files.write(place, text)
    except BaseException:
        place.unlink()
        raise
    return place


def _cause(error: BaseException) -> dict:
    """What ended a run: the error's name and message, and the number of the cell if one failed."""
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        return {"error": error.ename, "message": error.evalue, "cell": error.exec_count}
    return {"error": type(error).__name__, "message": str(error)}


def _told(chapter: str, error: Exception, limits: Limits) -> str:
    """What a reader should see of a failed run: the cause, not the machinery around it."""
    from papermill.exceptions import PapermillExecutionError

    if not isinstance(error, PapermillExecutionError):
        if isinstance(error, OSError):
            return f"{chapter}: {error}"
        if isinstance(error, RuntimeError):  # of nbclient and jupyter_client
            return f"{chapter}: the kernel died or never answered ({error}), {_perhaps(limits)}."
        raise error
    # A `BookError` comes as its message alone. The computer's own limits speak for themselves, too.
    full = error.ename == "OSError" and f"[Errno {errno.ENOSPC}]" in error.evalue
    plain = len(error.traceback) < 2 or full or error.ename.endswith("MemoryError")
    trace = "" if plain else "\n".join(error.traceback) + "\n"
    return f"{trace}{chapter}, cell {error.exec_count}: {error.ename}: {error.evalue}"
