"""A heatmap: numbers in coloured cells, with labels, a legend and a cursor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from steerlab.plots.values import HeatGrid

COOL, WARM = Color.parse("#3b7dd8"), Color.parse("#e08a1e")
"""Below and above the baseline; colour-blind readers can tell them apart."""

LABEL = "layer"

_STEPS = 9  # colours in the legend
_SPARE = 6  # columns a cell may be wider than its text
_DIM = Style(dim=True)


class Heatmap(ScrollView, can_focus=True):
    """Layers x strengths; None where a number is missing.

    A cell shows its number and the cursor has arrows, so that colour is never needed to read
    it. Labels stay in place while the cells scroll.
    """

    HELP = "The metric of each cell. The arrows move, Enter copies the cell to the lab."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1, 0)", "cell above", show=False, system=True),
        Binding("down", "step(1, 0)", "cell below", show=False, system=True),
        Binding("left", "step(0, -1)", "cell on the left", show=False, system=True),
        Binding("right", "step(0, 1)", "cell on the right", show=False, system=True),
        Binding("home", "step(0, -9999)", "first column", show=False, system=True),
        Binding("end", "step(0, 9999)", "last column", show=False, system=True),
        Binding("pageup", "step(-9999, 0)", "first row", show=False, system=True),
        Binding("pagedown", "step(9999, 0)", "last row", show=False, system=True),
        Binding("enter", "choose", "take the cell to the lab", show=False),
    ]
    DEFAULT_CSS = """
    Heatmap { height: auto; color: $text; scrollbar-size: 1 1; }
    """

    cursor: reactive[tuple[int, int]] = reactive((0, 0))

    @dataclass
    class Moved(Message):
        """The cursor moved to another cell."""

        row: int
        column: int

    @dataclass
    class Chosen(Message):
        """Enter was pressed or a cell was double-clicked."""

        row: int
        column: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.grid = HeatGrid("", "", (), (), ())
        self._cell = self._edge = self._wide = 0

    def show(self, grid: HeatGrid) -> None:
        """Show a grid; the cursor keeps its place if it can."""
        self.grid = grid
        self.cursor = self.validate_cursor(self.cursor)
        self._measure()
        self.refresh()

    def _measure(self) -> None:
        """Set the width of cells: what their texts need, and some more where there is room."""
        columns = self.grid.columns
        written = [self.grid.shown(value) for row in self.grid.values for value in row]
        self._wide = max(map(len, [*columns, *written]), default=0)
        needed = self._wide + 2
        self._edge = max(map(len, [LABEL, *map(str, self.grid.layers)])) + 1
        room = (self._view.width - self._edge) // max(len(columns), 1)
        self._cell = max(needed, min(room, needed + _SPARE))
        size = Size(self._edge + self._cell * len(columns), len(self.grid.layers) + 2)
        if size != self.virtual_size:
            self.virtual_size = size
            self.refresh(layout=True)

    @property
    def _view(self) -> Size:
        """The size without scrollbars."""
        return self.scrollable_content_region.size

    def on_resize(self) -> None:
        """Fit the cells to the new size, and keep the cursor in view."""
        self._measure()
        self._reveal()

    # moving

    def validate_cursor(self, cursor: tuple[int, int]) -> tuple[int, int]:
        """Clamp to the cells there are."""
        row, column = cursor
        rows, columns = max(len(self.grid.layers), 1), max(len(self.grid.columns), 1)
        return (max(0, min(row, rows - 1)), max(0, min(column, columns - 1)))

    def watch_cursor(self, cursor: tuple[int, int]) -> None:
        """Scroll to the cell and post Moved."""
        if self.grid.layers:
            self._reveal()
            self.post_message(self.Moved(*cursor))
        self.refresh()

    def _reveal(self) -> None:
        """Scroll to the cursor, clear of the labels and the legend, which don't scroll."""
        row, column = self.cursor
        region = Region(column * self._cell, row, self._edge + self._cell, 3)
        self.scroll_to_region(region, animate=False, force=True)

    def action_step(self, down: int, right: int) -> None:
        """Move the cursor."""
        row, column = self.cursor
        self.cursor = (row + down, column + right)

    def action_choose(self) -> None:
        """Choose the cell under the cursor."""
        if self.grid.layers:
            self.post_message(self.Chosen(*self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Move to the cell; a double click chooses it."""
        place = event.get_content_offset(self)
        if place is None:
            return
        row = place.y - 1 + self.scroll_offset.y
        column = (place.x - self._edge + self.scroll_offset.x) // max(self._cell, 1)
        there = row < len(self.grid.layers) and column < len(self.grid.columns)
        if place.y and place.x >= self._edge and there:
            self.cursor = (row, column)
            if event.chain == 2:
                self.action_choose()

    # drawing

    def render_line(self, y: int) -> Strip:
        """Column labels, rows of cells, then the legend."""
        base = self.visual_style.rich_style
        layers = self.grid.layers
        last = min(self._view.height, len(layers) + 2) - 1
        if not layers or y > last:
            strip = Strip([])
        elif y == 0:
            strip = self._line(LABEL, [(text, _DIM) for text in self.grid.columns])
        elif y == last:
            strip = self._legend()
        else:
            row = min(y - 1 + self.scroll_offset.y, len(layers) - 1)
            strip = self._line(str(layers[row]), [*map(self._drawn, self.grid.values[row])], row)
        return strip.adjust_cell_length(self.size.width).apply_style(base)

    def _line(self, label: str, cells: Sequence[tuple[str, Style]], row: int = -1) -> Strip:
        """A row's label and its visible cells."""
        here = self.cursor[1] if row == self.cursor[0] else -1
        segments = [self._segment(*cell, at=i == here) for i, cell in enumerate(cells)]
        start, room = self.scroll_offset.x, max(self._view.width - self._edge, 0)
        edge = Strip([Segment(f"{label:>{self._edge - 1}} ", _DIM)])
        return Strip.join([edge, Strip(segments).crop(start, start + room)])

    def _segment(self, text: str, style: Style, *, at: bool) -> Segment:
        aligned = f"{text:>{self._wide}}"
        if not at:
            return Segment(f"{aligned:^{self._cell}}", style)
        marked = f"{f'▸{aligned}◂':^{self._cell}}"
        return Segment(marked, style + Style(bold=True, underline=self.has_focus))

    def _drawn(self, value: float | None) -> tuple[str, Style]:
        share = self.grid.share(value)
        return self.grid.shown(value), _DIM if math.isnan(share) else self._colour(share)

    def _colour(self, share: float) -> Style:
        """Blend into the background, for dark and light themes."""
        surface = self.background_colors[1]
        if surface.ansi is not None:  # the terminal's own background: its colour is unknown
            surface = Color.parse("black" if self.app.current_theme.dark else "white")
        back = surface.blend(WARM if share > 0 else COOL, abs(share))
        text = back.get_contrast_text(1.0)
        return Style(color=text.rich_color, bgcolor=back.rich_color)

    def _legend(self) -> Strip:
        """The scale from low to high."""
        grid, (low, high) = self.grid, map(self.grid.shown, self.grid.ends)
        first = 0.0 if grid.centre is None else -1.0
        shares = [first + (1 - first) * i / (_STEPS - 1) for i in range(_STEPS)]
        return Strip(
            [
                Segment(f"{low:>{self._edge - 1}} ", _DIM),
                *(Segment("  ", self._colour(share)) for share in shares),
                Segment(f" {high}  {grid.title}", _DIM),
            ]
        )
