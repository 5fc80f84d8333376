"""A screen of its own for work that takes a while: a status line, and Esc that stops it."""

from __future__ import annotations

from textual.screen import ScreenResultType
from textual.widgets import Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.help import Helpful


class WorkScreen(Helpful[ScreenResultType]):
    """One piece of work at a time runs in a worker; `#status` says how it stands."""

    _worker: Worker[None] | None = None

    def _say(self, text: str, *, problem: bool = False) -> None:
        status = self.query_one("#status", Static)
        status.set_class(problem, "problem")
        status.update(printable(text))

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
        """Close, with what lies over it: the work may end while its help is read."""
        self.pop_until_active()
        self.dismiss(result)
