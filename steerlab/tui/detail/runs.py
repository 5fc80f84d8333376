"""Runs: texts generated with a vector, to read, rate and restore in the lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import DataTable, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.detail.pane import Pane
from steerlab.tui.dialogs import Confirm
from steerlab.tui.generation_text import headings, rating_text
from steerlab.tui.notices import reporting_errors

if TYPE_CHECKING:
    from steerlab.core.run import Generation, Run
    from steerlab.registry import Summary

MOST = 100
"""Runs listed, the newest first."""

EMPTY = "No runs of this version yet. ctrl+g generates texts and stores them here."


class Runs(Pane):
    """A list of runs, and the texts of the one under the cursor."""

    HELP = """\
Texts generated with this vector. Enter restores a run and its settings in the lab, * rates the \
next text as the best, delete deletes the run."""

    DEFAULT_CSS = """
    Runs DataTable { height: auto; max-height: 50%; background: transparent; }
    Runs Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("asterisk", "rate", "rate the next text as the best"),
        Binding("delete", "forget", "delete the run"),
    ]

    can_focus = False

    def compose(self) -> ComposeResult:
        """The list and the texts."""
        self.runs: dict[str, Run] = {}
        table: DataTable[Text] = DataTable(cursor_type="row", id="kept")
        table.add_columns("when", "strength", "prompt", "steered text")
        yield table
        yield Static(id="texts", markup=False)

    def read(self, summary: Summary, worker: Worker[None]) -> Sequence[Run]:
        """Read the newest first."""
        return self.lab.store.runs.list(summary.qualified, limit=MOST)

    def draw(self, found: Sequence[Run]) -> None:
        """Fill the list; the cursor keeps its place."""
        table = self.query_one(DataTable)
        place = table.cursor_row
        self.runs = {str(run.id): run for run in found}
        table.clear()
        for key, run in self.runs.items():
            table.add_row(*(Text(cell, no_wrap=True) for cell in _cells(run)), key=key)
        table.display = bool(found)
        table.move_cursor(row=min(place, max(0, len(found) - 1)))
        if not found:
            self.query_one("#texts", Static).update(EMPTY)

    @property
    def current(self) -> Run | None:
        """The run under the cursor."""
        table = self.query_one(DataTable)
        if not self.runs or not table.is_valid_row_index(table.cursor_row):
            return None
        return list(self.runs.values())[table.cursor_row]

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        run = self.runs.get(event.row_key.value or "") if event.row_key is not None else None
        if run is not None:
            self.query_one("#texts", Static).update(texts(run))

    @on(DataTable.RowSelected)
    def _chosen(self, event: DataTable.RowSelected) -> None:
        event.stop()
        run = self.runs.get(event.row_key.value or "")
        if run is not None:
            self.post_message(self.Replay(run))

    def action_rate(self) -> None:
        """Rate the next text as the best; after the last, clear the rating."""
        run = self.current
        if run is not None:
            following = 0 if run.best is None else run.best + 1
            best = following if following < len(run.generations) else None
            self._change(lambda: self.lab.store.runs.rate(run.id or 0, best))

    def action_forget(self) -> None:
        """Ask, then delete the run."""
        run = self.current
        if run is None:
            return

        def forget(sure: bool | None) -> None:
            if sure:
                self._change(lambda: self.lab.store.runs.remove(run.id or 0))

        self.app.push_screen(Confirm(f"Delete run {run.id} and its texts?", "Delete"), forget)

    @work(thread=True, group="edit")
    def _change(self, change: Callable[[], object]) -> None:
        with reporting_errors(self):
            change()
            if self.summary is not None:
                self.post_message(self.Changed(self.summary.qualified))


def _cells(run: Run) -> list[str]:
    steered = [g for g in run.generations if g.coefficient]
    strongest = max(steered, key=lambda g: (abs(g.coefficient), g.coefficient), default=None)
    text = strongest.text if strongest is not None else ""
    return [
        ("★ " if run.best is not None else "") + run.created[5:16].replace("T", " "),
        " ".join(map(_strength, steered)) or "-",
        printable(run.prompt[:24]),
        printable(" ".join(text.split())[:60]),
    ]


def _strength(generation: Generation) -> str:
    dose = generation.dose
    shown = f"c {generation.coefficient:+.3g}" if dose is None else f"{dose:+.2g}"
    return shown if generation.rating is None else f"{shown} ({generation.rating}/5)"


def texts(run: Run) -> Content:
    """The texts of a run under their headings."""
    parts = [Content.styled(printable(f"{run.expression}   run {run.id} on {run.model}"), "bold")]
    titles = headings(run)
    for index, generation in enumerate(run.generations):
        rated = rating_text(generation.rating, best=index == run.best)
        parts.append(Content.styled(printable(f"── {titles[index]}  {rated}"), "$text-accent"))
        prompt = printable(run.prompt, newlines=True)
        written = printable(generation.text, newlines=True)
        parts.append(Content.assemble((prompt, "dim"), written))
    return Content("\n").join(parts)
