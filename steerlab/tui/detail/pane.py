"""Pane: the content of one tab, read in a thread while the tab is open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import work
from textual.containers import VerticalScroll
from textual.message import Message
from textual.worker import Worker, get_current_worker

from steerlab.errors import NotFound
from steerlab.tui.notices import reporting_errors
from steerlab.tui.workers import answer

if TYPE_CHECKING:
    from steerlab.core.run import Run
    from steerlab.lab.lab import Lab
    from steerlab.registry import Summary


class Pane(VerticalScroll):
    """The content of a tab. Subclasses implement `read` (in a thread) and `draw` (in the app)."""

    DEFAULT_CSS = """
    Pane { scrollbar-size-vertical: 1; }
    Pane .quiet { color: $text-muted; }
    """

    @dataclass
    class Jump(Message):
        """Go to another vector."""

        ref: str

    @dataclass
    class Replay(Message):
        """Restore a stored run in the lab."""

        run: Run

    @dataclass
    class Damaged(Message):
        """Whether the vector's payload can't be read."""

        id: int
        damaged: bool

    @dataclass
    class Changed(Message):
        """Tags, note or runs of a vector were changed."""

        ref: str

    def __init__(self, lab: Lab, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self.summary: Summary | None = None

    def show(self, summary: Summary) -> None:
        """Read and draw this vector; a read of another is dropped."""
        self.summary = summary
        self._read(summary)

    @work(thread=True, exclusive=True, group="read")
    def _read(self, summary: Summary) -> None:
        worker = get_current_worker()
        with reporting_errors(self):
            try:
                found = self.read(summary, worker)
            except NotFound:
                if self._is_gone(summary):  # the table will say so
                    return
                raise
            self.draw_later(summary, found)

    def _is_gone(self, summary: Summary) -> bool:
        """Whether the vector was removed from the store."""
        try:
            self.lab.store.record(summary.qualified)
        except NotFound:
            return True
        return False

    def draw_later(self, summary: Summary, found: Any) -> None:
        """Draw this unless another vector is shown by then; from the thread that reads."""
        answer(self, self._draw, summary, found)

    def _draw(self, summary: Summary, found: Any) -> None:
        if summary is self.summary and self.is_whole:
            self.draw(found)

    @property
    def is_whole(self) -> bool:
        """Whether no part is missing: Textual mounts nothing in an app or a widget that closes."""
        return self.is_attached and not (self._pruning or self.app._exit)

    def read(self, summary: Summary, worker: Worker[None]) -> Any:
        """Read from the store; may check whether the worker is cancelled."""
        raise NotImplementedError

    def draw(self, found: Any) -> None:
        """Draw what `read` returned, or the progress that it gave to `draw_later`."""
        raise NotImplementedError
