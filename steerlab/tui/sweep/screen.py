"""The sweep screen: layers x doses as a heatmap, and the texts behind each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Footer, ProgressBar, Static
from textual.worker import Worker, get_current_worker

from steerlab.core.notation import layers_of
from steerlab.core.sampling import Sampling
from steerlab.core.sweep import StoredSweep, SweepPlan
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.grid import Grid, Values
from steerlab.tui.help import HELP_KEY
from steerlab.tui.notices import Notice, reporting_errors
from steerlab.tui.sweep.cell_texts import CellTexts
from steerlab.tui.sweep.form import Plan, SweepForm
from steerlab.tui.sweep.heatmap import Heatmap, Scale
from steerlab.tui.sweep.sweep_texts import SweepTexts
from steerlab.tui.work_screen import WorkScreen

if TYPE_CHECKING:
    from steerlab.core.run import Positions
    from steerlab.lab.lab import Lab

FRAMES = 5
"""Times a second that growing texts are valued and drawn."""

CAVEAT = "a colour is {}; controls come with the evaluation"


@dataclass(frozen=True)
class Promoted:
    """A cell that the lab is to take over. layers: as typed there. dose: None if unknown."""

    expression: str
    layers: str
    dose: float | None
    coefficient: float
    prompt: str
    seed: int


class SweepScreen(WorkScreen[Promoted | None]):
    """Set up a sweep, watch its cells fill, read their texts, take one to the lab."""

    CSS_PATH = "sweep.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012  # so in Screen
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012
    HELP = """\
