"""Neighbours: stored vectors in the same or the opposite direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import DataTable, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.core.notation import span
from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.registry import Summary
    from steerlab.registry.neighbours import Neighbour

BAR = 10  # width of cosine 1 in cells, both signs together


class Neighbours(Pane):
    """The nearest vectors; Enter goes to one."""

    HELP = """\
The vectors of the same model with the largest cosines, opposites too. Enter goes there."""

    DEFAULT_CSS = """
    Neighbours DataTable { height: auto; background: transparent; }
    """

    can_focus = False

    def compose(self) -> ComposeResult:
        """The table, and a line for progress or an empty result."""
        table: DataTable[Text] = DataTable(cursor_type="row", id="near")
        table.add_columns("vector", "cosine", "", "layers")
        yield table
        yield Static(classes="quiet", markup=False)

    def read(self, summary: Summary, worker: Worker[None]) -> Sequence[Neighbour]:
        """Compare with every vector of the model until the cursor moves on."""
        self.draw_later(summary, "comparing …")

        def progress(done: int, total: int) -> None:
            if done < total and not worker.is_cancelled:
                self.draw_later(summary, f"comparing … {done:,} of {total:,}")

        return self.lab.store.similar(
            summary.qualified, should_stop=lambda: worker.is_cancelled, progress=progress
        )

    def draw(self, found: Sequence[Neighbour] | str) -> None:
        """Show the nearest first; a string is how far the comparison is."""
        quiet, table = self.query_one(Static), self.query_one(DataTable)
        if isinstance(found, str):
            quiet.update(found)
            return
        table.clear()
        for neighbour in found:
            ref = neighbour.ref
            cells = (ref, f"{neighbour.cosine:+.3f}", bar(neighbour.cosine), span(neighbour.layers))
            table.add_row(*(Text(printable(cell)) for cell in cells), key=ref)
        table.display = bool(found)
        alone = "No other vector of this model shares a layer with this one."
        quiet.update("" if found else alone)

    @on(DataTable.RowSelected)
    def _chosen(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.row_key.value is not None:
            self.post_message(self.Jump(event.row_key.value))


def bar(cosine: float) -> str:
    """A cosine as a bar: to the right if positive, to the left if negative."""
    size = round(abs(cosine) * BAR / 2)
    left = "█" * size if cosine < 0 else ""
    right = "█" * size if cosine > 0 else ""
    return f"{left:>{BAR // 2}}│{right:<{BAR // 2}}"
