"""The health screen: verify the store, collect its garbage, back it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.worker import Worker

from steerlab.core.display import count
from steerlab.registry.transfer.backup import proposal
from steerlab.registry.upkeep.gc import Garbage
from steerlab.tui.dialogs import Confirm, TextDialog
from steerlab.tui.footer import KeyFooter
from steerlab.tui.health import jobs
from steerlab.tui.health.jobs import JobProgress, Outcome
from steerlab.tui.health.report import Entry, Report
from steerlab.tui.help import HELP_KEY
from steerlab.tui.notices import reporting_errors
from steerlab.tui.work_screen import WorkScreen
from steerlab.tui.workers import answer, is_stopping

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab


class HealthScreen(WorkScreen[None]):
    """Verify, collect garbage, delete it, back up: one job at a time, each in a thread."""

    CSS_PATH = "health.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012 - as above
    HELP = """\
Checks and maintains the store. v verifies: it reads every payload, recomputes every composition, \
and shows the command that fixes each problem. g lists files that no vector needs; d then deletes \
them. b backs up the whole store to one file. Esc stops a job, or goes back."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "verify", "verify", tooltip="verify every vector"),
        HELP_KEY,
        Binding("g", "collect", "gc dry run", tooltip="list files that no vector needs"),
        Binding("d", "delete", "delete", tooltip="delete files that no vector needs"),
        Binding("b", "backup", "back up", tooltip="back up the store…"),
        Binding("escape", "leave", "stop / back", tooltip="stop, or go back"),
    ]

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.garbage: Sequence[Garbage] = ()
        self._answered = False

    def compose(self) -> ComposeResult:
        """Facts, report, and a status line."""
        with VerticalScroll(id="body") as body:
            body.border_title = "health"
            yield Report(id="facts")
            yield Report(id="report")
        yield from self.state()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show what needs no verification."""
        self.query_one("#body").focus()
        self._say("checking the store …")
        self.look()

    @property
    def report(self) -> Report:
        """The report of the last job."""
        return self.query_one("#report", Report)

    # without verifying

    @work(thread=True, exclusive=True, group="look")
    def look(self) -> None:
        """Read what `doctor` and `du` show without verifying."""
        with reporting_errors(self):
            store = self.lab.store
            answer(self, self._show_looked, jobs.facts(store), jobs.quick_check(store))

    def _show_looked(self, facts: Sequence[Entry], outcome: Outcome) -> None:
        self.query_one("#facts", Report).show(facts)
        if not self._answered:  # otherwise keep the report of a job
            self._show(outcome)

    # work

    def _start(self, doing: str, job: Callable[[JobProgress], Outcome]) -> None:
        self._answered, self.garbage = True, ()
        self._say(f"{doing} …")

        def run(worker: Worker[None]) -> Outcome:
            def report(done: int, total: int, found: Sequence[Entry]) -> None:
                self.post_progress(done, total, f"{doing}: {done:,} of {total:,}")
                self.call_later(self._show_found, found)

            return job(JobProgress(self.lab.store, lambda: is_stopping(worker), report))

        self.begin(run)
        self.refresh_bindings()

    def _show_found(self, found: Sequence[Entry]) -> None:
        if found and self._can_stop():
            self.report.show(found)

    def ended(self, result: Outcome | None, *, stopped: bool) -> None:
        """Show the outcome, and look at the store again."""
        if result is not None:
            self._show(result)
        self.refresh_bindings()
        self.look()

    def _show(self, outcome: Outcome) -> None:
        self.garbage = outcome.garbage
        if outcome.entries is not None:
            self.report.show(outcome.entries)
            self.call_after_refresh(self._bring_up)
        self._say(outcome.text, problem=outcome.problem)

    def _bring_up(self) -> None:
        """Scroll to the report on a short terminal; show the facts too where there is room."""
        if self.is_mounted:
            body = self.query_one("#body", VerticalScroll)
            if self.has_class("-short"):
                body.scroll_to_widget(self.report, animate=False, top=True)
            else:
                body.scroll_home(animate=False)

    def action_verify(self) -> None:
        """Check every payload and recompute every composition."""
        self.report.show(())
        self._start("verifying", jobs.verify)

    def action_collect(self) -> None:
        """List the files that no vector needs."""
        self._start("looking for garbage", jobs.collect)

    def action_delete(self) -> None:
        """Ask, then delete the listed files."""
        listed = self.garbage
        lost = sum(len(file.holds) for file in listed)
        question = f"Delete {jobs.totalled(listed)}? This can't be undone."
        if lost:
            question += (
                f"\nThey contain {count(lost, 'vector')}. `steerlab rebuild` adds vectors that the "
                "registry does not know."
            )

        def delete(sure: bool | None) -> None:
            if sure:
                self._start("deleting", partial(jobs.delete, listed))

        self.app.push_screen(Confirm(question, "Delete"), delete)

    def action_backup(self) -> None:
        """Ask for a file, then back up the whole store to it."""

        def back_up(path: Path | None) -> None:
            if path is not None:
                self._start("backing up", partial(jobs.back_up, path))

        about = "Saves vectors, runs, sweeps and measurements to one file. The store stays usable."
        proposed = str(proposal(self.lab.store.path))
        self.app.push_screen(
            TextDialog(
                "back up the store", "Back up", "file", jobs.backup_file, proposed, about=[about]
            ),
            back_up,
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow one job at a time, and deleting only what is listed."""
        if action == "delete":
            return bool(self.garbage) and not self.busy
        if action in ("verify", "collect", "backup"):
            return None if self.busy else True
        return True
