"""Drawing a part: while a model writes, every line that is not drawn anew is its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from textual.geometry import Region
from textual.widget import Widget


class Partly(Widget):
    """A widget that may be changed without all of it being drawn anew."""

    _changing: tuple[Region, ...] = ()

    @contextmanager
    def only(self, region: Region) -> Iterator[None]:
        """What changes inside changes this region alone; it counts from the widget's corner."""
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
        """Draw regions anew; without any, all of the widget, or what alone changes."""
        changed = regions or self._changing
        return super().refresh(*changed, repaint=repaint, layout=layout, recompose=recompose)
