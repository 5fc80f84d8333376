"""The browser: a filter over the table of vectors, updated when the store changes."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Input

from steerlab.core.display import count, some
from steerlab.core.recipe import check_name
from steerlab.errors import NotFound
from steerlab.tui.dialogs import Confirm, TextDialog
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import FixedInput, Frame
from steerlab.tui.workbench.table import VectorTable
from steerlab.tui.workers import answer

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.lab.lab import Lab
    from steerlab.registry import Summary

FOLLOW = 1.0
"""Seconds between checks for changes by another process."""


class Browser(Frame):
    """The vectors of a store, filtered and sorted; reads in threads, so that it never blocks."""

    HELP = """\
The vectors of the store. / filters them by name, tags, prompts and note. Enter puts a vector on \
the steer line, after a trailing operator if there is one. Space marks several. The details \
follow the cursor."""

    @dataclass
    class Listed(Message):
        """How many vectors pass the filter."""

        found: int
        filtered: bool

    @dataclass
    class Surveyed(Message):
        """All names, sorted, and whether vectors of several models have them."""

        names: Sequence[str]
        several_models: bool

    @dataclass
    class StoreChanged(Message):
        """This process or another changed the store."""

    @dataclass
    class Located(Message):
        """The vector found is not among those listed."""

        summary: Summary

    def __init__(self, lab: Lab, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self._stamp: Hashable = None
        self._filtered = ""
        self._searching = False
        self._sought: Summary | None = None

    def compose(self) -> ComposeResult:
        """The filter, then the table."""
        hint = "/ name, tag, prompt, note"
        yield FixedInput(placeholder=hint, id="filter", compact=True)
        yield VectorTable(id="table")

    def on_mount(self) -> None:
        """Paint first, then read the store in a thread."""
        self.border_title = "vectors"
        self.call_after_refresh(self._search)

    def _begin_to_follow(self) -> None:
        """Start after the first result: a stamp before it would import the registry."""
        self._stamp = self.lab.store.listing.stamp()
        self.survey()
        self.set_interval(FOLLOW, self.follow)

    @property
    def table(self) -> VectorTable:
        """The table."""
        return self.query_one(VectorTable)

    @property
    def filter(self) -> Input:
        """The filter's input."""
        return self.query_one("#filter", Input)

    def follow(self) -> None:
        """Read the store again if it has changed."""
        stamp = self.lab.store.listing.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._search()
        self.survey()
        self.workers.cancel_group(self, "rows")  # what they have read is old
        self.table.refresh_rows()
        self.post_message(self.StoreChanged())

    @on(Input.Changed)
    def _search(self) -> None:
        self._searching = True
        self.search(self.filter.value, *self.table.sort)

    @work(thread=True, exclusive=True, group="search")
    def search(self, text: str, sort: str, reverse: bool) -> None:
        """Find the vectors that pass the filter."""
        with reporting_errors(self):
            ids = self.lab.store.listing.matching(text, sort=sort, reverse=reverse)
            answer(self, self._show_found, text, ids)

    @work(thread=True, exclusive=True, group="survey")
    def survey(self) -> None:
        """Read the names for completion."""
        with reporting_errors(self):
            store = self.lab.store
            found = self.Surveyed(store.names(), len(store.models()) > 1)
            answer(self, self.post_message, found)
        if not gc.get_freeze_count():
            gc.freeze()  # searching it for garbage took 100 ms of some keys

    @on(Surveyed)
    def _show_surveyed(self, event: Surveyed) -> None:
        self.table.show_model = event.several_models

    def _show_found(self, text: str, ids: Sequence[int]) -> None:
        if self._stamp is None:
            self._begin_to_follow()
        self._searching = False
        self.table.show(ids)
        if text and text != self._filtered:
            self.table.cursor_row = 0  # Enter takes the best match
        self._filtered = text
        with self.border_only(-1):
            self.border_subtitle = f"{len(ids):,} found" if text else f"{len(ids):,}"
        self.post_message(self.Listed(len(ids), bool(text)))
        if self._sought is not None:
            self._go_to(self._sought)

    @on(Input.Submitted)
    def _leave_filter(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.set_focus(self.table)

    @on(VectorTable.SortBy)
    def _order(self, event: VectorTable.SortBy) -> None:
        self.table.sort = (event.column, event.reverse)
        self._search()

    @on(VectorTable.Wanted)
    def _wanted(self, event: VectorTable.Wanted) -> None:
        self.read(event.ids)

    @work(thread=True, group="rows")
    def read(self, ids: Sequence[int]) -> None:
        """Read the rows that the table needs."""
        with reporting_errors(self):
            found = self.lab.store.listing.summaries(ids)
            calibrated: Mapping[int, Calibration] = {}
            with reporting_errors(self):  # a damaged calibration hides no vector
                calibrated = self.lab.store.results.calibrated(found)
            answer(self, self._fill, found, ids, calibrated)

    def _fill(
        self,
        summaries: Sequence[Summary],
        asked: Sequence[int],
        calibrated: Mapping[int, Calibration],
    ) -> None:
        self.table.fill(summaries, asked, calibrated)

    @work(thread=True, exclusive=True, group="locate")
    def locate(self, ref: str, *, quietly: bool = False) -> None:
        """Move the cursor to the vector of a ref. quietly: it may be gone."""
        with reporting_errors(self), suppress(NotFound) if quietly else nullcontext():
            record = self.lab.store.record(ref)
            found = self.lab.store.list(name=record.name, model=record.model, every_version=True)
            here = next(s for s in found if s.version == record.version)
            answer(self, self._go_to, here)

    def _go_to(self, summary: Summary) -> None:
        listed = self.table.go_to(summary.id)
        # a vector found before the search that is to list it: the search goes to it
        self._sought = summary if not listed and self._searching else None
        if not listed and not self._searching:
            self.post_message(self.Located(summary))

    def name_of(self, summary: Summary) -> str:
        """The vector's name, qualified with its model if the store has several."""
        return f"{summary.model}.{summary.name}" if self.table.show_model else summary.name

    # changing the store

    def action_rename(self) -> None:
        """Ask for a new name for all versions of the vector."""
        summary = self.table.current
        if summary is not None:

            def rename(new: str | None) -> None:
                if new and new != summary.name:
                    self._rename(f"{summary.model}.{summary.name}", new)

            about = ["Renames all versions; compositions follow."]
            ask = TextDialog("rename", "Rename", "name", check_name, summary.name, about=about)
            self.app.push_screen(ask, rename)

    def action_remove(self) -> None:
        """Remove the vector under the cursor, or the marked ones after asking: z undoes it."""
        current = [self.table.current] if self.table.current is not None else []
        chosen = list(self.table.marked) or current
        if not chosen:
            return
        refs = [s.qualified for s in sorted(chosen, key=lambda s: s.created, reverse=True)]

        def remove(sure: bool | None) -> None:
            if sure:
                self._remove(refs)

        if len(refs) == 1:
            self._remove(refs)
        else:
            question = f"Delete {some([summary.ref for summary in chosen])}? z brings them back."
            self.app.push_screen(Confirm(question, "Delete"), remove)

    @work(thread=True, group="change")
    def _rename(self, old: str, new: str) -> None:
        with self._changing():
            notify(self, f"renamed {old} to {self.lab.store.rename(old, new)}")

    @work(thread=True, group="change")
    def _remove(self, refs: Sequence[str]) -> None:
        with self._changing():
            self.lab.store.remove(refs)
            notify(self, f"deleted {some(list(refs))}: z undoes it")

    @work(thread=True, group="change")
    def action_undo(self) -> None:
        """Undo the last change of names, tags and notes, or the last removal."""
        with self._changing():
            notify(self, f"undone: {self.lab.store.changes.undo().text}")

    @work(thread=True, exclusive=True, group="starter")
    def action_starter(self) -> None:
        """Make the starter vectors on the embedded model: love, anger, joy and others."""
        from steerlab.lab import starter

        with self._changing():
            notify(self, "making the starter vectors: loading smollm2 …")
            if self.lab.source is None:
                self.lab.source = "smollm2"
            made = starter.ensure(
                self.lab, made=lambda name: self.app.call_from_thread(self.follow)
            )
            notify(self, f"made {count(len(made), 'starter vector')}")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Report errors of a worker, then show what it changed in the store."""
        with reporting_errors(self):
            try:
                yield
            finally:
                self.app.call_from_thread(self.follow)
