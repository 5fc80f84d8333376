"""Plots as lines of text for the terminal; complete without colour, clearer with it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from steerlab.core.display import printable, signed_dose

if TYPE_CHECKING:
    from steerlab.evaluation.calibration.curve import Point
    from steerlab.plots.store_map import StoreMap
    from steerlab.plots.values import DoseResponse, HeatGrid

BELOW = (195, 153, 111, 69, 27)  # blue, of the 256 terminal colours
ABOVE = (230, 223, 216, 209, 202)  # orange, distinct from blue to colour-blind eyes
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_MANY, _POINT = "·", "●"
_ROWS = 24


def has_colour() -> bool:
    """Whether output is coloured: not in a pipe, and not under NO_COLOR."""
    context = click.get_current_context(silent=True)
    wanted = context.color if context is not None else None
    return sys.stdout.isatty() if wanted is None else wanted


def shaded(text: str, shade: float) -> str:
    """Text on a blue (-1) to orange (1) background, paler towards 0; as it is for NaN."""
    step = -1 if math.isnan(shade) else round(abs(shade) * len(ABOVE)) - 1
    if step < 0:
        return text
    ramp = ABOVE if shade > 0 else BELOW
    return click.style(text, fg=231 if ramp[step] == BELOW[-1] else 16, bg=ramp[step])


# dose-response


def dose_response(found: DoseResponse, width: int) -> Iterator[str]:
    """A line for each dose: ● effect, ├─┤ interval, ░ random directions, │ no change."""
    low, high = found.window
    room = max(20, min(width - 38, 90))
    at = "" if found.layer is None else f" at layer {found.layer}"
    yield click.style(f"change in {found.unit}{at}, by dose", bold=True)
    yield click.style(f"{'dose':>6}  {'':{room}}  {'effect':>8}  95% interval", dim=True)
    for point in found.points:
        yield _dose_line(point, found, _Axis(low, high, room))
    legend = ["● effect, ├─┤ 95% interval"]
    if any(math.isfinite(p.controls.sd) for p in found.points):
        legend.append(f"░ {found.controls or ''} random directions, ±2 sd".replace("  ", " "))
    if found.chosen is not None:
        legend.append("* chosen")
    if any(not p.sound for p in found.points):
        legend.append("○ not sound: KL, fluency or repetition beyond the limits")
    yield click.style("   ".join(legend), dim=True)


class _Axis:
    """Maps values to columns."""

    def __init__(self, low: float, high: float, columns: int) -> None:
        self.low, self.high, self.columns = low, high, columns

    def __call__(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return max(0, min(self.columns - 1, round(share * (self.columns - 1))))


def _dose_line(point: Point, found: DoseResponse, axis: _Axis) -> str:
    line = [" "] * axis.columns
    if all(map(math.isfinite, point.controls.reach)):
        low, high = map(axis, point.controls.reach)
        line[low : high + 1] = "░" * (high - low + 1)
    line[axis(0.0)] = "│"
    effect = point.effect
    known = math.isfinite(effect.low) and math.isfinite(effect.high)
    if known:
        low, high = axis(effect.low), axis(effect.high)
        line[low : high + 1] = "─" * (high - low + 1)
        line[low] = "├" if effect.low >= axis.low else "◂"
        line[high] = "┤" if effect.high <= axis.high else "▸"
    if math.isfinite(effect.mean):
        line[axis(effect.mean)] = "●" if point.sound else "○"
    chosen = found.chosen is not None and math.isclose(point.dose, found.chosen)
    bar = click.style("".join(line), fg=None if not point.sound else "blue", bold=chosen or None)
    interval = f"{effect.low:+.2f} to {effect.high:+.2f}" if known else "-"
    interval = interval if point.dose else "baseline"
    mean = f"{effect.mean:+.2f}" if math.isfinite(effect.mean) else "-"
    mark = "*" if chosen else " "
    return f"{mark}{signed_dose(point.dose):>5}  {bar}  {mean:>8}  {interval}"


# layers x strengths


def heatmap(grid: HeatGrid) -> Iterator[str]:
    """A table with coloured cells: blue below the baseline, orange above it."""
    texts = [[grid.shown(value) for value in row] for row in grid.values]
    wide = max(map(len, [*grid.columns, *(text for row in texts for text in row)])) + 2
    edge = max(5, *(len(str(b)) for b in grid.layers))
    yield click.style(printable(grid.title), bold=True)
    heads = "".join(f"{column:>{wide - 1}} " for column in grid.columns)
    yield click.style(f"{'layer':>{edge}} {heads}", dim=True).rstrip()
    for layer, row, shown in zip(grid.layers, grid.values, texts, strict=True):
        cells = [
            shaded(f"{text:>{wide - 1}} ", grid.share(value))
            for text, value in zip(shown, row, strict=True)
        ]
        yield f"{layer:>{edge}} {''.join(cells)}"
    if has_colour() and grid.centre is not None:
        base = grid.shown(grid.centre)
        scale = f"{shaded(' below ', -0.8)} {shaded(' above ', 0.8)} the baseline, {base}"
        yield f"{'':>{edge}} {scale}"


# the map


def map_lines(found: StoreMap, width: int) -> Iterator[str]:
    """Points with their names, or with letters explained below where a name has no room.

    Both axes have the same scale.
    """
    columns, rows, places = _laid(found, max(width - 2, 20), _ROWS)
    canvas = [[" "] * columns for _ in range(rows)]
    letters: dict[int, str] = {}
    for x, y in places:
        canvas[y][x] = _POINT
    for i, (x, y) in enumerate(places):
        crowd = places.count((x, y)) > 1
        if not crowd and _write(canvas[y], x, printable(found.points[i].ref)):
            continue
        letter = _LETTERS[len(letters)] if len(letters) < len(_LETTERS) else _MANY
        free = [(a, b) for a, b in _near(x, y, columns, rows) if canvas[b][a] == " "]
        a, b = (x, y) if canvas[y][x] == _POINT else free[0] if free else (x, y)
        canvas[b][a] = letters[i] = letter
    yield f"╭{'─' * columns}╮"
    for line in canvas:
        yield "│" + "".join(line).replace(_POINT, click.style(_POINT, fg="blue")) + "│"
    yield f"╰{'─' * columns}╯"
    yield from _legend(found, letters, width)


def _write(line: list[str], x: int, name: str) -> bool:
    """Write a name beside its point, with a blank around it; False if there is no room."""
    size = len(name)
    for start in (x + 2, x - 1 - size):
        around = line[max(start - 1, 0) : start + size + 1]
        around = [c for i, c in enumerate(around, max(start - 1, 0)) if i != x]
        if start >= 0 and start + size <= len(line) and set(around) <= {" "}:
            line[start : start + size] = name
            return True
    return False


def _laid(found: StoreMap, width: int, height: int) -> tuple[int, int, list[tuple[int, int]]]:
    """Columns, rows, and the cell of each point; a cell is twice as high as it is wide."""
    xs, ys = [p.x for p in found.points], [p.y for p in found.points]
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    scale = min([1e9, *((n - 1) / s for n, s in ((width, wide), (2 * height, high)) if s)])
    if not wide and not high:
        scale = 0.0
    columns = min(width, round(wide * scale) + 1)
    rows = max(3, min(height, round(high * scale / 2) + 1))
    across = (min(columns - 1, round((x - min(xs)) * scale)) for x in xs)
    down = (min(rows - 1, round((max(ys) - y) * scale / 2)) for y in ys)
    return columns, rows, list(zip(across, down, strict=True))


def _near(x: int, y: int, columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """A cell and its neighbours, nearest first."""
    for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0), (1, 1), (-1, -1)):
        if 0 <= x + dx < columns and 0 <= y + dy < rows:
            yield x + dx, y + dy


def _legend(found: StoreMap, letters: dict[int, str], width: int) -> Iterator[str]:
    """The names behind the letters, in columns."""
    named = [f"{x} {printable(found.points[i].ref)}" for i, x in letters.items() if x != _MANY]
    wide = max(map(len, named), default=0) + 2
    across = max(1, width // wide)
    for start in range(0, len(named), across):
        yield "".join(text.ljust(wide) for text in named[start : start + across]).rstrip()
    if more := len(letters) - len(named):
        yield f"{_MANY} {more} more (--json lists all positions)"
