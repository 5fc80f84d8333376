"""A screen of its own for work that takes a while: a status line, a bar, and Esc that stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.screen import ScreenResultType
from textual.widget import Widget
from textual.widgets import ProgressBar, Static
from textual.worker import Worker, get_current_worker

from steerlab.core.display import printable
from steerlab.tui.help import Helpful
from steerlab.tui.notices import Notice, reporting_errors
from steerlab.tui.workers import is_stopping, stop


class WorkScreen(Helpful[ScreenResultType]):
    """One piece of work at a time, in a thread.

    Subclasses compose `state()`, start work with `begin`, and show its result in `ended`.
    """

    DEFAULT_CSS = """
    WorkScreen #title { height: 1; padding: 0 1; color: $text-accent; text-style: bold; }
    WorkScreen #title { text-overflow: ellipsis; text-wrap: nowrap; }
    WorkScreen #state { height: 1; padding: 0 1; }
    WorkScreen #status { width: 1fr; height: 1; color: $text-muted; }
    WorkScreen #status { text-overflow: ellipsis; text-wrap: nowrap; }
    WorkScreen #status.problem { color: $text-warning; }
    WorkScreen #progress { width: auto; height: 1; padding-left: 2; }
    WorkScreen #progress Bar { width: 20; }
    WorkScreen.-narrow #progress Bar { width: 8; }
    """

    @dataclass
    class Ended(Message):
        """The work ended. result: None if it failed, which was already reported."""

        result: Any

    _worker: Worker[None] | None = None

    def title_line(self, what: str, about: str) -> Static:
        """What the screen is for, as its first line."""
        return Static(Content.assemble(what, (f"  {about}", "not bold dim")), id="title")

    def state(self, *first: Widget) -> ComposeResult:
        """The status line and the bar, after other widgets."""
        with Horizontal(id="state"):
            yield from first
            yield Static(id="status", markup=False)
            yield ProgressBar(show_percentage=False, id="progress")

    def on_mount(self) -> None:
        """Show no bar before something runs."""
        self.query_one("#progress").display = False

    @property
    def busy(self) -> bool:
        """Whether work is going on."""
        return self._worker is not None

    def begin(self, run: Callable[[Worker[None]], object]) -> None:
        """Start work, whose result comes to `ended`."""
        self._show_progress(0, None)
        self._worker = self._run(run)

    @work(thread=True, group="work", exit_on_error=False)
    def _run(self, run: Callable[[Worker[None]], object]) -> None:
        result = None
        try:
            with reporting_errors(self):
                result = run(get_current_worker())
        finally:
            self.post_message(self.Ended(result))

    def ended(self, result: Any, *, stopped: bool) -> None:
        """Show the result of the work. stopped: it was told to stop."""

    @on(Ended)
    def _end(self, event: Ended) -> None:
        stopped = self.busy and not self._can_stop()
        self._worker = None
        self.query_one("#progress").display = False
        self.ended(event.result, stopped=stopped)

    def post_status(self, text: str) -> None:
        """Show a line as the status; from a worker."""
        self.call_later(self._show_status, text)

    def _show_status(self, text: str) -> None:
        if not self.busy or self._can_stop():  # "stopping …" stays
            self._say(text)

    @on(Notice)
    def keep_notice(self, event: Notice) -> None:
        """Show a line as the status; the app too if it has no room, or work will replace it."""
        self._say(event.text, problem=event.severity != "information")
        fits = cell_len(event.text) <= self.query_one("#status").size.width
        event.shown = fits and not self.busy

    def _say(self, text: str, *, problem: bool = False) -> None:
        """Show a line as the status."""
        status = self.query_one("#status", Static)
        status.set_class(problem, "problem")
        status.update(printable(text))

    def post_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the work is, and a line as the status; from a worker."""
        self.call_later(self._advance, done, total, text)

    def _advance(self, done: int, total: int, text: str) -> None:
        if self._can_stop():
            self._show_progress(done, total)
            self._say(text)

    def _show_progress(self, done: int, total: int | None) -> None:
        """Move the bar; without a total it only says that something runs."""
        bar = self.query_one("#progress", ProgressBar)
        bar.update(total=total, progress=done)
        bar.display = True

    def _can_stop(self) -> bool:
        """Whether something runs that was not told to stop yet."""
        return self._worker is not None and not is_stopping(self._worker)

    def action_leave(self) -> None:
        """Stop what runs; when nothing runs, or at the second time, go back."""
        if self._worker is not None and self._can_stop():
            stop(self._worker)
            self._say("stopping …")
        else:
            self.leave(None)

    def leave(self, result: ScreenResultType | None) -> None:
        """Close, with any dialog over it: the work may end while help is open."""
        self.pop_until_active()
        self.dismiss(result)
