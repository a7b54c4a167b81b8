"""`hqnn`: list, copy and run chapters, list devices, and look after the data sets."""

import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click
import psutil

from hqnn_utils import files
from hqnn_utils.errors import BookError
from hqnn_utils.notebooks import parameters, results, runs


class Stopped(SystemExit):
    """A signal asked the command to end; its number is in the exit code, as a shell counts it."""

    code: int


class Commands(click.Group):
    """Commands of which each ends in one sentence, whatever ends it."""

    def invoke(self, context: click.Context) -> object:
        """Run a command; what a reader can mend, and a signal, end it with a sentence and an exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, _stop)
        try:
            return super().invoke(context)
        except BookError as error:
            raise Refusal(error, 2 if isinstance(error, parameters.ParameterError) else 1) from None
        except BrokenPipeError:  # whoever read the output has seen enough
            raise
        except OSError as error:
            raise Refusal(f"{error.filename or 'error'}: {error.strerror}") from None
        except Stopped as stop:
            name = signal.Signals(stop.code - 128).name
            click.echo(" ".join([f"Stopped by {name}.", *getattr(stop, "__notes__", [])]), err=True)
            raise


def _stop(number: int, frame: object) -> NoReturn:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # stopping takes a moment, and needs no second request
    for kernel in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a kernel ends with the worker that was killed a moment ago
            kernel.kill()  # asked to stop, it would tell at length where it was interrupted
    raise Stopped(128 + number)


class Refusal(click.ClickException):
    """An error that names what was wrong and what to do; printed as one sentence, without a traceback."""

    def __init__(self, message: object, exit_code: int = 1) -> None:
        super().__init__(str(message))
        self.exit_code = exit_code  # type: ignore[misc]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hqnn-utils")
def main() -> None:
    """The book on hybrid quantum-classical neural networks: run its chapters, list its devices, look after its data."""


# `--help` is an option like any other here, because with a chapter beside it it lists that chapter's parameters.
@main.command(context_settings={"help_option_names": []})
@click.argument("chapter", required=False)
@click.option("-p", "--parameter", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Executed notebook [runs/CHAPTER-TIME.ipynb].")
@click.option("--overwrite", is_flag=True, help="Replace the output if there is such a file.")
@click.option("--keep-failed", is_flag=True, help="Keep what ran until an error, as NAME.failed.ipynb.")
@click.option("-h", "--help", "wants_help", is_flag=True, help="This page; with a chapter, its parameters too.")
@click.pass_context
def run(
    context: click.Context,
    chapter: str | None,
    given: tuple[tuple[str, str], ...],
    output: Path | None,
    overwrite: bool,
    keep_failed: bool,
    wants_help: bool,
) -> None:
    """Execute CHAPTER from a fresh kernel, with parameters, and write the executed notebook."""
    if wants_help or chapter is None:
        click.echo(context.get_help() + "\n\n" + _describe(chapter))
        context.exit(0 if wants_help else 2)
    written = runs.run(chapter, _once_each(given), output, overwrite=overwrite, keep_failed=keep_failed)
    if is_file := written.is_file() and str(written) != "-":
        for name, result in results.of(written).items():
            click.echo(f"{name:32} {result.value} {result.unit}".rstrip())
    click.echo(f"written: {click.format_filename(written)}", err=not is_file)  # else the notebook itself may be on its way


def _once_each(given: tuple[tuple[str, str], ...]) -> dict[str, str]:
    repeated = {name for name, _ in given if [n for n, _ in given].count(name) > 1}
    if repeated:
        raise parameters.ParameterError(f"parameter {', '.join(sorted(repeated))} is given more than once")
    return dict(given)


@main.command()
@click.argument("place")
@click.option("-p", "--parameter", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Of the chapter your_data.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Report, .html [runs/NAME-examined.html].")
@click.option("--overwrite", is_flag=True, help="Replace a report that is there.")
def examine(place: str, given: tuple[tuple[str, str], ...], output: Path | None, overwrite: bool) -> None:
    """Put data of your own through the book's test: a folder with a folder of pictures for each class, or a table.

    Writes a report of one file, and beside it the executed notebook. `hqnn run --help your_data` lists the parameters, e.g.
    `-p label diagnosis`, `-p head mine.py:MyLayer`.
    """
    from hqnn_utils.notebooks.reports import page

    source = Path(place).expanduser()
    chosen = _once_each(given) | {"source": str(source.resolve()) if source.exists() else place}
    for name in ("head", "backbone"):  # a kernel may run in another folder
        if ".py:" in (named := chosen.get(name, "")):
            file, _, attribute = named.rpartition(":")
            chosen[name] = f"{Path(file).expanduser().resolve()}:{attribute}"
    if not source.exists() and place not in ("breast_cancer", "wine"):
        raise Refusal(f"there is no {place}: expected a folder, a table (.csv, .parquet, .npz), breast_cancer or wine", 2)
    report = output or Path("runs") / f"{source.stem}-examined.html"
    if report.suffix != ".html":
        raise Refusal(
            f"a report is HTML, and its notebook lies beside it: expected a name that ends in .html, got {report}", 2
        )
    if report.exists() and not overwrite:
        raise Refusal(f"{report} is there already: name another with --output, or replace it with --overwrite")
    written = runs.run("your_data", chosen, report.with_suffix(".ipynb"), overwrite=overwrite)
    files.write(report, page(files.read_notebook(written), f"What {source.stem} shows").encode())
    for name, result in results.of(written).items():
        click.echo(f"{name:32} {result.value} {result.unit}".rstrip())
    click.echo(f"written: {click.format_filename(report)} and {click.format_filename(written)}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="", help="Folder or URL to keep the runs in [what FILE says, else runs/FILE].")
@click.option("--workers", type=click.IntRange(1), help="Runs at a time on this machine [one a core].")
@click.option("--memory", type=click.FloatRange(0), default=0, help="GB that a run may use.")
@click.option("--cell-timeout", type=click.FloatRange(0), default=0, help="Seconds that a cell may take.")
@click.option("--run-timeout", type=click.FloatRange(0), default=0, help="Seconds that a run may take.")
@click.option("--on", type=click.Choice(["here", "slurm"]), default="here", help="Where the runs are executed.")
@click.option("--slurm", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="An option of sbatch, e.g. time 60.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@click.option("--dry-run", is_flag=True, help="Only check, and say how many runs there are and how long they take.")
def sweep(
    file: Path,
    output: str,
    workers: int | None,
    memory: float | int,
    cell_timeout: float | int,
    run_timeout: float | int,
    on: str,
    given: tuple[tuple[str, str], ...],
    retry_failed: bool,
    dry_run: bool,
) -> None:
    """Execute the runs that FILE describes, a sweep in TOML; started again, it goes on where it stopped."""
    from hqnn_utils.notebooks.limits import Limits
    from hqnn_utils.sweeps import description, engines

    described = description.Sweep.read(file)
    described = replace(described, output=output or described.output)
    click.echo(engines.plan(described, workers), err=True)
    if dry_run:
        return
    executor = None
    if on == "slurm":
        from hqnn_utils.sweeps.slurm import Slurm

        executor = Slurm(**{name.strip("-").replace("-", "_"): value for name, value in given})
    limits = Limits(cell_timeout, run_timeout, memory)
    summary = engines.run(described, executor, workers=workers, limits=limits, retry_failed=retry_failed)
    if summary.failed:
        told = "\n".join(f"{name}: {reason.strip().splitlines()[-1]}" for name, reason in summary.failed.items())
        raise Refusal(f"{told}\n{summary}; --retry-failed tries again")
    click.echo(f"{summary}; `hqnn results {click.format_filename(summary.place)}` makes a table of it")


@main.command("results")
@click.argument("place", required=False)
@click.option("--wide", is_flag=True, help="One row a run, or a run and data set, with a column for each result.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Table to write: .csv, .parquet or .html.")
@click.option("--group-by", "by", default="", metavar="NAMES", help="Columns that make a group, with commas between them.")
@click.option("--metric", default="", help="Result of which to print means, with 95 % intervals.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of these means: .svg, .png or .pdf.")
@click.option("--check", is_flag=True, help="Say which tables of data/results another code has made; exit code 1 if any.")
def results_(place: str | None, wide: bool, output: Path | None, by: str, metric: str, plot: Path | None, check: bool) -> None:
    """Make one table of the runs in the folder or URL PLACE; without --output it is printed as CSV."""
    from hqnn_utils.evidence.statistics import mean_interval
    from hqnn_utils.notebooks import figures
    from hqnn_utils.sweeps import averages, collected

    if check:
        others = collected.of_other_code()
        for name, why in others.items():
            click.echo(f"{name:16} {why or 'all runs are of this code'}")
        if any(others.values()):
            raise Refusal("`make results` renews what another code has made")
        return
    if place is None:
        raise Refusal("which runs? Name their folder or URL", 2)
    if bool(by or plot) > bool(metric):
        raise Refusal("which result? Name it with --metric", 2)
    table = collected.long(place)
    names = [name.strip() for name in by.split(",") if name.strip()]
    if metric:
        groups = averages.grouped(table, names, metric, mean_interval)
        if plot:
            figures.style()
            with files.beside(plot) as temporary:
                averages.drawn(groups, names, metric).savefig(temporary)
            click.echo(f"written: {click.format_filename(plot)}", err=True)
        table = groups
    elif wide:
        table = collected.wide(table)
    if output:
        collected.write(table, output)
        click.echo(f"written: {click.format_filename(output)}, {len(table)} rows")
    else:
        click.echo(table.to_string(index=False, na_rep="–") if metric else table.to_csv(index=False), nl=bool(metric))


def _describe(chapter: str | None) -> str:
    """The parameters of a chapter, or the names of all."""
    if chapter is None:
        return "Chapters: " + ", ".join(runs.chapters())
    declared = parameters.of(runs.find(chapter))
    rows = [(f"{p.name}: {p.type} = {p.default!r}", p.help) for p in declared.values()]
    formatter = click.HelpFormatter(width=110)
    with formatter.section(f"Parameters of {chapter}"):
        formatter.write_dl(rows or [("(none)", "")], col_max=44)
    return formatter.getvalue().rstrip()


@main.command("list")
def list_() -> None:
    """Every chapter by its title, and every data set."""
    from hqnn_utils.datasets.catalogue import entries

    formatter = click.HelpFormatter(width=110)
    with formatter.section("Chapters, for `hqnn run` and `hqnn copy`"):
        formatter.write_dl([(name, runs.title(path)) for name, path in runs.chapters().items()])
    with formatter.section("Data sets, for `hqnn data`"):
        formatter.write_dl([(name, entry.title) for name, entry in entries().items()])
    click.echo(formatter.getvalue().rstrip())


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def copy(folder: Path) -> None:
    """Copy all chapters into FOLDER, to work on them there; replaces nothing."""
    for path in runs.copy(folder):
        click.echo(f"written: {click.format_filename(path)}")


@main.command()
@click.argument("pages", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def numbers(pages: tuple[Path, ...]) -> None:
    """Write the recorded numbers into the sentences of PAGES: executed notebooks, or the book's pages in Markdown."""
    for page in pages:
        if results.write_numbers(page):
            click.echo(f"written: {page}")


