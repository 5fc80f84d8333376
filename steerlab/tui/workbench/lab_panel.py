"""The lab strip: what to steer with, on which prompt, how strongly; and the texts."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Label, TextArea
from textual.worker import Worker, get_current_worker

from steerlab.core.display import printable
from steerlab.core.notation import layers_of, span
from steerlab.errors import BadOption, SteerlabError, StoreError
from steerlab.tui.generation_text import heading
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import PartialRefresh
from steerlab.tui.setup import Setup, setup_of
from steerlab.tui.workbench.expression_line import ExpressionLine, Meaning
from steerlab.tui.workbench.strength import Strength
from steerlab.tui.workbench.texts import Texts
from steerlab.tui.workbench.throughput import Frames, Throughput

if TYPE_CHECKING:
    from steerlab.core.cell import Cell
    from steerlab.core.results import Calibration
    from steerlab.core.run import Run
    from steerlab.core.setting import Setting
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab


class Prompt(TextArea):
    """The prompt: Enter generates, a pasted text keeps its lines."""

    HELP = "The text to continue. Enter generates; ctrl+j or alt+enter makes a new line."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "generate", priority=True, show=False),
        Binding("alt+enter,ctrl+j", "newline", "new line", show=False),
    ]

    @dataclass
    class Submitted(Message):
        """Enter was pressed in the prompt."""

    def __init__(self, text: str) -> None:
        super().__init__(
            text, compact=True, highlight_cursor_line=False, id="prompt", placeholder="a prompt"
        )

    def action_submit(self) -> None:
        """Ask for a generation."""
        self.post_message(self.Submitted())

    def action_newline(self) -> None:
        """Start a new line."""
        self.insert("\n")


class LabPanel(Vertical, PartialRefresh):
    """Expression, prompt, strength and texts; one generation at a time runs in a worker."""

    HELP = """\
