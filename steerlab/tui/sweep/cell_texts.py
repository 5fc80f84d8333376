"""The text of a sweep's cell beside the baseline of the same prompt."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from steerlab.core.display import printable
from steerlab.core.setting import BASELINE
from steerlab.evaluation.metrics.texts import Metric
from steerlab.tui.generation_text import heading, marked
from steerlab.tui.sweep.sweep_texts import SweepTexts


class CellTexts(Vertical):
    """The baseline left, the cell's text right; the prompt above if there are several."""

    DEFAULT_CSS = """
    CellTexts { height: 1fr; min-height: 6; }
    CellTexts PromptLine { height: 1; padding: 0 1; text-overflow: ellipsis; text-wrap: nowrap; }
    CellTexts #texts { height: 1fr; }
    CellTexts VerticalScroll { width: 1fr; height: 1fr; border: round $panel; padding: 0 1; }
    CellTexts VerticalScroll { scrollbar-size-vertical: 1; }
    CellTexts VerticalScroll { border-title-color: $text-muted; }
    CellTexts VerticalScroll { border-subtitle-color: $text-muted; }
    CellTexts VerticalScroll:focus { border: round $accent; }
    CellTexts #steered-box { border-title-color: $text-accent; }
    """

    def compose(self) -> ComposeResult:
        """Two columns."""
        yield PromptLine(markup=False)
        with Horizontal(id="texts"):
            for name in ("baseline", "steered"):
                with VerticalScroll(id=f"{name}-box") as box:
                    box.border_title = name
                    yield Static(id=name, markup=False)

    def on_mount(self) -> None:
        """Hide the prompt until there are several."""
        self.query_one(PromptLine).display = False

    def hint(self, text: str) -> None:
        """Show a hint where the texts will be."""
        self.query_one("#baseline", Static).update(Content.styled(printable(text), "dim"))

    def show(
        self,
        written: SweepTexts,
        metric: Metric,
        prompt: int,
        cell: tuple[int, int],
        *,
        growing: bool,
    ) -> None:
        """Show the cell at (row, column). growing: don't mark differences yet."""
        self._show_prompt(written, prompt)
        setting, baseline = written.setting(*cell), written.text(prompt)
        for name, shown in (("baseline", BASELINE), ("steered", setting)):
            text = written.text(prompt, shown)
            plain = None if growing or shown == BASELINE else baseline
            begun = Content.styled(printable(written.sweep.prompts[prompt], newlines=True), "dim")
            self.query_one(f"#{name}", Static).update(
                begun if text is None else Content.assemble(begun, marked(text, plain))
            )
            value = metric.shown(None if text is None else metric.score(text, baseline))
            box = self.query_one(f"#{name}-box", VerticalScroll)
            box.border_subtitle = Content(f"{metric.name} {value}")
        layer = written.sweep.layers[cell[0]]
        title = f"layer {layer} · {heading(setting.coefficient, setting.dose)}"
        self.query_one("#steered-box").border_title = Content(title)

    def _show_prompt(self, written: SweepTexts, prompt: int) -> None:
        line, count = self.query_one(PromptLine), len(written.sweep.prompts)
        line.display = count > 1
        of = (f"prompt {prompt + 1} of {count} ▸ ", "$text-accent")
        line.update(Content.assemble(of, printable(written.sweep.prompts[prompt])))


class PromptLine(Static):
    """The prompt whose texts are shown."""

    async def on_click(self) -> None:
        """Show the next prompt."""
        await self.run_action("screen.prompt")
