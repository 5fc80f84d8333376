"""What verbs print: tables, fields and JSON on stdout, messages on stderr.

Control characters in text from files, names and models become visible escapes.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from steerlab.core.display import number, printable
from steerlab.errors import SteerlabWarning

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from steerlab.core.results import Calibration
    from steerlab.core.vector import SteeringVector
    from steerlab.registry import Store

T = TypeVar("T")

DOSE_LEGEND = "(dose/c: length relative to the residual stream, per unit of coefficient)"
_SUMMED = "(dose/c: length of the sum of layers up to it, relative to the residual stream)"
_ALONE = "(dose/c: of each layer alone, as this vector was stored before doses summed layers)"
_GAP = 2


def note_option(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """The callback of --json and --quiet: verbs need not hand them on, see `asked`."""
    ctx.meta[f"steerlab.{param.name}"] = value


def asked(option: str) -> bool:
    """Whether the running verb was given --json or --quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(f"steerlab.{option}"))


def silence() -> None:
    """Go on as with --quiet."""
    click.get_current_context().meta["steerlab.quiet"] = True


def show(
    found: T, printed: Callable[[T], object], data: Callable[[T], Any] = lambda found: found
) -> None:
    """Print what a verb found: by `printed`, or with --json its `data`."""
    if asked("json"):
        print_json(_plain(data(found)))
    else:
        printed(found)


def _plain(value: Any) -> Any:
    """A value, or a list of them, as JSON values."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, dict) else asdict(value)


def width() -> int | None:
    """Columns of the terminal; None in a pipe, where nothing is folded or cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wrap: Sequence[str] = (),
    cut: Sequence[str] = (),
    fg: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Print an aligned table of plain text; `right` names the columns of numbers.

    In a terminal that is too narrow, the columns in `wrap` are folded and those in `cut`
    shortened; all others keep their width. fg: column -> cell -> its colour.
    """
    # rich.table took 44 ms to import, and 5.8 s for 10,000 rows that take 0.3 s here
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    natural = [max(map(_cells, column)) for column in zip(*cells, strict=True)]
    flexible = dict.fromkeys(wrap, 10) | dict.fromkeys(cut, 4)  # what they keep in any case
    least = [min(n, flexible.get(c, n)) for c, n in zip(columns, natural, strict=True)]
    layout = list(zip(columns, _fitted(natural, least, width()), strict=True))
    for place, row in enumerate(cells):
        folded = [
            [_cut(text, size)] if column in cut else _fold(text, size)
            for text, (column, size) in zip(row, layout, strict=True)
        ]
        colours = [(fg or {}).get(c, {}).get(text) for c, text in zip(columns, row, strict=True)]
        for texts in zip_longest(*folded, fillvalue=""):
            padded = [
                _padded(text, size, column in right, colour)
                for text, (column, size), colour in zip(texts, layout, colours, strict=True)
            ]
            line = (" " * _GAP).join(padded).rstrip()
            click.echo(line if place else click.style(line, bold=True))


def _fitted(natural: Sequence[int], least: Sequence[int], room: int | None) -> list[int]:
    """Widths that fit into `room`: the widest column that can shrink gives way first."""
    if room is None:
        return list(natural)
    widths = [max(low, min(n, room)) for n, low in zip(natural, least, strict=True)]
    for _ in range(sum(widths) + _GAP * (len(widths) - 1) - room):
        able = [i for i, low in enumerate(least) if widths[i] > low]
        if not able:
            break
        widths[max(able, key=lambda i: widths[i])] -= 1
    return widths


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes: two for an ideograph."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _padded(text: str, size: int, right: bool, colour: str | None) -> str:
    space = " " * (size - _cells(text))
    shown = click.style(text, fg=colour) if colour else text
    return space + shown if right else shown + space


def _cut(text: str, size: int) -> str:
    return text if _cells(text) <= size else _chopped(text, size - 1)[0] + "…"


def _fold(text: str, size: int) -> list[str]:
    """Lines of at most `size` columns, broken between words where there are any."""
    lines, line = [], ""
    for word in re.findall(r"\s*\S+", text):
        if _cells(line + word) <= size:
            line += word
            continue
        lines += [line] if line else []
        *full, line = _chopped(word.strip(), size)
        lines += full
    return [*lines, line]


def _chopped(text: str, size: int) -> list[str]:
    if text.isascii():
        return [text[at : at + size] for at in range(0, len(text), size)]
    from rich.cells import chop_cells

    return chop_cells(text, size)


def title(text: str) -> None:
    """A line in bold."""
    click.echo(click.style(printable(text), bold=True))


def section(text: str) -> None:
    """An empty line, then a title."""
    click.echo()
    title(text)


def fields(labelled: Sequence[tuple[str, str]]) -> None:
    """Labels with their texts, folded beside the labels; empty texts are left out."""
    edge = max(len(label) for label, _ in labelled) + _GAP
    for label, text in labelled:
        if text:
            hanging(label.ljust(edge), text)


def hanging(label: str, text: str, *, fg: str | None = None) -> None:
    """A label and a text, folded beside it where the terminal is too narrow."""
    room = width()
    text = printable(text)
    first, *rest = _fold(text, max(room - len(label), 20)) if room else [text]
    click.echo(f"{click.style(label, fg=fg) if fg else label}{first}")
    for line in rest:
        click.echo(" " * len(label) + line)


def print_json(data: Any) -> None:
    """JSON for programs; control characters are escaped, which changes nothing in JSON."""
    escaped = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    dumped = partial(json.dumps, indent=2, ensure_ascii=escaped, allow_nan=False)
    try:
        text = dumped(data)
    except ValueError:
        text = dumped(_finite(data))
    if not text.replace("\n", "").isprintable():
        text = "".join(
            c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1].replace("\x7f", r"\u007f")
            for c in text
        )
    click.echo(text)


def _finite(value: Any) -> Any:
    """A JSON value with null for the numbers that JSON lacks: a quotient may be infinite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def response(calibration: Calibration, name: str) -> None:
    """The dose-response that a calibration measured, beside its control."""
    from steerlab.plots.calibration import response_of
    from steerlab.plots.terminal import dose_response

    click.echo()
    for line in dose_response(response_of(calibration, name), width() or 100):
        click.echo(line)