@main.command("devices")
@click.option("--arn", default="", help="Another processor than that of the list, by the name Braket gives it.")
def devices_(arn: str) -> None:
    """Every device that circuits can run on: whether it can be used here, why not, and what it costs."""
    from hqnn_utils.hardware.devices import availability, device, listed

    found = {name: device(name, arn if name == "processor" else "") for name in listed()}
    for name, entry in found.items():
        now = availability(entry)
        cost = str(entry.price)
        if cost != "free":
            step = entry.price.of(STEP, STEP * entry.shots)
            cost += f"; a training step of {STEP} circuits{f' with {entry.shots:,} shots' if entry.shots else ''}: ${step:.2f}"
        click.echo(f"{name:18} {entry.title}\n{'':18} {'usable' if now.usable else 'not usable: ' + now.why}\n{'':18} {cost}")


STEP = 100
"""Circuits of a training step of ResNet18-Q-Ent, as the chapter on devices counts them."""


@main.command()
@click.option("--n", "images", type=click.IntRange(1), help="How many test images there are.")
@click.option("--table", type=click.Path(path_type=Path), help="Numbers of several data sets: a .csv, a row each.")
@click.option("--correct", "is_count", is_flag=True, help="The numbers are counts of correct images.")
@click.option("--accuracy", "is_share", is_flag=True, help="The numbers are accuracies as they are printed.")
@click.option("--runs", type=click.IntRange(1), default=1, help="Networks of each method that the numbers come from.")
@click.option("--tried", type=click.IntRange(1), default=1, help="Settings, epochs or seeds of which the best is printed.")
@click.argument("printed", nargs=-1)
def claim(
    images: int | None,
    table: Path | None,
    is_count: bool,
    is_share: bool,
    runs: int,
    tried: int,
    printed: tuple[str, ...],
) -> None:
    """Say what PRINTED accuracies of two or more methods can show, at best and at worst.

    \b
    hqnn claim --n 153 --correct 145 148
    hqnn claim --n 220 --accuracy ResNet18=0.8727 with-circuit=0.9364 --tried 20
    hqnn claim --table paper.csv --accuracy

    A table has the columns `set` and `images`, and one for each method.
    """
    from hqnn_utils.evidence import printed as of_paper

    if is_count == is_share:
        raise Refusal("say what the numbers are: --correct 145 148, or --accuracy 0.948 0.967", 2)
    if (images is None) == (table is None) or (table is None) != bool(printed):
        raise Refusal("either --n and the numbers of one data set, or --table and a file of several, are needed", 2)
    try:
        if table is None:
            assert images is not None
            lines = of_paper.told(images, of_paper.named(printed, images, is_count), runs, tried)
        else:
            lines = of_paper.told_of_sets(of_paper.read(table, is_count), runs, tried)
    except ValueError as error:
        raise Refusal(error, 2) from None
    click.echo("\n".join(lines))


