"""A heatmap: a table of numbers on colour, with a legend in its border."""

from __future__ import annotations

import math

from rich.style import Style
from rich.text import Text
from textual.color import Color
from textual.content import Content
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from steerlab.plots.values import HeatGrid

COOL, WARM = Color.parse("#3b7dd8"), Color.parse("#e08a1e")
"""Below and above the baseline; colour-blind readers can tell them apart."""

_STEPS = 9  # colours in the legend
_DIM = Style(dim=True)


class Heatmap(DataTable[Text]):
    """Layers down, strengths across; every cell shows its number, so that colour is not needed."""

    HELP = "The metric of each cell. The arrows move, Enter copies the cell to the lab."

    DEFAULT_CSS = """
    Heatmap { height: auto; background: transparent; scrollbar-size: 1 1; }
    Heatmap > .datatable--header { background: transparent; color: $text-muted; }
    Heatmap > .datatable--cursor, Heatmap:focus > .datatable--cursor { text-style: bold reverse; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="cell", cell_padding=0)
        self.grid = HeatGrid("", "", (), (), ())
        self._wide = 0

    def show(self, grid: HeatGrid) -> None:
        """Show a grid; the cursor keeps its place if it can."""
        before, self.grid = self.grid, grid
        cells = [*grid.columns, *(grid.shown(value) for row in grid.values for value in row)]
        wide = max(map(len, cells), default=0) + 2
        if (before.layers, before.columns, self._wide) != (grid.layers, grid.columns, wide):
            self._wide = wide
            self._lay_out()
        else:
            for row, values in enumerate(grid.values):
                for column, value in enumerate(values):
                    self.update_cell_at(Coordinate(row, column), self._drawn(value))
        self.border_title = self._legend()

    def _lay_out(self) -> None:
        place = self.cursor_coordinate
        self.clear(columns=True)
        for text in self.grid.columns:
            self.add_column(Text(f" {text} ", justify="right"), width=self._wide)
        for layer, values in zip(self.grid.layers, self.grid.values, strict=True):
            self.add_row(*map(self._drawn, values), label=f"layer {layer} ")
        self.cursor_coordinate = place

    def _drawn(self, value: float | None) -> Text:
        share = self.grid.share(value)
        style = _DIM if math.isnan(share) else self._colour(share)
        return Text(f" {self.grid.shown(value)} ", style, justify="right")

    def _colour(self, share: float) -> Style:
        back = self._back(share)
        return Style(color=back.get_contrast_text(1.0).rich_color, bgcolor=back.rich_color)

    def _back(self, share: float) -> Color:
        """The colour of a share, blended into the background of dark and light themes."""
        surface = self.background_colors[1]
        if surface.ansi is not None:  # the terminal's own background: its colour is unknown
            surface = Color.parse("black" if self.app.current_theme.dark else "white")
        return surface.blend(WARM if share > 0 else COOL, abs(share))

    def _legend(self) -> Content:
        """The scale from low to high, and what is measured."""
        low, high = map(self.grid.shown, self.grid.ends)
        first = 0.0 if self.grid.centre is None else -1.0
        shares = (first + (1 - first) * i / (_STEPS - 1) for i in range(_STEPS))
        colours = (("  ", f"on {self._back(share).hex}") for share in shares)
        return Content.assemble(f"{low} ", *colours, f" {high}  {self.grid.title}")
