"""Widgets that redraw and lay out as little as they can: both take time from keys and models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from textual.content import Content
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static


class PartialRefresh(Widget):
    """A widget that can redraw a part of itself."""

    _changing: tuple[Region, ...] = ()

    @contextmanager
    def only(self, region: Region) -> Iterator[None]:
        """Redraw only this region, relative to the widget's corner, for changes inside."""
        self._changing = (region.translate(-self.content_offset),)
        try:
            yield
        finally:
            self._changing = ()

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """Redraw regions; without any, the region of `only`, else the whole widget."""
        changed = regions or self._changing
        return super().refresh(*changed, repaint=repaint, layout=layout, recompose=recompose)


class FixedInput(Input):
    """An input whose size its container sets."""

    virtual_size: reactive[Size] = reactive(Size(0, 0))
    """Asks for no layout, which took 10 ms of every key."""


class Paragraph(Static):
    """Text that asks for a layout only when it takes more lines or fewer than before."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show(self, text: Content) -> None:
        """Show another text."""
        width, height = self.size
        self.update(text, layout=not width or text.get_height({}, width) != height)