@main.group()
def data() -> None:
    """List, fetch and verify the data sets, and the weights of the frozen network."""


@data.command("list")
def list_data() -> None:
    """Every data set, and all weights: images, size, licence, and whether it is here."""
    from hqnn_utils.datasets.catalogue import DataError, entries, root

    try:
        place = root()
    except DataError as error:
        raise Refusal(error) from None
    for name, entry in entries().items():
        if entry.embedded:
            there = f"bundled with {entry.embedded}"
        else:
            states = list(entry.verify().values())
            there = f"{states.count('ok')} of {len(states)} files here and intact"
        counts = " + ".join(f"{count:,} {split}" for split, count in entry.counts.items())
        images = f"{counts} images, " if counts else ""
        click.echo(f"{name:12} {entry.title}\n{'':12} {images}{entry.bytes / 1e6:.1f} MB, {entry.licence}; {there}")
    click.echo(f"data root: {place}")


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download what is missing or altered of data set NAME."""
    from hqnn_utils.datasets.catalogue import entry

    wanted = entry(name)
    wanted.fetch()
    click.echo(f"{name}: {len(wanted.verify())} file(s) intact in {wanted.embedded or wanted.folder}")


@data.command("verify")
@click.argument("name")
def verify_(name: str) -> None:
    """Compare every file of data set NAME with its SHA-256."""
    from hqnn_utils.datasets.catalogue import entry

    states = entry(name).verify()
    many = len(states) > 20
    for file, state in states.items():
        if not (many and state == "ok"):
            click.echo(f"{state:8} {file}")
    if many:
        click.echo(f"{list(states.values()).count('ok')} of {len(states)} files ok")
    if set(states.values()) != {"ok"}:
        raise Refusal(f"{name} is not intact: `hqnn data fetch {name}` mends it")


@data.command("audit")
@click.argument("name")
def audit_(name: str) -> None:
    """Find pictures that photographs of data set NAME show more than once, within and between its splits."""
    from hqnn_utils.datasets.photos import audit, clean, pictures, published

    photographs = published(name)
    same = pictures(photographs.paths)
    table = audit(photographs, same)
    click.echo(table.to_string())
    images, leaked = table.loc["test", ["files", "in other split"]].sum()
    click.echo(f"{leaked} of {images} test images show a picture that is among the training images, pixel by pixel")
    if leaked:
        left = len(clean(photographs, same).of("test"))
        click.echo(
            f"hqnn_utils.datasets.photos.clean gives a split without identical pictures on both sides, with {left} test images"
        )
