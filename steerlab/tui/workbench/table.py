"""The table of vectors: any number of rows, of which only those on screen are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from steerlab.tui.workbench.columns import GUTTER, SORTS, Columns, fitted, layout, row_text

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.registry import Summary

KEPT = 4000
"""Rows that are cached."""


class VectorTable(ScrollView, can_focus=True):
    """Rows by id; the app answers `Wanted` with `fill`, so that drawing never waits."""

    HELP = """\
One vector per line: its layer, where it works, norm, dose and recipe. The dose is the length that \
coefficient 1 adds, relative to the median residual stream. Enter puts the vector on the steer \
line, space marks it, s sorts by the next column, S reverses the order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "use", tooltip="steer with the vector"),
        Binding("up,k", "move(-1)", "up", show=False, system=True),
        Binding("down,j", "move(1)", "down", show=False, system=True),
        Binding("pageup", "page(-1)", "page up", show=False, system=True),
        Binding("pagedown", "page(1)", "page down", show=False, system=True),
        Binding("home,g", "move(-1000000000)", "first", show=False, system=True),
        Binding("end,G", "move(1000000000)", "last", show=False, system=True),
        Binding("space", "mark", "mark the vector", show=False),
        Binding("u", "unmark", "clear the marks", show=False),
        Binding("s", "sort", "sort by the next column", show=False),
        Binding("S", "sort(True)", "reverse the order", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--cursor",
        "table--marked",
        "table--damaged",
        "table--quiet",
    }
    DEFAULT_CSS = """
    VectorTable { scrollbar-size-vertical: 1; overflow-x: hidden; }
    VectorTable .table--header { color: $text-muted; text-style: bold; }
    VectorTable .table--cursor { background: $panel; text-style: bold; }
    VectorTable:focus .table--cursor { background: $block-cursor-background; }
    VectorTable:focus .table--cursor { color: $block-cursor-foreground; }
    VectorTable .table--marked { color: $text-warning; }
    VectorTable .table--damaged { color: $text-error; }
    VectorTable .table--quiet { color: $text-muted; }
    """

    virtual_size: reactive[Size] = reactive(Size(0, 0))
    """Asks for no layout when rows come or go; a scrollbar that comes or goes asks for one."""
    cursor_row: reactive[int] = reactive(0, init=False)
    sort: reactive[tuple[str, bool]] = reactive(("name", False))
    show_model: reactive[bool] = reactive(False)

    @dataclass
    class Wanted(Message):
        """Rows to draw that are not read yet; answer with `fill`."""

        ids: Sequence[int]

    @dataclass
    class Highlighted(Message):
        """The vector under the cursor, or its data, changed."""

        summary: Summary

    @dataclass
    class Chosen(Message):
        """Enter was pressed or the vector was double-clicked."""

        summary: Summary

    @dataclass
    class SortBy(Message):
        """Sort the rows: `column` is a sort of `Listing.matching`."""

        column: str
        reverse: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ids: Sequence[int] = ()
        self._rows: dict[int, Summary] = {}
        self._texts: dict[int, str] = {}
        self._calibrated: dict[int, str] = {}
        self._columns: Columns = ()
        self._asked: set[int] = set()
        self._gone: set[int] = set()
        self._marks: dict[int, Summary] = {}
        self._damaged: set[int] = set()
        self._announced: Summary | None = None

    # rows

    @property
    def row_count(self) -> int:
        """Number of listed vectors."""
        return len(self._ids)

    @property
    def _current_id(self) -> int | None:
        """The row id under the cursor; None in an empty table."""
        return self._ids[self.cursor_row] if self.cursor_row < len(self._ids) else None

    @property
    def current(self) -> Summary | None:
        """The vector under the cursor; None until it is read."""
        return self._rows.get(self._current_id) if self._current_id is not None else None

    @property
    def marked(self) -> tuple[Summary, ...]:
        """The marked vectors, in the order of marking."""
        return tuple(self._marks.values())

    def show(self, ids: Sequence[int]) -> None:
        """List these rows; the cursor stays on its vector if it is listed."""
        before, drawn = self._current_id, self._on_screen()
        self._ids = ids
        self.virtual_size = Size(0, len(ids) + 1)
        self._scroll_update(self.virtual_size)
        if before is None or not self.go_to(before):
            self.cursor_row = max(0, min(self.cursor_row, len(ids) - 1))
            self._keep_in_view()
        self._want()
        self._announce()
        if self._on_screen() != drawn:
            self.refresh()

    def go_to(self, row: int) -> bool:
        """Put the cursor on a row id; False if it is not listed."""
        try:
            place = self._ids.index(row)
        except ValueError:
            return False
        self.cursor_row = place
        self._keep_in_view()
        return True

    def fill(
        self,
        summaries: Sequence[Summary],
        asked: Sequence[int] = (),
        calibrated: Mapping[int, Calibration] = MappingProxyType({}),
    ) -> None:
        """Take the rows read; rows in `asked` that are missing were removed from the store."""
        for summary in summaries:
            self._calibrated.pop(summary.id, None)
            self._rows.pop(summary.id, None)
            self._texts.pop(summary.id, None)
            self._rows[summary.id] = summary
            if summary.id in self._marks:
                self._marks[summary.id] = summary
        self._calibrated |= {row: made.brief for row, made in calibrated.items()}
        given = {summary.id for summary in summaries}
        self._asked |= given
        gone = set(asked) - given
        self._gone = (self._gone - given) | gone
        for row in gone:
            self._marks.pop(row, None)
        for old in list(self._rows)[: max(0, len(self._rows) - KEPT)]:
            del self._rows[old]
            self._texts.pop(old, None)
            self._calibrated.pop(old, None)
            self._asked.discard(old)
        self._want()
        self._announce()
        self.refresh()

    def refresh_rows(self) -> None:
        """Read the rows on screen again, and show the old ones until then."""
        self._asked.clear()
        self._gone.clear()
        self._want()

    def flag(self, row: int, *, damaged: bool) -> None:
        """Show that the payload of a row is damaged, or no longer."""
        if damaged != (row in self._damaged):
            self._damaged ^= {row}
            self.refresh()

    # reading rows as they come into view

    def _visible(self) -> int:
        return max(1, self.size.height - 1)

    def _on_screen(self) -> list[int]:
        top = round(self.scroll_y)
        return [*self._ids[top : top + self._visible()]]

    def _want(self) -> None:
        """Request the rows on screen, then a page before and after them."""
        page, top = self._visible(), round(self.scroll_y)
        missing = self._missing(top, top + page) or self._missing(top - page, top + 2 * page)
        if missing:
            self._asked.update(missing)
            self.post_message(self.Wanted(missing).set_sender(self))

    def _missing(self, first: int, end: int) -> list[int]:
        return [i for i in self._ids[max(0, first) : end] if i not in self._asked]

    def _announce(self) -> None:
        summary = self.current
        if summary is not None and summary != self._announced:
            self._announced = summary
            # in a handler of the browser the message would be the browser's, and stop there
            self.post_message(self.Highlighted(summary).set_sender(self))

    def _keep_in_view(self) -> None:
        page, top = self._visible(), round(self.scroll_y)
        if self.cursor_row < top:
            self.scroll_to(y=self.cursor_row, animate=False)
        elif self.cursor_row >= top + page:
            self.scroll_to(y=self.cursor_row - page + 1, animate=False)

    def watch_cursor_row(self) -> None:
        """Scroll to the cursor and post Highlighted."""
        self._keep_in_view()
        self._announce()
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Request the rows that come into view."""
        super().watch_scroll_y(old_value, new_value)
        self._want()

    def on_resize(self) -> None:
        """Keep the cursor in view, and request rows."""
        self._keep_in_view()
        self._want()

    # drawing

    def render_line(self, y: int) -> Strip:
        """The header, or the row scrolled to line `y`."""
        width = self.scrollable_content_region.width
        columns = layout(width, show_model=self.show_model)
        if columns is not self._columns:
            self._columns = columns
            self._texts.clear()
        row = round(self.scroll_y) + y - 1
        if y == 0:
            return self._header(columns, width)
        if row >= len(self._ids):
            return Strip.blank(width, self.rich_style)
        return self._row(row, columns, width)

    def _header(self, columns: Columns, width: int) -> Strip:
        by, reverse = self.sort
        parts = []
        for column, size in columns:
            arrow = (" ▼" if reverse else " ▲") if column.sort == by else ""
            parts.append(fitted(column.name + arrow, size, right=column.right))
        line = set_cell_size(" " * GUTTER + " ".join(parts), width)
        return Strip([Segment(line, self._styled("header"))], width)

    def _row(self, row: int, columns: Columns, width: int) -> Strip:
        key = self._ids[row]
        summary, at_cursor = self._rows.get(key), row == self.cursor_row
        gutter = "▸" if at_cursor else " "
        gutter += "✗" if key in self._damaged else "●" if key in self._marks else " "
        if key in self._gone:
            text = "removed from the store"
        elif summary is None:
            text = "…"
        else:
            text = self._texts.get(key) or row_text(summary, columns, self._calibrated.get(key, ""))
            self._texts[key] = text
        line = set_cell_size(f"{gutter} {text}", width)
        return Strip([Segment(line, self._style_of(key, summary, at_cursor))], width)

    def _style_of(self, key: int, summary: Summary | None, at_cursor: bool) -> Style:
        style = self.rich_style
        if key in self._damaged:
            style += self._styled("damaged")
        elif key in self._marks:
            style += self._styled("marked")
        elif summary is None or key in self._gone:
            style += self._styled("quiet")
        return style + self._styled("cursor") if at_cursor else style

    def _styled(self, name: str) -> Style:
        return self.get_component_rich_style(f"table--{name}", partial=name != "header")

    # keys and mouse

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        self.cursor_row = max(0, min(self.cursor_row + rows, len(self._ids) - 1))

    def action_page(self, pages: int) -> None:
        """Move by pages."""
        self.action_move(pages * self._visible())

    def action_choose(self) -> None:
        """Choose the vector under the cursor."""
        if self.current is not None:
            self.post_message(self.Chosen(self.current))

    def action_mark(self) -> None:
        """Toggle the mark."""
        if self.current is not None:
            if self._marks.pop(self.current.id, None) is None:
                self._marks[self.current.id] = self.current
            self.refresh()

    def action_unmark(self) -> None:
        """Clear all marks."""
        self._marks.clear()
        self.refresh()

    def action_sort(self, again: bool = False) -> None:
        """Sort by the next column. again: by the same one, in the reverse order."""
        by, reverse = self.sort
        if again:
            self.post_message(self.SortBy(by, not reverse))
        else:
            self.sort_by(SORTS[(SORTS.index(by) + 1) % len(SORTS) if by in SORTS else 0])

    def sort_by(self, column: str) -> None:
        """Sort by a column, one of SORTS."""
        self.post_message(self.SortBy(column, False).set_sender(self))

    def on_click(self, event: events.Click) -> None:
        """Move to the row, choose it on a double click, or sort by the header."""
        if event.y == 0:
            self._sort_at(event.x)
            return
        row = round(self.scroll_y) + event.y - 1
        if row >= len(self._ids):
            return
        again = row == self.cursor_row and event.chain > 1
        self.cursor_row = row
        if again:
            self.action_choose()

    def _sort_at(self, x: int) -> None:
        end = GUTTER
        for column, size in layout(
            self.scrollable_content_region.width, show_model=self.show_model
        ):
            end += size + 1
            if x < end:
                if column.sort is not None:
                    by, reverse = self.sort
                    self.post_message(self.SortBy(column.sort, column.sort == by and not reverse))
                return
