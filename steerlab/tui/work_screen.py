"""A screen of its own for work that takes a while: a status line, a bar, and Esc that stops it."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on
from textual.message import Message
from textual.screen import ScreenResultType
from textual.widgets import ProgressBar, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.help import Helpful
from steerlab.tui.notices import Notice


class WorkScreen(Helpful[ScreenResultType]):
    """One piece of work at a time, in a worker; `#status` and `#progress` show its state."""

    @dataclass
    class Status(Message):
        """A line for the status, from a worker."""

        text: str

    _worker: Worker[None] | None = None

    def on_mount(self) -> None:
        """Show no bar before something runs."""
        self._hide_progress()

    @on(Status)
    def _show_status(self, event: WorkScreen.Status) -> None:
        self._say(event.text)

    @on(Notice)
    def keep_notice(self, event: Notice) -> None:
        """Keep a problem readable after the app's notification has gone."""
        self._say(event.text, problem=event.severity != "information")

    def _say(self, text: str, *, problem: bool = False) -> None:
        status = self.query_one("#status", Static)
        status.set_class(problem, "problem")
        status.update(printable(text))

    def _show_progress(self, done: int = 0, total: int | None = None) -> None:
        """Move the bar; without a total it only says that something runs."""
        bar = self.query_one("#progress", ProgressBar)
        bar.update(total=total, progress=done)
        bar.display = True

    def _hide_progress(self) -> None:
        self.query_one("#progress").display = False

    def _can_stop(self) -> bool:
        """Whether something runs that was not told to stop yet."""
        return self._worker is not None and not self._worker.is_cancelled

    def action_leave(self) -> None:
        """Stop what runs; when nothing runs, or at the second time, go back."""
        if self._can_stop():
            assert self._worker is not None
            self._worker.cancel()
            self._say("stopping …")
        else:
            self.leave(None)

    def leave(self, result: ScreenResultType | None) -> None:
        """Close, with any dialog over it: the work may end while help is open."""
        self.pop_until_active()
        self.dismiss(result)
