"""`hqnn`: run chapters with parameters, list devices, and look after the data sets."""

import signal
import sys
from pathlib import Path

import click

from hqnn_utils import parameters, results, runs


class Refusal(click.ClickException):
    """An error that names what was wrong and what to do; printed as one sentence, without a traceback."""

    def __init__(self, message, exit_code: int = 1):
        super().__init__(str(message))
        self.exit_code = exit_code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hqnn-utils")
def main() -> None:
    """The book on hybrid quantum-classical neural networks: run its chapters, list its devices, look after its data."""
    # Whoever is terminated ends as if interrupted: kernel stopped, nothing half written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


# `--help` is an option like any other here, because with a chapter beside it it lists that chapter's parameters.
@main.command(context_settings={"help_option_names": []})
@click.argument("chapter", required=False)
@click.option("-p", "--parameter", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Executed notebook [runs/CHAPTER-TIME.ipynb].")
@click.option("-h", "--help", "wants_help", is_flag=True, help="This page; with a chapter, its parameters too.")
@click.pass_context
def run(context, chapter, given, output, wants_help) -> None:
    """Execute CHAPTER from a fresh kernel, with parameters, and write the executed notebook."""
    try:
        if wants_help or chapter is None:
            click.echo(context.get_help() + "\n\n" + _describe(chapter))
            context.exit(0 if wants_help else 2)
        repeated = {name for name, _ in given if [n for n, _ in given].count(name) > 1}
        if repeated:
            raise parameters.ParameterError(f"parameter {', '.join(sorted(repeated))} is given more than once")
        written = runs.run(chapter, dict(given), output)
    except parameters.ParameterError as error:
        raise Refusal(error, 2) from None
    except parameters.ChapterError as error:
        raise Refusal(error) from None
    except Exception as error:
        raise _failure(chapter, error) from error
    for name, result in results.of(written).items():
        click.echo(f"{name:32} {result.value} {result.unit}".rstrip())
    click.echo(f"written: {written}")


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


def _failure(chapter: str, error: Exception) -> Exception:
    """What a reader should see of a failed run: the cause, not the machinery around it."""
    kind = type(error).__name__
    if kind == "PapermillExecutionError":
        known = error.ename in ("DataError", "ParameterError", "DeviceError", "BudgetError")
        trace = "" if known else "\n".join(error.traceback) + "\n"
        return Refusal(f"{trace}{chapter}, cell {error.exec_count}: {error.ename}: {error.evalue}\nNothing was written.")
    if kind in ("DeadKernelError", "CellTimeoutError"):
        return Refusal(f"{chapter}: the kernel died ({kind}), perhaps for lack of memory. Nothing was written.")
    return error


@main.command("devices")
@click.option("--arn", default="", help="Another processor than that of the list, by the name Braket gives it.")
def devices_(arn) -> None:
    """Every device that circuits can run on: whether it can be used here, why not, and what it costs."""
    from hqnn_utils.devices import DeviceError, device, devices, state

    try:
        listed = {name: device(name, arn if name == "processor" else "") for name in devices()}
    except DeviceError as error:
        raise Refusal(error) from None
    for name, entry in listed.items():
        now = state(entry)
        cost = str(entry.price)
        if cost != "free":
            step = entry.price.of(STEP, STEP * entry.shots)
            cost += f"; a training step of {STEP} circuits{f' with {entry.shots:,} shots' if entry.shots else ''}: ${step:.2f}"
        click.echo(f"{name:18} {entry.title}\n{'':18} {'usable' if now.usable else 'not usable: ' + now.why}\n{'':18} {cost}")


STEP = 100
"""Circuits of a training step of ResNet18-Q-Ent, as the chapter on devices counts them."""


@main.group()
def data() -> None:
    """List, fetch and verify the data sets."""


@data.command("list")
def list_() -> None:
    """Every data set: images, size, licence, and whether it is here."""
    from hqnn_utils.catalogue import DataError, catalogue, root, verify

    try:
        place = root()
    except DataError as error:
        raise Refusal(error) from None
    for name, entry in catalogue().items():
        if entry.embedded:
            there = f"bundled with {entry.embedded}"
        else:
            states = list(verify(name).values())
            there = f"{states.count('ok')} of {len(states)} files here and intact"
        images = " + ".join(f"{count:,} {split}" for split, count in entry.counts.items())
        click.echo(f"{name:12} {entry.title}\n{'':12} {images} images, {entry.bytes / 1e6:.1f} MB, {entry.licence}; {there}")
    click.echo(f"data root: {place}")


@data.command()
@click.argument("name")
def fetch(name) -> None:
    """Download what is missing or altered of data set NAME."""
    from hqnn_utils.catalogue import DataError, entry, fetch, verify

    try:
        fetch(name)
        click.echo(f"{name}: {len(verify(name))} file(s) intact in {entry(name).embedded or entry(name).folder}")
    except DataError as error:
        raise Refusal(error) from None


@data.command("verify")
@click.argument("name")
def verify_(name) -> None:
    """Compare every file of data set NAME with its SHA-256."""
    from hqnn_utils.catalogue import DataError, verify

    try:
        states = verify(name)
    except DataError as error:
        raise Refusal(error) from None
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
def audit_(name) -> None:
    """Find pictures that photographs of data set NAME show more than once, within and between its splits."""
    from hqnn_utils.catalogue import DataError
    from hqnn_utils.photos import audit, clean, photos, pictures

    try:
        published = photos(name)
        same = pictures(published.paths)
    except DataError as error:
        raise Refusal(error) from None
    table = audit(published, same)
    click.echo(table.to_string())
    files, leaked = table.loc["test", ["files", "in other split"]].sum()
    click.echo(f"{leaked} of {files} test images show a picture that is among the training images, pixel by pixel")
    if leaked:
        left = len(clean(published, same).of("test"))
        click.echo(f"hqnn_utils.photos.clean gives a split without leaks, with {left} test images")
