"""The health screen: what the store holds, what is wrong with it, what it needs not, a backup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Footer, ProgressBar, Static
from textual.worker import get_current_worker

from steerlab.core.display import count
from steerlab.registry.transfer.backup import proposal
from steerlab.registry.upkeep.gc import Garbage
from steerlab.tui.dialogs import BackupDialog, Confirm
from steerlab.tui.health import jobs
from steerlab.tui.health.jobs import JobProgress, Outcome
from steerlab.tui.health.report import Entry, Report
from steerlab.tui.help import HELP_KEY
from steerlab.tui.notices import Notice, reporting_errors
from steerlab.tui.work_screen import WorkScreen

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab


class HealthScreen(WorkScreen[None]):
    """Look, verify, collect garbage, back up; one of them at a time, each in a thread."""

    CSS_PATH = "health.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012 - as above
    HELP = """\
How the store is. v reads every payload and recomputes every composition, and says of what is \
wrong what to type; g lists the files that no vector needs, and d then deletes them; b writes all \
of the store to one file. Esc stops what runs, or goes back."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "verify", "verify"),
        HELP_KEY,
        Binding("g", "collect", "gc dry run"),
        Binding("d", "delete", "delete"),
        Binding("b", "backup", "back up"),
        Binding("escape", "leave", "stop, back"),
    ]

    @dataclass
    class Looked(Message):
        """What is known of the store at once."""

        facts: Sequence[Entry]
        outcome: Outcome

    @dataclass
    class Moved(Message):
        """How far the work is; entries: what was found so far, if anything was."""

        done: int
        total: int
        entries: Sequence[Entry]

    @dataclass
    class Ended(Message):
        """The work is over; None if it failed, which was told."""

        outcome: Outcome | None

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.garbage: Sequence[Garbage] = ()
        self._doing = ""
        self._answered = False

    def compose(self) -> ComposeResult:
        """What there is, what was found, and what goes on."""
        with VerticalScroll(id="body") as body:
            body.border_title = "health"
            yield Report(id="facts")
            yield Report(id="report")
        with Horizontal(id="state"):
            yield Static(id="status", markup=False)
            yield ProgressBar(show_percentage=False, id="progress")
        yield Footer()

    def on_mount(self) -> None:
        """Begin with what is known at once."""
        self.query_one("#progress").display = False
        self.query_one("#body").focus()
        self._say("looking at the store …")
        self.look()

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        return self._worker is not None

    @property
    def report(self) -> Report:
        """What was found."""
        return self.query_one("#report", Report)

    # at a glance

    @work(thread=True, exclusive=True, group="look")
    def look(self) -> None:
        """What doctor and du say without verifying."""
        with reporting_errors(self):
            store = self.lab.store
            self.post_message(self.Looked(jobs.facts(store), jobs.glance(store)))

    @on(Looked)
    def _show_looked(self, event: Looked) -> None:
        self.query_one("#facts", Report).show(event.facts)
        if not self._answered:  # else what was asked for since stays
            self._show(event.outcome)

    # work

    def _begin(self, doing: str, run: Callable[[JobProgress], Outcome]) -> None:
        self._answered, self._doing, self.garbage = True, doing, ()
        self._say(f"{doing} …")
        bar = self.query_one("#progress", ProgressBar)
        bar.update(total=None, progress=0)
        bar.display = True
        self._worker = self.run_job(run)
        self.refresh_bindings()

    @work(thread=True, group="job", exit_on_error=False)
    def run_job(self, run: Callable[[JobProgress], Outcome]) -> None:
        """Ends in Ended, whatever happens."""
        outcome = None
        try:
            with reporting_errors(self):
                worker = get_current_worker()
                outcome = run(JobProgress(self.lab.store, lambda: worker.is_cancelled, self._tell))
        finally:
            self.post_message(self.Ended(outcome))

    def _tell(self, done: int, total: int, found: Sequence[Entry]) -> None:
        self.post_message(self.Moved(done, total, found))

    @on(Moved)
    def _show_moved(self, event: Moved) -> None:
        if self._worker is None or self._worker.is_cancelled:
            return
        self.query_one(ProgressBar).update(total=event.total, progress=event.done)
        self._say(f"{self._doing}: {event.done:,} of {event.total:,}")
        if event.entries:
            self.report.show(event.entries)

    @on(Ended)
    def _end(self, event: Ended) -> None:
        self._worker = None
        self.query_one("#progress").display = False
        if event.outcome is not None:
            self._show(event.outcome)
        self.refresh_bindings()
        self.look()

    def _show(self, outcome: Outcome) -> None:
        self.garbage = outcome.garbage
        if outcome.entries is not None:
            self.report.show(outcome.entries)
            self.call_after_refresh(self._bring_up)
        self._say(outcome.text, problem=outcome.problem)

    def _bring_up(self) -> None:
        """What was found begins in sight; where there is room, what the store holds stays too."""
        if self.is_mounted:
            body = self.query_one("#body", VerticalScroll)
            if self.has_class("-short"):
                body.scroll_to_widget(self.report, animate=False, top=True)
            else:
                body.scroll_home(animate=False)

    def action_verify(self) -> None:
        """Check every payload and recompute every composition."""
        self.report.show(())
        self._begin("verifying", jobs.verify)

    def action_collect(self) -> None:
        """List the files that no vector needs."""
        self._begin("looking for garbage", jobs.collect)

    def action_delete(self) -> None:
        """Delete what was listed, once that is confirmed."""
        listed = self.garbage
        lost = sum(len(file.holds) for file in listed)
        question = f"Delete {jobs.totalled(listed)}? This can't be undone."
        if lost:
            question += (
                f"\n{count(lost, 'vector')} in them may be wanted: `steerlab rebuild` takes in "
                "what the registry does not know."
            )

        def delete(sure: bool | None) -> None:
            if sure:
                self._begin("deleting", partial(jobs.delete, listed))

        self.app.push_screen(Confirm(question, "Delete"), delete)

    def action_backup(self) -> None:
        """Write the whole store to one file."""

        def back_up(path: Path | None) -> None:
            if path is not None:
                self._begin("backing up", partial(jobs.back_up, path))

        self.app.push_screen(BackupDialog(proposal(self.lab.store.path)), back_up)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """One thing at a time; what can be deleted is listed first."""
        if action == "delete":
            return bool(self.garbage) and not self.busy
        if action in ("verify", "collect", "backup"):
            return None if self.busy else True
        return True

    # telling

    @on(Notice)
    def keep_notice(self, event: Notice) -> None:
        """Problems stay readable here, after the app's notification has gone."""
        self._say(event.text, problem=event.severity != "information")