Layers x doses of one expression, each cell a text. Enter in a line or ctrl+g runs; m takes the \
next metric without writing anything anew; the arrows move through the cells and p takes one to \
the lab. A colour is one text's value (with several prompts their mean) and shows no effect by \
itself: random directions to compare with come with the evaluation."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "run", "run"),
        HELP_KEY,
        Binding("p", "promote", "to the lab"),
        Binding("m", "metric", "metric"),
        Binding("n", "prompt", "prompt"),
        Binding("escape", "leave", "stop, back"),
    ]

    @dataclass
    class Said(Message):
        """Something for the status line."""

        text: str

    @dataclass
    class Planned(Message):
        """The cells that there will be. missing: how many are not written yet."""

        grid: Grid
        plan: Plan
        missing: int

    @dataclass
    class Wrote(Message):
        """Pieces of texts, by their place among all; tokens so far."""

        pieces: Mapping[int, str]
        done: int
        total: int

    @dataclass
    class Ended(Message):
        """The worker is through. finished: everything was written."""

        finished: bool

    def __init__(
        self,
        lab: Lab,
        expression: str,
        prompt: str,
        *,
        positions: Positions = "all",
        seed: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.lab = lab
        self.expression, self.prompt = expression, prompt
        self.positions, self.seed, self.sampling = positions, seed, sampling or Sampling()
        self.written: SweepTexts | None = None
        self.plan: Plan | None = None
        self.running = False
        self.shown_prompt = 0
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Form, progress, heatmap, texts."""
        with VerticalScroll(id="body", can_focus=False):
            yield SweepForm(self.lab, self.expression, self.prompt)
            with Horizontal(id="state"):
                yield Static(id="status", markup=False)
                yield ProgressBar(show_percentage=False, id="progress")
            yield Heatmap(id="heatmap")
            yield CellTexts()
        yield Footer()

    def on_mount(self) -> None:
        """Ready to run; what the expression means comes from a thread."""
        self.query_one("#progress").display = False
        self._timer = self.set_interval(1 / FRAMES, self._draw, pause=True)
        self._draw()
        self.query_one("#layers" if self.expression else "#expression").focus()

    # what there is to sweep

    @on(SweepForm.Changed)
    def preview(self) -> None:
        """Before anything is written: the cells that would be."""
        if self.written is not None or self.running:
            return
        form = self.query_one(SweepForm)
        try:
            plan = form.plan()
            layers = form.chosen_layers()
        except BadOption:  # still being typed; running says what is wrong
            return
        self._label(layers, plan.strengths)
        self._draw()
        texts = (len(layers) * sum(map(bool, plan.strengths)) + 1) * len(plan.prompts)
        self.query_one(CellTexts).hint(f"ctrl+g writes {texts} texts")

    def _label(self, layers: Sequence[int], strengths: Sequence[float]) -> None:
        columns = [f"{strength:+g}" if strength else "0" for strength in strengths]
        self.query_one(Heatmap).lay_out([*map(str, layers)], columns, "layer")

    # running

    @on(SweepForm.Submitted)
    def action_run(self) -> None:
        """Write all cells, in as few batches as there can be."""
        if self.running:
            return
        with reporting_errors(self):
            plan = self.query_one(SweepForm).plan()
            self.running = True
            self.query_one("#progress", ProgressBar).update(total=None, progress=0)
            self.query_one("#progress").display = True
            self.query_one(Heatmap).focus()
            self._worker = self.sweep(plan)

    @work(thread=True, group="sweep", exit_on_error=False)
    def sweep(self, plan: Plan) -> None:
        """Load the model if need be, then write; ends in Ended, whatever happens."""
        worker = get_current_worker()
        finished = False
        try:
            with reporting_errors(self):
                finished = self._sweep(worker, plan)
        finally:
            self.post_message(self.Ended(finished))

    def _sweep(self, worker: Worker[None], plan: Plan) -> bool:
        vector = self.lab.evaluate(plan.expression)
        self.post_message(self.Said(f"loading {self.lab.source or vector.model.source} …"))
        self.lab.load(vector, self._loading)
        if worker.is_cancelled:
            return False
        self.post_message(self.Said("preparing the layers …"))
        strengths = sorted({0.0, *plan.strengths})  # texts are read, and valued, beside a baseline
        asked = SweepPlan(
            plan.expression,
            plan.prompts,
            layers_of(plan.layers),
            doses=strengths if plan.by_dose else (),
            coefficients=() if plan.by_dose else strengths,
            seeds=(self.seed,),
            positions=self.positions,
            sampling=self.sampling,
        )
        return self._write(worker, plan, asked)

    def _write(self, worker: Worker[None], plan: Plan, asked: SweepPlan) -> bool:
        from steerlab.lab.sweeps import run_sweep

        pieces: dict[int, str] = {}
        places: list[int] = []

        def start(sweep: StoredSweep) -> None:
            ordered = sorted(
                sweep.settings, key=lambda s: (-1 if s.layer is None else s.layer, s.strength)
            )
            place = {
                (setting, prompt): row * len(ordered) + column
                for row, prompt in enumerate(plan.prompts)
                for column, setting in enumerate(ordered)
            }
            places.extend(place[setting, prompt] for setting, prompt, _ in sweep.planned())
            grid = Grid(plan.strengths, tuple(ordered))
            self.post_message(self.Planned(grid, plan, sweep.total - sweep.done))
            kept = {place[cell.setting, cell.prompt]: cell.text for cell in sweep.cells}
            self.post_message(self.Wrote(kept, 0, 1))

        def on_text(index: int, piece: str) -> None:
            pieces[places[index]] = pieces.get(places[index], "") + piece

        def on_progress(done: int, total: int) -> None:
            self.post_message(self.Wrote(dict(pieces), done, total))
            pieces.clear()

        run_sweep(
            self.lab,
            asked,
            keep=self.lab.store.writable,
            on_start=start,
            on_text=on_text,
            should_stop=lambda: worker.is_cancelled,
            progress=on_progress,
        )
        on_progress(1, 1)
        return not worker.is_cancelled

    def _loading(self, what: str, done: int, total: int) -> None:
        percent = f" {100 * done // total}%" if total > 1 else ""
        self.post_message(self.Said(f"{what} the embedded model{percent} …"))

    @on(Planned)
    def lay_out(self, event: Planned) -> None:
        """Empty cells, and the first prompt."""
        self.written, self.plan = SweepTexts(event.grid, event.plan.prompts), event.plan
        self.shown_prompt = 0
        self._label(event.grid.layers, event.grid.strengths)
        self._say(f"writing {event.missing} texts …")
        self._draw()

    @on(Wrote)
    def take(self, event: Wrote) -> None:
        """Let texts grow; they are drawn with the next frame."""
        if self.written is not None:
            for index, piece in event.pieces.items():
                self.written.write(index, piece)
        self.query_one(ProgressBar).update(total=event.total, progress=event.done)
        if self._timer is not None:
            self._timer.resume()

    @on(Ended)
    def end(self, event: Ended) -> None:
        """All that will come is there."""
        self.running = False
        self.query_one("#progress").display = False
        if event.finished and self.written is not None:
            self.written.finish()
            self._say(f"{len(self.written.texts)} texts · arrows move, p takes a cell to the lab")
        elif self._worker is not None and self._worker.is_cancelled:
            self._say("stopped: what came is shown, and its values are of the texts so far")
        self._draw()

    @on(Said)
    def narrate(self, event: Said) -> None:
        """One line of news."""
        self._say(event.text)

    @on(SweepForm.Meant)
    def explain(self, event: SweepForm.Meant) -> None:
        """What the expression line means, unless something runs."""
        if not self.running:
            self._say(event.text, problem=event.problem)

    @on(Notice)
    def keep_notice(self, event: Notice) -> None:
        """Problems stay readable here, after the app's notification has gone."""
        self._say(event.text, problem=event.severity != "information")

    # reading

    @on(SweepForm.MetricChanged)
    def recolour(self) -> None:
        """Another metric of the same texts."""
        self._draw()

    @on(Heatmap.Moved)
    def read(self) -> None:
        """The texts of another cell."""
        self._draw_texts()

    def action_metric(self) -> None:
        """Take the next metric."""
        self.query_one(SweepForm).next_metric()

    @on(CellTexts.NextPrompt)
    def action_prompt(self) -> None:
        """Show the texts of the next prompt."""
        if self.written is not None:
            self.shown_prompt = (self.shown_prompt + 1) % len(self.written.prompts)
            self._draw_texts()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done."""
        if action == "prompt":
            return self.written is not None and len(self.written.prompts) > 1
        return self.written is not None if action == "promote" else True

    def _draw(self) -> None:
        """The heatmap and the texts, as far as they have come."""
        if self._timer is not None:
            self._timer.pause()
        heatmap, metric = self.query_one(Heatmap), self.query_one(SweepForm).metric
        empty: Values = [[None] * len(heatmap.columns) for _ in heatmap.rows]
        values = empty if self.written is None else self.written.values(metric)
        heatmap.fill(values, self._scale(metric, values), metric.shown)
        prompts = len(self.written.prompts) if self.written is not None else 1
        what = "one text's value" if prompts == 1 else f"the mean of {prompts} texts"
        heatmap.border_subtitle = Content(CAVEAT.format(what))
        self._draw_texts()
        self.refresh_bindings()

    def _scale(self, metric: Metric, values: Values) -> Scale:
        found = [v for row in values for v in row if v is not None and not math.isnan(v)]
        high = max(found, default=1.0) if metric.high is None else metric.high
        return Scale(metric.low, high, f"{metric.name}: {metric.about}")

    def _draw_texts(self) -> None:
        if self.written is not None:
            metric, cell = self.query_one(SweepForm).metric, self.query_one(Heatmap).cursor
            texts = self.query_one(CellTexts)
            texts.show(self.written, metric, self.shown_prompt, cell, growing=self.running)

    # leaving

    @on(Heatmap.Chosen)
    def action_promote(self) -> None:
        """Hand the cell under the cursor to the lab."""
        if self.written is None or self.plan is None:
            return
        row, column = self.query_one(Heatmap).cursor
        place = self.written.grid.place(row, column)
        assert place is not None  # the screen always writes a baseline
        setting = self.written.grid.settings[place]
        self.dismiss(
            Promoted(
                self.plan.expression,
                str(self.written.grid.layers[row]),
                self.written.grid.strengths[column] if self.plan.by_dose else setting.dose,
                setting.coefficient,
                self.written.prompts[self.shown_prompt],
                self.seed,
            )
        )

    def _can_stop(self) -> bool:
        return self.running and super()._can_stop()
