"""The sweep screen: layers x doses as a heatmap, and the texts behind each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.worker import Worker

from steerlab.core.display import count
from steerlab.core.notation import layers_of
from steerlab.core.sampling import Sampling
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.grid import Grid, Values
from steerlab.tui.footer import KeyFooter
from steerlab.tui.help import HELP_KEY
from steerlab.tui.model_loading import load_model
from steerlab.tui.notices import reporting_errors
from steerlab.tui.sweep.cell_texts import CellTexts
from steerlab.tui.sweep.form import Plan, SweepForm
from steerlab.tui.sweep.heatmap import Heatmap, Scale
from steerlab.tui.sweep.sweep_texts import SweepTexts
from steerlab.tui.work_screen import WorkScreen
from steerlab.tui.workers import is_stopping

if TYPE_CHECKING:
    from steerlab.core.run import Positions
    from steerlab.lab.lab import Lab

FRAMES = 5
"""How often a second growing texts are scored and drawn."""

CAVEAT = "a colour is {}: no proof of an effect"


@dataclass(frozen=True)
class Promoted:
    """A cell to copy to the lab, whose Setup has these fields. dose: None if unknown."""

    expression: str
    layers: str
    dose: float | None
    coefficient: float
    prompt: str
    seed: int


class SweepScreen(WorkScreen[Promoted | None]):
    """A sweep: a form, a heatmap that fills as texts are written, and the texts of one cell."""

    CSS_PATH = "sweep.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012  # so in Screen
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012
    HELP = """\
A sweep generates a text for every layer and dose of one expression. Enter in a field or ctrl+g \
runs it. m shows the next metric of the same texts. The arrows move between cells, and p copies a \
cell's settings to the lab.

The dose is the size of the added vector relative to the median residual stream. A colour is the \
metric of one text, or the mean over the prompts. It is no proof of an effect: `steerlab evaluate` \
compares with random directions."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "run", "run", key_display="^g", tooltip="run the sweep"),
        HELP_KEY,
        Binding("p", "promote", "copy to lab", tooltip="copy the cell to the lab"),
        Binding("m", "metric", "metric", tooltip="show the next metric"),
        Binding("n", "prompt", "prompt", tooltip="show the next prompt"),
        Binding("escape", "leave", "stop / back", tooltip="stop, or go back"),
    ]

    @dataclass
    class Planned(Message):
        """The cells of the sweep. missing: how many texts are still to be written."""

        grid: Grid
        plan: Plan
        missing: int

    @dataclass
    class Wrote(Message):
        """Pieces of texts, by their index in `SweepTexts`; tokens so far."""

        pieces: Mapping[int, str]
        done: int
        total: int

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
        self.shown_prompt = 0
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Form, progress, heatmap, texts."""
        yield self.title_line("sweep", "a text for every layer and dose of one expression")
        with VerticalScroll(id="body", can_focus=False):
            yield SweepForm(self.lab, self.expression, self.prompt)
            yield from self.state()
            yield Heatmap(id="heatmap")
            yield CellTexts()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus what is to be typed next."""
        self._timer = self.set_interval(1 / FRAMES, self._draw, pause=True)
        self._draw()
        self.query_one("#layers" if self.expression else "#expression").focus()

    # what there is to sweep

    @on(SweepForm.Changed)
    def preview(self) -> None:
        """Show the empty cells, until something is written."""
        if self.written is not None or self.busy:
            return
        form = self.query_one(SweepForm)
        try:
            plan = form.plan()
            layers = form.chosen_layers()
        except BadOption:  # still being typed; `action_run` reports it
            return
        self._label(layers, plan.strengths)
        self._draw()
        texts = (len(layers) * sum(map(bool, plan.strengths)) + 1) * len(plan.prompts)
        self.query_one(CellTexts).hint(f"Press ctrl+g to generate {count(texts, 'text')}.")

    def _label(self, layers: Sequence[int], strengths: Sequence[float]) -> None:
        columns = [f"{strength:+g}" if strength else "0" for strength in strengths]
        self.query_one(Heatmap).lay_out([*map(str, layers)], columns, "layer")

    # running

    @on(SweepForm.Submitted)
    def action_run(self) -> None:
        """Generate the texts of all cells."""
        if not self.busy:
            with reporting_errors(self):
                self.begin(partial(self._sweep, self.query_one(SweepForm).plan()))
                self.query_one(Heatmap).focus()

    def _sweep(self, plan: Plan, worker: Worker[None]) -> bool:
        vector = self.lab.evaluate(plan.expression)
        load_model(self.lab, vector, self.post_status)
        if is_stopping(worker):
            return False
        self.post_status("preparing the layers …")
        strengths = sorted({0.0, *plan.strengths})  # texts are compared with a baseline
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

        def start(sweep: Sweep) -> None:
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
            keep=self.lab.store.upkeep.writable,
            on_start=start,
            on_text=on_text,
            should_stop=lambda: is_stopping(worker),
            progress=on_progress,
        )
        on_progress(1, 1)
        return not is_stopping(worker)

    @on(Planned)
    def lay_out(self, event: Planned) -> None:
        """Show empty cells and the first prompt."""
        self.written, self.plan = SweepTexts(event.grid, event.plan.prompts), event.plan
        self.shown_prompt = 0
        self._label(event.grid.layers, event.grid.strengths)
        self._say(f"generating {count(event.missing, 'text')} …")
        self._draw()

    @on(Wrote)
    def take(self, event: Wrote) -> None:
        """Append to texts; the next frame draws them."""
        if self.written is not None:
            for index, piece in event.pieces.items():
                self.written.write(index, piece)
        self._show_progress(event.done, event.total)
        if self._timer is not None:
            self._timer.resume()

    def ended(self, result: bool | None, *, stopped: bool) -> None:
        """Show the complete texts, or those that came before Esc."""
        if result and self.written is not None:
            self.written.finish()
            texts = count(len(self.written.texts), "text")
            self._say(f"{texts} · the arrows move, p copies a cell to the lab")
        elif stopped:
            self._say("stopped: values are of the texts so far")
        self._draw()

    @on(SweepForm.Meant)
    def explain(self, event: SweepForm.Meant) -> None:
        """Show what the expression means, unless a sweep is running."""
        if not self.busy:
            self._say(event.text, problem=event.problem)

    # reading

    @on(SweepForm.MetricChanged)
    def recolour(self) -> None:
        """Show another metric of the same texts."""
        self._draw()

    @on(Heatmap.Moved)
    def read(self) -> None:
        """Show the texts of another cell."""
        self._draw_texts()

    def action_metric(self) -> None:
        """Show the next metric."""
        self.query_one(SweepForm).next_metric()

    @on(CellTexts.NextPrompt)
    def action_prompt(self) -> None:
        """Show the texts of the next prompt."""
        if self.written is not None:
            self.shown_prompt = (self.shown_prompt + 1) % len(self.written.prompts)
            self._draw_texts()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        if action == "prompt":
            return self.written is not None and len(self.written.prompts) > 1
        return self.written is not None if action == "promote" else True

    def _draw(self) -> None:
        """Draw the heatmap and the texts so far."""
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
            texts.show(self.written, metric, self.shown_prompt, cell, growing=self.busy)

    # leaving

    @on(Heatmap.Chosen)
    def action_promote(self) -> None:
        """Close, and hand the cell under the cursor to the lab."""
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