def save_plot(figure: Figure, file: Path) -> None:
    """Write a figure where --plot says."""
    from steerlab.plots import drawing

    drawing.save(figure, file)
    say(f"wrote {file}")


def say(text: str, *, always: bool = False) -> None:
    """A line on stderr, so that stdout stays data. always: with --quiet, too."""
    if always or not asked("quiet"):
        click.echo(printable(text), err=True)


def confirm(question: str, yes: bool) -> None:
    """Ask in a terminal, raising click.Abort for a no; scripts and --yes are not asked."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(printable(question), abort=True, err=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    click.echo(f"{click.style('warning:', fg='yellow')} {printable(text)}", err=True)


def say_duplicates(store: Store, vector: SteeringVector) -> None:
    """Report stored vectors that equal, or nearly equal, one that was just made."""
    for duplicate in () if asked("quiet") else store.duplicates(vector):
        say(f"note: {vector.ref or 'this'}: {duplicate}")


def narrate() -> None:
    """Print what the library logs, such as a rebuilt registry, and its warnings as notes."""
    import logging
    import warnings

    others = warnings.showwarning

    def show_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SteerlabWarning):
            say(f"note: {message}", always=True)
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show_warning

    class Narrator(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"note: {record.getMessage()}", always=True)

    log = logging.getLogger("steerlab")
    if not log.handlers:
        log.addHandler(Narrator())


def dose_legend(layers: int, *, summed: bool = True) -> str:
    """What the doses of a table of layers mean; summed: as `Record.summed`."""
    if layers == 1:
        return DOSE_LEGEND
    return _SUMMED if summed else _ALONE


def minute(time: str) -> str:
    """An ISO time to the minute, for tables."""
    return time[:16].replace("T", " ")


def made(vector: SteeringVector, name: str, how: str = "") -> None:
    """A vector that was just made: its name and recipe, then layers, norm and dose."""
    from steerlab.core.notation import layers_text

    click.echo(f"{click.style(name, bold=True)}  {printable(str(vector.recipe))}{how}")
    dose = vector.dose(1.0)
    per_unit = "" if dose is None else f", dose {number(dose, 2)} per unit of coefficient"
    click.echo(f"{layers_text(vector.layers)}, norm {number(vector.norm, 4)}{per_unit}")