Here a vector is tried: an expression, a prompt, a strength, and the texts that the model \
writes without and with it. ctrl+g writes, Esc stops, ctrl+o has layers, sampling and seed."""

    @dataclass
    class Began(Message):
        """The model is about to write; one heading a column."""

        headings: Sequence[str]
        prompt: str
        baseline: int | None

    @dataclass
    class Wrote(Message):
        """Texts have grown, by what is there to be taken."""

        frames: Frames

    @dataclass
    class Status(Message):
        """What the worker is doing."""

        text: str

    @dataclass
    class Finished(Message):
        """The worker is done; run is what was kept, if anything was."""

        run: Run | None

    def __init__(self, lab: Lab, setup: Setup, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self.options = setup
        self.run: Run | None = None
        self._writer: Worker[None] | None = None
        self._meaning = Meaning("")
        self._calibrated_layers = ""  # that a calibration chose, and not the user
        self._soon = False

    def compose(self) -> ComposeResult:
        """Three lines to set up, then the texts."""
        yield ExpressionLine(self.lab, self.options.expression)
        with Horizontal(classes="line", id="prompt-line"):
            yield Label("prompt", classes="label")
            yield Prompt(self.options.prompt)
        yield Strength(self.options.dose, self.options.coefficient)
        yield Texts()

    def on_mount(self) -> None:
        """Show the options."""
        self.use(self.options)

    # what is set up

    @property
    def setup(self) -> Setup:
        """Everything set up here, as one value."""
        dose, coefficient = self.query_one(Strength).chosen
        return replace(
            self.options,
            expression=self.query_one(ExpressionLine).text.strip(),
            prompt=self.query_one(Prompt).text,
            dose=dose,
            coefficient=coefficient,
        )

    def use(self, setup: Setup) -> None:
        """Set everything up as it says."""
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
        """Set up what a kept run was made with, and show its texts."""
        self.use(setup_of(run))
        self.run = run
        texts = self.query_one(Texts)
        plain = [i for i, g in enumerate(run.generations) if not g.coefficient]
        headings = [heading(g.coefficient, g.dose) for g in run.generations]
        texts.begin(headings, run.prompt, baseline=plain[0] if plain else None)
        for index, generation in enumerate(run.generations):
            texts.write(index, generation.text)
        texts.finish()
        texts.show_best(run.best)
        self._say(f"run {run.id}")

    @on(ExpressionLine.Checked)
    def _follow_vector(self, event: ExpressionLine.Checked) -> None:
        """The dose stays and the coefficient follows, or the other way round.

        A vector that was chosen, rather than typed or replayed, begins as it was calibrated.
        """
        line = self.query_one(ExpressionLine)
        if event.meaning.text != line.text:
            return  # on its way from the line when the text was changed: another answer follows
        self._meaning = event.meaning
        if event.meaning.vector is not None and line.chosen == event.meaning.text:
            self._begin_at(event.meaning.calibration)
        line.chosen = ""
        self._agree()
        if self._soon:
            self._soon = False
            self.generate()

    def _begin_at(self, calibration: Calibration | None) -> None:
        """Take layer and dose of a calibration; without one, no layers of another vector's."""
        chosen_before, self._calibrated_layers = self._calibrated_layers, ""
        if calibration is not None:
            self._calibrated_layers = layers = str(calibration.layer)
            dose, coefficient = calibration.dose, calibration.coefficient or 0.0
            self.use(replace(self.setup, dose=dose, coefficient=coefficient, layers=layers))
        elif chosen_before and self.options.layers == chosen_before:
            self.use(replace(self.setup, layers=""))

    def _agree(self) -> None:
        """What a coefficient is worth, and which doses are safe, at the layer that is steered."""
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

    def focus_texts(self) -> None:
        """Go to the last of the texts, which is a steered one."""
        self.query_one(Texts).columns[-1].focus()

    # writing

    @property
    def busy(self) -> bool:
        """Whether the model is loading or writing, or about to."""
        return self._writer is not None or self._soon

    @on(Prompt.Submitted)
    @on(ExpressionLine.Submitted)
    def generate(self) -> None:
        """Write the texts; says so if that is already going on."""
        if self.busy:
            notify(self, "still writing: Esc stops it", "warning")
            return
        if self.query_one(ExpressionLine).chosen:  # it may be calibrated, which is not known yet
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
        """Stop writing and keep what came; False if nothing was going on."""
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
        """Load the model if need be, then write all columns as one batch.

        known: what the expression means, where that is known already.
        """
        run = None
        with reporting_errors(self):
            run = self._write(get_current_worker(), setup, known)
        self.post_message(self.Finished(run).set_sender(self))  # the app waits for it too

    def _write(
        self, worker: Worker[None], setup: Setup, known: SteeringVector | None
    ) -> Run | None:
        settings = self._settings(setup, known)
        if worker.is_cancelled:
            self.post_message(self.Status("stopped before anything was written"))
            return None
        plain = next((i for i, s in enumerate(settings) if s.vector is None), None)
        headings = [heading(s.coefficient, s.dose) for s in settings]
        self.post_message(self.Began(headings, setup.prompt, plain))
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
                on_text=on_text,
                should_stop=lambda: worker.is_cancelled,
                progress=on_progress,
                **setup.sampling.options(),
            )
        finally:
            self.post_message(self.Wrote(frames))  # the last pieces
        self.post_message(self.Status(pace.result(cells)))
        return self._keep(setup, cells)

    def _settings(self, setup: Setup, known: SteeringVector | None) -> list[Setting]:
        """One a column; loads the model."""
        from steerlab.core.setting import Setting

        shares = setup.shares
        vector = (known or self.lab.evaluate(setup.expression)) if any(shares) else None
        if vector is not None and setup.dose is not None:
            vector.coefficient(setup.dose)  # a vector without doses is refused before a model loads
        self._load(vector)
        if vector is None:
            return [Setting()]
        at = self.lab.at_layers(vector, layers_of(setup.layers)) if setup.layers else vector
        full = setup.coefficient if setup.dose is None else at.coefficient(setup.dose)
        label = setup.expression
        return [Setting(at, s * full, label) if s and full else Setting() for s in shares]

    def _load(self, vector: SteeringVector | None) -> None:
        if self.lab.is_loaded:
            return
        source = self.lab.source or (vector.model.source if vector else "smollm2")
        self.post_message(self.Status(f"loading {printable(source)} …"))
        from steerlab.models.loading import hush

        hush()
        self.lab.load(vector, self._loading)
        gc.freeze()  # what came with the model stays as well

    def _loading(self, what: str, done: int, total: int) -> None:
        percent = f" {100 * done // total}%" if total > 1 else ""
        self.post_message(self.Status(f"{what} the embedded model{percent} …"))

    def _keep(self, setup: Setup, cells: Sequence[Cell]) -> Run | None:
        """Keep the run; a store that can't be written costs the record, not the texts."""
        from steerlab.core.run import Run

        try:
            made = Run.of(
                cells,
                setup.expression,
                self.lab.model.source,
                layers=setup.layers,
                positions=setup.positions,
                sampling=setup.sampling,
            )
            return self.lab.store.runs.save(made)
        except StoreError as error:
            notify(self, f"the run was not kept: {error}", "warning")
            return None

    def _say(self, text: str) -> None:
        """Say in the lower border what is going on."""
        width, height = self.outer_size
        with self.only(Region(0, height - 1, width, 1)):
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
        """Keep with the run which text was best; once more takes it back."""
        event.stop()
        run = self.run
        if run is None or run.id is None or event.index >= len(run.generations):
            return
        best = None if run.best == event.index else event.index
        with reporting_errors(self):
            self.run = self.lab.store.runs.rate(run.id, best)
            self.query_one(Texts).show_best(best)

    def on_click(self, event: events.Click) -> None:
        """A click on the lab's frame is no click on what is behind it."""
        event.stop()


def check(setup: Setup) -> None:
    """Raise, in words, for a setup that can't be generated from; needs no model."""
    if not setup.prompt.strip():
        raise BadOption("there is no prompt: type the text to be continued")
    setup.check()
