"""The sweep screen: layers x doses as a heatmap, and the texts behind each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Select, TextArea
from textual.worker import Worker

from steerlab.core.cell import Key
from steerlab.core.display import count
from steerlab.core.sampling import Sampling
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.errors import BadOption
from steerlab.plots.sweep_grid import blank_grid
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.footer import KeyFooter
from steerlab.tui.frames import Frames
from steerlab.tui.help import HELP_KEY
from steerlab.tui.model_loading import load_model
from steerlab.tui.notices import reporting_errors
from steerlab.tui.sweep.cell_texts import CellTexts
from steerlab.tui.sweep.form import SweepForm
from steerlab.tui.sweep.heatmap import Heatmap
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

The dose is the size of the added vector relative to the median residual stream. A colour compares \
the metric of one text, or the mean over the prompts, with the baseline: blue is below it, orange \
above. It is no proof of an effect: `steerlab evaluate` compares with random directions."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "run", "run", key_display="^g", tooltip="run the sweep"),
        HELP_KEY,
        Binding("p", "promote", "copy to lab", tooltip="copy the cell to the lab"),
        Binding("m", "metric", "metric", tooltip="show the next metric"),
        Binding("n", "prompt", "prompt", tooltip="show the next prompt"),
        Binding("escape", "leave", "stop / back", tooltip="stop, or go back"),
    ]

    def __init__(
        self,
        lab: Lab,
        expression: str,
        prompt: str,
        *,
        names: Sequence[str] = (),
        positions: Positions = "all",
        seed: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        self.lab = lab
        self.expression, self.prompt, self.names = expression, prompt, names
        self.positions, self.seed, self.sampling = positions, seed, sampling or Sampling()
        self.written: SweepTexts | None = None
        self.shown_prompt = 0

    def compose(self) -> ComposeResult:
        """Form, progress, heatmap, texts."""
        yield self.title_line("sweep", "a text for every layer and dose of one expression")
        with VerticalScroll(id="body", can_focus=False):
            yield SweepForm(self.lab, self.expression, self.prompt, self.names)
            yield from self.state()
            yield Heatmap(id="heatmap")
            yield CellTexts()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus what is to be typed next."""
        self.preview()
        self.query_one("#layers" if self.expression else "#expression").focus()

    # what there is to sweep

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(ExpressionLine.Checked)
    def preview(self) -> None:
        """Show the empty cells, until something is written."""
        if self.written is not None or self.busy:
            return
        form = self.query_one(SweepForm)
        self._say(form.advice)
        try:
            plan = form.plan()
            layers = form.chosen_layers()
        except BadOption:  # still being typed; `action_run` reports it
            return
        grid = blank_grid(form.metric, layers, plan.strengths, plan.strength)
        self.query_one(Heatmap).show(grid)
        self._say_caveat(len(plan.prompts))
        texts = (len(layers) * (len(plan.strengths) - 1) + 1) * len(plan.prompts)
        self.query_one(CellTexts).hint(f"Press ctrl+g to generate {count(texts, 'text')}.")

    # running

    @on(Input.Submitted)
    def action_run(self) -> None:
        """Generate the texts of all cells."""
        if not self.busy:
            with reporting_errors(self):
                plan = replace(
                    self.query_one(SweepForm).plan(),
                    seeds=(self.seed,),
                    positions=self.positions,
                    sampling=self.sampling,
                )
                self.begin(partial(self._sweep, plan))
                self.query_one(Heatmap).focus()

    def _sweep(self, plan: SweepPlan, worker: Worker[None]) -> bool:
        vector = self.lab.evaluate(str(plan.vector))
        load_model(self.lab, vector, self.post_status)
        if is_stopping(worker):
            return False
        self.post_status("preparing the layers …")
        return self._write(worker, plan)

    def _write(self, worker: Worker[None], plan: SweepPlan) -> bool:
        from steerlab.lab.sweeps import run_sweep

        frames, keys = Frames[Key](FRAMES), list[Key]()

        def start(sweep: Sweep) -> None:
            keys.extend(sweep.planned())
            settings = sorted(sweep.settings, key=lambda s: -1 if s.layer is None else s.layer)
            shown = replace(
                sweep,
                expression=str(plan.vector),
                settings=tuple(settings),
                prompts=tuple(plan.prompts),
            )
            self.call_later(self.lay_out, shown)

        def on_text(index: int, piece: str) -> None:
            if frames.add(keys[index], piece):
                self.call_later(self.take, frames)

        def on_progress(done: int, total: int) -> None:
            self.post_progress(done, total, f"generating: {done} of {total} tokens")

        run_sweep(
            self.lab,
            plan,
            keep=self.lab.store.upkeep.writable,
            on_start=start,
            on_text=on_text,
            should_stop=lambda: is_stopping(worker),
            progress=on_progress,
        )
        self.call_later(self.take, frames)  # the last pieces
        return not is_stopping(worker)

    def lay_out(self, sweep: Sweep) -> None:
        """Show the texts that are stored, and the first prompt."""
        self.written, self.shown_prompt = SweepTexts(sweep), 0
        self._say(f"generating {count(sweep.total - sweep.done, 'text')} …")
        self._draw()

    def take(self, frames: Frames[Key]) -> None:
        """Append to the texts."""
        if self.written is not None:
            for key, piece in frames.take().items():
                self.written.write(key, piece)
            self._draw()

    def ended(self, result: bool | None, *, stopped: bool) -> None:
        """Show the complete texts, or those that came before Esc."""
        if result and self.written is not None:
            self.written.finish()
            texts = count(len(self.written.texts), "text")
            self._say(f"{texts} · the arrows move, p copies a cell to the lab")
        elif stopped:
            self._say("stopped: values are of the texts so far")
        self._draw()

    # reading

    @on(Select.Changed)
    def recolour(self) -> None:
        """Show another metric of the same texts."""
        self.preview()
        self._draw()

    @on(Heatmap.Moved)
    def read(self) -> None:
        """Show the texts of another cell."""
        self._draw_texts()

    def action_metric(self) -> None:
        """Show the next metric."""
        self.query_one(SweepForm).next_metric()

    def action_prompt(self) -> None:
        """Show the texts of the next prompt."""
        if self.written is not None:
            self.shown_prompt = (self.shown_prompt + 1) % len(self.written.sweep.prompts)
            self._draw_texts()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        if action == "prompt":
            return self.written is not None and len(self.written.sweep.prompts) > 1
        return self.written is not None if action == "promote" else True

    def _draw(self) -> None:
        """Draw the heatmap and the texts so far."""
        if self.written is not None:
            self.query_one(Heatmap).show(self.written.grid(self.query_one(SweepForm).metric))
            self._say_caveat(len(self.written.sweep.prompts))
            self._draw_texts()
        self.refresh_bindings()

    def _say_caveat(self, prompts: int) -> None:
        what = "one text's value" if prompts == 1 else f"the mean of {prompts} texts"
        self.query_one(Heatmap).border_subtitle = Content(CAVEAT.format(what))

    def _draw_texts(self) -> None:
        if self.written is not None:
            metric, cell = self.query_one(SweepForm).metric, self.query_one(Heatmap).cursor
            texts = self.query_one(CellTexts)
            texts.show(self.written, metric, self.shown_prompt, cell, growing=self.busy)

    # leaving

    @on(Heatmap.Chosen)
    def action_promote(self) -> None:
        """Close, and hand the cell under the cursor to the lab."""
        if self.written is None:
            return
        row, column = self.query_one(Heatmap).cursor
        sweep, setting = self.written.sweep, self.written.setting(row, column)
        dose = setting.strength if sweep.strength == "dose" else setting.dose
        prompt = sweep.prompts[self.shown_prompt]
        layer, c = str(sweep.layers[row]), setting.coefficient
        self.dismiss(Promoted(sweep.expression, layer, dose, c, prompt, self.seed))
