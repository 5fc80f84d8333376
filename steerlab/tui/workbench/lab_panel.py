"""The lab: expression, prompt, strength, and the generated texts."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Label
from textual.worker import Worker, get_current_worker

from steerlab.core.display import printable
from steerlab.core.notation import span
from steerlab.errors import SteerlabError
from steerlab.lab.operating_point import beyond_safe
from steerlab.tui.dialogs import ModelDialog, OptionsDialog
from steerlab.tui.generation_text import heading
from steerlab.tui.model_loading import load_model
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import Frame
from steerlab.tui.setup import COLUMNS, Setup, setup_of
from steerlab.tui.workbench.expression_line import ExpressionLine, Meaning
from steerlab.tui.workbench.generation import check, keep_run, settings_of
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.strength import Strength
from steerlab.tui.workbench.texts import Texts
from steerlab.tui.workbench.throughput import Frames, Throughput

if TYPE_CHECKING:
    from steerlab.core.audit import AuditedText
    from steerlab.core.results import Calibration
    from steerlab.core.run import Run
    from steerlab.core.setting import Setting
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

LEGEND = "dose: length of c × vector relative to the residual stream"


class LabPanel(Frame):
    """Expression, prompt, strength and texts; generates in one worker at a time."""

    HELP = """\
Try a vector: an expression, a prompt, a strength, and the model's texts without and with the \
vector. ctrl+g generates, Esc stops, ctrl+o sets layers, sampling and seed."""

    @dataclass
    class Began(Message):
        """Generation starts. headings: one per column."""

        headings: Sequence[str]
        prompt: str
        baseline: int | None

    @dataclass
    class Wrote(Message):
        """Texts have grown; `frames` has the pieces."""

        frames: Frames

    @dataclass
    class Status(Message):
        """A status line from the worker."""

        text: str

    @dataclass
    class Audited(Message):
        """What was changed in each text."""

        audits: Sequence[AuditedText | None]

    @dataclass
    class Finished(Message):
        """The worker ended. run: as stored, None if nothing was."""

        run: Run | None

    def __init__(self, lab: Lab, setup: Setup, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self.options = setup
        self.run: Run | None = None
        self._writer: Worker[None] | None = None
        self._meaning = Meaning("")
        self._calibrated_layers = ""  # set by a calibration, not by the user
        self._soon = False

    def compose(self) -> ComposeResult:
        """Three lines of settings, then the texts."""
        yield ExpressionLine(self.lab, self.options.expression)
        with Horizontal(classes="line", id="prompt-line"):
            yield Label("prompt", classes="label")
            yield Prompt(self.options.prompt)
        yield Strength(self.options.dose, self.options.coefficient)
        yield Texts()

    def on_mount(self) -> None:
        """Show the options and a legend."""
        self.use(self.options)
        self._say(LEGEND)

    # settings

    @property
    def setup(self) -> Setup:
        """All settings as one value."""
        dose, coefficient = self.query_one(Strength).chosen
        return replace(
            self.options,
            expression=self.query_one(ExpressionLine).text.strip(),
            prompt=self.query_one(Prompt).text,
            dose=dose,
            coefficient=coefficient,
        )

    def use(self, setup: Setup) -> None:
        """Apply all settings."""
        self.options = setup
        line, prompt = self.query_one(ExpressionLine), self.query_one(Prompt)
        if line.text.strip() != setup.expression:
            line.text = setup.expression
        if prompt.text != setup.prompt:
            prompt.text = setup.prompt
        self.query_one(Strength).set(setup.dose, setup.coefficient)
        self.border_title = Content(f"lab · {setup.summary()}")
        self._agree()

    def replay(self, run: Run) -> None:
        """Restore the settings and texts of a stored run."""
        self.use(setup_of(run))
        self.run = run
        texts = self.query_one(Texts)
        plain = [i for i, g in enumerate(run.generations) if not g.coefficient]
        headings = [heading(g.coefficient, g.dose) for g in run.generations]
        texts.begin(headings, run.sampling.shown(run.prompt), baseline=plain[0] if plain else None)
        for index, generation in enumerate(run.generations):
            texts.write(index, generation.text)
        texts.finish()
        texts.show_best(run.best)
        self._say(f"run {run.id}")

    @on(ExpressionLine.Checked)
    def _follow_vector(self, event: ExpressionLine.Checked) -> None:
        """Fit the strength to the vector: keep the dose if it has one, else the coefficient.

        A calibrated vector acts at its calibrated layer, unless another was chosen; one chosen
        in the table, not typed or replayed, starts with the calibrated strength too.
        """
        line = self.query_one(ExpressionLine)
        if event.meaning.text != line.text:
            return  # the text has changed since
        self._meaning = event.meaning
        if event.meaning.vector is not None:
            chosen = line.chosen == event.meaning.text
            self._begin_at(event.meaning.calibration, chosen)
        line.chosen = ""
        self._agree()
        if self._soon:
            self._soon = False
            self.generate()

    def _begin_at(self, calibration: Calibration | None, chosen: bool) -> None:
        """Take the layer of a calibration, or drop that of another vector's.

        chosen: in the table, so that the strength is taken as well.
        """
        if not chosen and self.options.layers not in ("", self._calibrated_layers):
            return  # the user's own choice
        before, self._calibrated_layers = self._calibrated_layers, ""
        setup = self.setup
        if calibration is not None:
            self._calibrated_layers = str(calibration.layer)
            setup = replace(setup, layers=self._calibrated_layers)
            if chosen:
                coefficient = calibration.coefficient or 0.0
                setup = replace(setup, dose=calibration.dose, coefficient=coefficient)
        elif before and setup.layers == before:
            setup = replace(setup, layers="")
        if setup != self.setup:
            self.use(setup)

    def _agree(self) -> None:
        """Show the dose of a coefficient and the safe doses at the steered layer."""
        vector, found = self._meaning.vector, self._meaning.calibration
        if vector is None:
            return
        layers = self.options.layers or span(vector.layers)
        here = found if found is not None and layers == str(found.layer) else None
        strength = self.query_one(Strength)
        strength.safe = here.safe if here is not None else None
        if here is not None and here.dose and here.coefficient:
            strength.follow(here.dose / here.coefficient)
        else:
            strength.follow(vector.dose(1.0))

    def action_options(self) -> None:
        """Layers, positions, sampling, seed, chat template."""

        def take(setup: Setup | None) -> None:
            if setup is not None:
                self.use(setup)

        self.app.push_screen(OptionsDialog(self.setup), take)

    def action_columns(self) -> None:
        """Switch between two texts (baseline and c), three and five (from -c to +c)."""
        setup = self.setup
        following = COLUMNS[(COLUMNS.index(setup.columns) + 1) % len(COLUMNS)]
        self.use(replace(setup, columns=following))
        self.notify(f"{following} texts side by side, starting with the next generation", timeout=3)

    def action_audit(self) -> None:
        """Show which tokens were changed, and how far, in place of the texts; or the texts."""
        self.query_one(Texts).toggle_audit()

    def action_copy_command(self) -> None:
        """Copy the `steerlab generate` command for the same texts."""
        command = self.setup.command(self.lab.source)
        self.app.copy_to_clipboard(command)
        self.notify(printable(command), title="copied", timeout=10, markup=False)

    def action_model(self) -> None:
        """Choose the model that generates."""
        if not self.say_if_busy():
            stored = [model.identity.source for model in self.lab.store.models()]
            self.app.push_screen(ModelDialog(self.lab.source, stored), self._take_model)

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
    @on(ExpressionLine.Submitted)
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
        meaning = self.query_one(ExpressionLine).meaning
        known = meaning.vector if meaning.text.strip() == setup.expression else None
        self._writer = self.write(setup, known)

    def cancel(self) -> bool:
        """Stop and keep the text so far; False if nothing was going on."""
        if self._soon:
            self._soon = False
            return True
        if self._writer is None:
            return False
        self._writer.cancel()
        self._say("stopping …")
        return True

    @work(thread=True, group="write")
    def write(self, setup: Setup, known: SteeringVector | None) -> None:
        """Load the model if need be, then generate all columns as one batch.

        known: the vector of the expression, if it is evaluated already.
        """
        run = None
        with reporting_errors(self):
            run = self._write(get_current_worker(), setup, known)
        self.post_message(self.Finished(run).set_sender(self))  # the app handles it too

    def _write(
        self, worker: Worker[None], setup: Setup, known: SteeringVector | None
    ) -> Run | None:
        settings = settings_of(self.lab, setup, known, self._load)
        if worker.is_cancelled:
            self.post_message(self.Status("stopped before the first token"))
            return None
        plain = next((i for i, s in enumerate(settings) if s.vector is None), None)
        headings = [heading(s.coefficient, s.dose) for s in settings]
        self._warn_beyond_safe(settings)
        self.post_message(self.Began(headings, setup.sampling.shown(setup.prompt), plain))
        pace, frames = Throughput(), Frames()

        def on_text(column: int, text: str) -> None:
            if frames.add(column, text):
                self.post_message(self.Wrote(frames))

        def on_progress(done: int, total: int) -> None:
            if said := pace.tick(done, total):
                self.post_message(self.Status(said))

        try:
            cells = self.lab.compare(
                [setup.prompt],
                settings,
                seeds=(setup.seed,),
                positions=setup.positions,
                allow_other_weights=setup.allow_other_weights,
                audit=True,
                on_text=on_text,
                should_stop=lambda: worker.is_cancelled,
                progress=on_progress,
                **setup.sampling.options(),
            )
        finally:
            self.post_message(self.Wrote(frames))  # the last pieces
        self.post_message(self.Audited([cell.audit for cell in cells]))
        self.post_message(self.Status(pace.result(cells)))
        return keep_run(self.lab.store, setup, cells, self.lab.model.source, self)

    def _warn_beyond_safe(self, settings: Sequence[Setting]) -> None:
        """Say once that a column is stronger than its calibration found safe."""
        found = self._meaning.calibration
        said = (beyond_safe(found, s.layers, s.dose) for s in settings if s.vector)
        if text := next(filter(None, said), ""):
            notify(self, text, "warning")

    def _load(self, vector: SteeringVector | None) -> None:
        if not self.lab.is_loaded:
            load_model(self.lab, vector, self._report)
            gc.freeze()  # what came with the model stays as well

    def _report(self, text: str) -> None:
        self.post_message(self.Status(printable(text)))

    def _say(self, text: str) -> None:
        """Show a status in the lower border."""
        with self.border_only(-1):
            self.border_subtitle = Content(text)

    @on(Began)
    def _begin(self, event: Began) -> None:
        event.stop()
        self.query_one(Texts).begin(event.headings, event.prompt, baseline=event.baseline)
        self._say("reading the prompt …")

    @on(Wrote)
    def _show_text(self, event: Wrote) -> None:
        event.stop()
        for column, piece in event.frames.take().items():
            self.query_one(Texts).write(column, piece)

    @on(Audited)
    def _take_audits(self, event: Audited) -> None:
        event.stop()
        self.query_one(Texts).take(event.audits)

    @on(Status)
    def _show_status(self, event: Status) -> None:
        event.stop()
        self._say(event.text)

    @on(Finished)
    def _finish(self, event: Finished) -> None:
        self._writer = None
        self.run = event.run
        self.query_one(Texts).finish()

    @on(Texts.Picked)
    def _pick(self, event: Texts.Picked) -> None:
        """Rate a text of the run as the best, or clear the rating."""
        event.stop()
        run = self.run
        if run is None or run.id is None or event.index >= len(run.generations):
            return
        best = None if run.best == event.index else event.index
        with reporting_errors(self):
            self.run = self.lab.store.runs.rate(run.id, best)
            self.query_one(Texts).show_best(best)

    def on_click(self, event: events.Click) -> None:
        """Keep a click on the frame from reaching the workbench."""
        event.stop()
