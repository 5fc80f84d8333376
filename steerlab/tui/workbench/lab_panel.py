"""The lab: expression, prompt, strength, and the generated texts."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widgets import Input
from textual.worker import Worker, get_current_worker

from steerlab.core.display import printable
from steerlab.errors import SteerlabError
from steerlab.lab.operating_point import beyond_safe
from steerlab.tui.dialogs import TextDialog
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.frames import Frames
from steerlab.tui.generation_text import headings, side_by_side
from steerlab.tui.model_loading import load_model
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import Frame
from steerlab.tui.setup import Setup, setup_of
from steerlab.tui.workbench.generation import check, keep_run, settings_of
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.settings import Settings
from steerlab.tui.workbench.texts import Texts
from steerlab.tui.workbench.throughput import Throughput
from steerlab.tui.workers import is_stopping, stop

if TYPE_CHECKING:
    from steerlab.core.audit import AuditedText
    from steerlab.core.run import Run
    from steerlab.core.setting import Setting
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

FRAMES = 10
"""How often a second growing texts are drawn."""

LEGEND = "dose: length of c × vector relative to the residual stream"


class LabPanel(Frame):
    """Expression, prompt, strength and texts; generates in one worker at a time."""

    HELP = """\
Try a vector: an expression, a prompt, a strength, and the model's texts without and with the \
vector. ctrl+g generates, Esc stops, ctrl+o sets layers, sampling and seed."""

    @dataclass
    class Finished(Message):
        """The worker ended. run: as stored, None if nothing was. audits: of each text."""

        run: Run | None = None
        audits: Sequence[AuditedText | None] = ()

    def __init__(self, lab: Lab, setup: Setup, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self._first = setup
        self.run: Run | None = None
        self._writer: Worker[None] | None = None
        self._soon = False

    def compose(self) -> ComposeResult:
        """Three lines of settings, then the texts."""
        yield Settings(self.lab, self._first, id="settings")
        yield Texts()

    def on_mount(self) -> None:
        """Show a legend."""
        self._say(LEGEND)

    # settings

    @property
    def settings(self) -> Settings:
        """The lines above the texts."""
        return self.query_one(Settings)

    @property
    def setup(self) -> Setup:
        """All settings as one value."""
        return self.settings.setup

    def use(self, setup: Setup) -> None:
        """Apply all settings."""
        self.settings.use(setup)

    @on(Settings.Changed)
    def _title(self) -> None:
        self.border_title = Content(printable(f"lab · {self.settings.options.summary()}"))

    @on(Settings.Agreed)
    def _go_on(self) -> None:
        """Generate what was asked for before the expression was checked."""
        if self._soon:
            self._soon = False
            self.generate()

    def replay(self, run: Run) -> None:
        """Restore the settings and texts of a stored run."""
        self.use(setup_of(run))
        self.run = run
        texts = self.query_one(Texts)
        plain = [i for i, g in enumerate(run.generations) if not g.coefficient]
        texts.begin(
            headings(run), run.sampling.shown(run.prompt), baseline=plain[0] if plain else None
        )
        for index, generation in enumerate(run.generations):
            texts.write(index, generation.text)
        texts.finish()
        texts.show_ratings(run)
        self._say(f"run {run.id}")

    def action_audit(self) -> None:
        """Show which tokens were changed, and how far, in place of the texts; or the texts."""
        self.query_one(Texts).toggle_audit()

    def action_model(self) -> None:
        """Choose the model that generates."""
        if not self.say_if_busy():
            about = ["smollm2, a hub id or a directory; loads on first use."]
            if stored := [model.identity.source for model in self.lab.store.models()]:
                about.append(f"The vectors were made on {', '.join(stored)}.")
            now, empty = self.lab.source or "", "the model of each vector"
            ask = TextDialog("model", "Use", "model", str, now, about=about, hint=empty)
            self.app.push_screen(ask, self._take_model)

    def _take_model(self, source: str | None) -> None:
        if source is not None and (source or None) != self.lab.source:
            self.lab.use(source or None)
            notify(self, f"generating with {source or 'the model of each vector'} from now on")

    def focus_texts(self) -> None:
        """Focus the last text, which is a steered one."""
        self.query_one(Texts).columns[-1].focus()

    # generating

    @property
    def busy(self) -> bool:
        """Whether the model is loading or generating, or about to."""
        return self._writer is not None or self._soon

    def say_if_busy(self) -> bool:
        """Whether it is busy; then say so."""
        if self.busy:
            notify(self, "still generating: Esc stops it", "warning")
        return self.busy

    @on(Prompt.Submitted)
    @on(Input.Submitted, "#expression")
    def generate(self) -> None:
        """Generate the texts, unless that is already going on."""
        if self.say_if_busy():
            return
        if self.query_one(ExpressionLine).chosen:  # `_follow_vector` generates once it is checked
            self._soon = True
            return
        setup = self.setup
        try:
            check(setup)
        except SteerlabError as error:
            notify(self, str(error), "error")
            return
        self.run = None
        self._writer = self.write(setup, self.settings.known)

    def cancel(self) -> bool:
        """Stop and keep the text so far; False if nothing was going on."""
        if self._soon:
            self._soon = False
            return True
        if self._writer is None:
            return False
        stop(self._writer)
        self._say("stopping …" if self.lab.is_loaded else "stopping once the model is loaded …")
        return True

    @work(thread=True, group="write")
    def write(self, setup: Setup, known: SteeringVector | None) -> None:
        """Load the model if need be, then generate all columns as one batch.

        known: the vector of the expression, if it is evaluated already.
        """
        finished = self.Finished()
        with reporting_errors(self):
            finished = self._write(get_current_worker(), setup, known)
        self.post_message(finished.set_sender(self))  # the app handles it too

    def _write(self, worker: Worker[None], setup: Setup, known: SteeringVector | None) -> Finished:
        settings = settings_of(self.lab, setup, known, self._load)
        if not setup.layers and self.settings.meaning.calibration is not None:
            setup = replace(setup, layers=",".join(map(str, settings[-1].layers)))  # as it acted
        if is_stopping(worker):
            self.call_later(self._say, "stopped before the first token")
            return self.Finished()
        plain = next((i for i, s in enumerate(settings) if s.vector is None), None)
        titles = side_by_side([(s.coefficient, s.dose, s.label) for s in settings])
        self._warn_beyond_safe([s for s in settings if s.label == setup.pin.name])
        self.call_later(self._begin, titles, setup.sampling.shown(setup.prompt), plain)
        pace, frames = Throughput(), Frames[int](FRAMES)

        def on_text(column: int, text: str) -> None:
            if frames.add(column, text):
                self.call_later(self._show_text, frames)

        def on_progress(done: int, total: int) -> None:
            if said := pace.tick(done, total):
                self.call_later(self._say, said)

        try:
            cells = self.lab.compare(
                [setup.prompt],
                settings,
                seeds=(setup.seed,),
                positions=setup.positions,
                allow_other_weights=setup.allow_other_weights,
                audit=True,
                on_text=on_text,
                should_stop=lambda: is_stopping(worker),
                progress=on_progress,
                **setup.sampling.options(),
            )
        finally:
            self.call_later(self._show_text, frames)  # the last pieces
        self.call_later(self._say, pace.result(cells))
        run = keep_run(self.lab.store, setup, cells, self.lab.model.source, self)
        return self.Finished(run, [cell.audit for cell in cells])

    def _warn_beyond_safe(self, settings: Sequence[Setting]) -> None:
        """Say once that a column is stronger than its calibration found safe."""
        found = self.settings.meaning.here
        said = (beyond_safe(found.get(str(s.layer)), s.layers, s.dose) for s in settings)
        if text := next(filter(None, said), ""):
            notify(self, text, "warning")

    def _load(self, vector: SteeringVector | None) -> None:
        if not self.lab.is_loaded:
            load_model(self.lab, vector, self._report)
            gc.freeze()  # what came with the model stays as well

    def _report(self, text: str) -> None:
        """Say how far loading is, until it is to be stopped."""
        if self._writer is None or not is_stopping(self._writer):
            self.call_later(self._say, printable(text))

    def _say(self, text: str) -> None:
        """Show a status in the lower border."""
        with self.border_only(-1):
            self.border_subtitle = Content(text)

    def _begin(self, headings: Sequence[str], prompt: str, baseline: int | None) -> None:
        self.query_one(Texts).begin(headings, prompt, baseline=baseline)
        self._say("reading the prompt …")

    def _show_text(self, frames: Frames[int]) -> None:
        for column, piece in frames.take().items():
            self.query_one(Texts).write(column, piece)

    @on(Finished)
    def _finish(self, event: Finished) -> None:
        self._writer = None
        self.run = event.run
        self.query_one(Texts).finish(event.audits)

    @on(Texts.Rated)
    def _rate(self, event: Texts.Rated) -> None:
        """Rate a text of the run; the same rating again clears it."""
        event.stop()
        run, index, runs = self.run, event.index, self.lab.store.runs
        if run is None or run.id is None or index >= len(run.generations):
            return
        with reporting_errors(self):
            if event.rating is None:
                self.run = runs.rate(run.id, None if run.best == index else index)
            else:
                same = run.generations[index].rating == event.rating
                self.run = runs.rate_text(run.id, index, None if same else event.rating)
            self.query_one(Texts).show_ratings(self.run)

    def on_click(self, event: events.Click) -> None:
        """Keep a click on the frame from reaching the workbench."""
        event.stop()
