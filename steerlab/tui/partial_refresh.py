"""Widgets that redraw and lay out as little as they can: both take time from keys and models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.widgets import Input, Static


class Frame(Vertical):
    """A box whose border texts can change without drawing what is in it."""

    _line: int | None = None

    @contextmanager
    def border_only(self, line: int) -> Iterator[None]:
        """Redraw the first (0) or the last line (-1) alone, for a change of its text inside."""
        self._line = line
        try:
            yield
        finally:
            self._line = None

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """Redraw regions; without any, the whole widget."""
        if self._line is not None:
            width, height = self.outer_size
            border = Region(0, self._line % max(height, 1), width, 1)
            regions = (border.translate(-self.content_offset),)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class Paragraph(Static):
    """A text that is laid out anew only for another height, and drawn where it has grown."""

    _drawn = Size(0, 0)
    _grown: tuple[Region, ...] = ()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show(self, text: Content, *, grown: bool = False, least: int = 1) -> bool:
        """Show a text; returns whether its height changes.

        grown: the text shown plus more. least: the least number of lines it takes.
        """
        width, height = self.size
        lines = text.get_height({}, width) if width else 0  # not laid out yet
        if grown and self._drawn.width == width:
            first = max(0, self._drawn.height - 1)
            self._grown = (Region(0, first, width, lines - first),)
        self._drawn = Size(width, lines)
        self.update(text, layout=False)
        self._grown = ()
        if changes := max(lines, least) != height:
            self.refresh(layout=True)
        return changes

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """Redraw regions; without any, what has grown, or all."""
        changed = regions or self._grown
        return super().refresh(*changed, repaint=repaint, layout=layout, recompose=recompose)


class FixedInput(Input):
    """An input whose size its container sets."""

    virtual_size: reactive[Size] = reactive(Size(0, 0))
    """Asks for no layout, which took 10 ms of every key."""

    def watch_value(self, value: str) -> None:
        """Show the end of a first text too: Textual scrolls to the cursor from the second on."""
        if self.cursor_at_end:
            self.scroll_to(self.max_scroll_x, animate=False, force=True)
