"""A heatmap: numbers in coloured cells, with labels, a legend and a cursor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

COOL, WARM = Color.parse("#3b7dd8"), Color.parse("#e08a1e")
"""Below and above zero; colour-blind readers can tell them apart."""

_STEPS = 9  # colours in the legend
_SPARE = 6  # columns a cell may be wider than its text
_DIM = Style(dim=True)


@dataclass(frozen=True)
class Scale:
    """What the colours mean. A scale with 0 inside diverges from 0."""

    low: float = 0.0
    high: float = 1.0
    about: str = ""

    def share(self, value: float) -> float:
        """The colour of a value: -1 is COOL, 0 none, 1 WARM; negative on a diverging scale only."""
        if self.low < 0 < self.high:
            return max(-1.0, min(1.0, value / (self.high if value > 0 else -self.low)))
        span = self.high - self.low
        return max(0.0, min(1.0, (value - self.low) / span)) if span else 0.0


class Heatmap(ScrollView, can_focus=True):
    """Rows and columns of numbers; None where one is missing.

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
        self.rows: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = ()
        self.corner = ""
        self.values: list[list[float | None]] = []
        self.scale = Scale()
        self._text: Callable[[float | None], str] = shown
        self._cell = self._edge = self._wide = 0

    def lay_out(self, rows: Sequence[str], columns: Sequence[str], corner: str = "") -> None:
        """Show empty cells under new labels; the cursor keeps its place if it can."""
        self.rows, self.columns, self.corner = tuple(rows), tuple(columns), corner
        row, column = self.cursor
        self.fill([[None] * len(columns) for _ in rows], self.scale)
        self.cursor = (min(row, max(len(rows) - 1, 0)), min(column, max(len(columns) - 1, 0)))

    def fill(
        self,
        values: Sequence[Sequence[float | None]],
        scale: Scale,
        text: Callable[[float | None], str] | None = None,
    ) -> None:
        """Show numbers, coloured on a scale. text: formats one."""
        self.values, self.scale = [list(row) for row in values], scale
        self._text = text or self._text
        self._measure()
        self.refresh()

    def _measure(self) -> None:
        """Set the width of cells: what their texts need, and some more where there is room."""
        written = [self._text(value) for row in self.values for value in row]
        self._wide = max(map(len, [*self.columns, *written]), default=0)
        needed = self._wide + 2
        self._edge = max(map(len, [*self.rows, self.corner]), default=0) + 1
        room = (self._view.width - self._edge) // max(len(self.columns), 1)
        self._cell = max(needed, min(room, needed + _SPARE))
        size = Size(self._edge + self._cell * len(self.columns), len(self.rows) + 2)
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
        rows, columns = max(len(self.rows), 1), max(len(self.columns), 1)
        return (max(0, min(row, rows - 1)), max(0, min(column, columns - 1)))

    def watch_cursor(self, cursor: tuple[int, int]) -> None:
        """Scroll to the cell and post Moved."""
        if self.rows:
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
        if self.rows:
            self.post_message(self.Chosen(*self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Move to the cell; a double click chooses it."""
        place = event.get_content_offset(self)
        if place is None:
            return
        row = place.y - 1 + self.scroll_offset.y
        column = (place.x - self._edge + self.scroll_offset.x) // max(self._cell, 1)
        if (
            place.y
            and place.x >= self._edge
            and row < len(self.rows)
            and column < len(self.columns)
        ):
            self.cursor = (row, column)
            if event.chain == 2:
                self.action_choose()

    # drawing

    def render_line(self, y: int) -> Strip:
        """Column labels, rows of cells, then the legend."""
        base = self.visual_style.rich_style
        last = min(self._view.height, len(self.rows) + 2) - 1
        if not self.rows or y > last:
            strip = Strip([])
        elif y == 0:
            strip = self._line(self.corner, [(text, _DIM) for text in self.columns])
        elif y == last:
            strip = self._legend()
        else:
            row = min(y - 1 + self.scroll_offset.y, len(self.rows) - 1)
            strip = self._line(self.rows[row], [*map(self._drawn, self.values[row])], row)
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
        if value is None or math.isnan(value):
            return self._text(value), _DIM
        return self._text(value), self._colour(self.scale.share(value))

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
        low = -1.0 if self.scale.low < 0 < self.scale.high else 0.0
        shares = [low + (1 - low) * i / (_STEPS - 1) for i in range(_STEPS)]
        return Strip(
            [
                Segment(f"{self._text(self.scale.low):>{self._edge - 1}} ", _DIM),
                *(Segment("  ", self._colour(share)) for share in shares),
                Segment(f" {self._text(self.scale.high)}  {self.scale.about}", _DIM),
            ]
        )


def shown(value: float | None) -> str:
    """Format a number in few characters; "·" for None, "–" for NaN."""
    if value is None:
        return "·"
    return "–" if math.isnan(value) else f"{value:.3g}"
