"""What commands print: tables, JSON, text from strangers made safe, and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from steerlab.vector import SteeringVector

_WIDE = 100_000  # a pipe has no width: nothing is wrapped or cut there


def printable(text: str, *, newlines: bool = False) -> str:
    """Text from files, names and models without terminal control: escapes become visible."""
    keep = "\n" if newlines else ""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def console(*, stderr: bool = False) -> Console:
    """A rich console: as wide as the terminal, unbounded in a pipe; NO_COLOR is honoured."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """An aligned table; cells are plain text, `right` names the columns of numbers.

    The last column takes what width is left and wraps.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        last = column == columns[-1]
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    print_rich(table)


def print_rich(renderable: Any) -> None:
    """Print a rich renderable without trailing spaces in pipes."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as capture:
        target.print(renderable)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_json(data: Any) -> None:
    """JSON for programs."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str, *, quiet: bool = False) -> None:
    """Narration: to stderr, so that stdout stays data."""
    if not quiet:
        click.echo(printable(text, newlines=True), err=True)


def warn(text: str) -> None:
    """Something the user should know; on stderr."""
    click.echo(f"{click.style('warning:', fg='yellow')} {printable(text)}", err=True)


def number(value: float | None, digits: int = 3) -> str:
    """A number in few characters; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def signed_dose(value: float | None) -> str:
    """A dose with its sign: "+0.15", "0", "-"."""
    if value is None:
        return "-"
    return f"{value:+.2f}" if value else "0"


def describe_result(vector: SteeringVector) -> str:
    """One line for a vector that was just made: layers, norm, dose."""
    from steerlab.vector import span

    dose = vector.dose(1.0)
    layers = f"layer{'s' * (len(vector.layers) > 1)} {span(vector.layers)}"
    return f"{layers}, norm {vector.norm:.4g}" + (
        f", dose {dose:.2f} per unit of coefficient" if dose is not None else ""
    )


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Any]:
    """A bar on stderr with the time left; a callable (done, total). Silent in pipes and with -q."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def loading_bar(*, quiet: bool = False) -> Iterator[Any]:
    """Progress of fetching and converting the embedded model: a callable (what, done, total)."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _Announcer()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} smollm2", total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


class _Announcer:
    """Says each stage once, where no bar can be drawn."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.said:
            self.said.add(what)
            size = f" ({total / 1e6:.0f} MB)" if total > 1000 else ""
            say(f"{what} the embedded model{size} …")
