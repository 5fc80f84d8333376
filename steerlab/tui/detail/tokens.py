"""Tokens: those that a direction promotes and suppresses, once its model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.cells import set_cell_size
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Button, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.detail.pane import Pane
from steerlab.tui.model_loading import load_model
from steerlab.tui.notices import reporting_errors

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.logit_lens import Lens
    from steerlab.registry import Summary

MOST = 10
"""Tokens per side of a direction."""

APART = 3
"""Most directions with one token per line; more get one line each."""

WIDTH = 15  # width of a token in cells


@dataclass(frozen=True)
class Read:
    """Lenses and a note on them. lenses: None if the model is not loaded."""

    source: str
    lenses: Sequence[Lens] | None = None
    note: str = ""


class Tokens(Pane):
    """Promoted and suppressed tokens, side by side."""

    HELP = """\
The tokens that the direction alone promotes and suppresses, through the model's final norm and \
unembedding. This needs the model: Enter loads it."""

    DEFAULT_CSS = """
    Tokens Static { height: auto; }
    Tokens Button { margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "load", "load the model")]

    waits = False  # for the user to load the model
    progress = ""

    def compose(self) -> ComposeResult:
        """The tokens, or a button that loads the model."""
        yield Static(id="tokens", markup=False)
        button = Button("load the model", id="load", compact=True)
        button.display = False
        yield button

    def read(self, summary: Summary, worker: Worker[None]) -> Read:
        """The lens, if the vector's model is loaded already."""
        vector = self.lab.store.load(summary.qualified)
        model = self.lab.loaded_for(vector)
        if model is None:
            return Read(vector.model.source)
        from steerlab.evaluation.inspection.inspect import illegible
        from steerlab.evaluation.inspection.logit_lens import logit_lens

        lenses = logit_lens(model, vector, top=MOST, should_stop=lambda: worker.is_cancelled)
        return Read(model.source, lenses, " ".join(illegible(self.lab, vector, lenses)))

    def draw(self, found: Read) -> None:
        """Show tokens, or how to get them."""
        self.waits = found.lenses is None
        self.query_one("#load").display = self.waits and not self.progress
        content = self._invitation(found.source) if found.lenses is None else drawn(found)
        self.query_one("#tokens", Static).update(content)
        self.refresh_bindings()

    def _invitation(self, source: str) -> Content:
        text = (
            "The tokens that this direction promotes and suppresses need the unembedding of "
            f"{source}, which is not loaded."
        )
        how = self.progress or "f3 and then Enter loads it; so does generating a text."
        return Content.styled(printable(f"{text}\n\n{how}", newlines=True), "$text-muted")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer Enter only while the model is missing."""
        return action != "load" or (self.waits and not self.progress)

    @on(Button.Pressed, "#load")
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_load()

    def action_load(self) -> None:
        """Load the model of the vector shown."""
        if self.summary is not None and self.waits and not self.progress:
            self._say(f"loading {self.summary.model} …")
            self._load(self.summary)

    @work(thread=True, group="load")
    def _load(self, summary: Summary) -> None:
        from steerlab.interventions.hooks import check_fits

        with reporting_errors(self):
            vector = self.lab.store.load(summary.qualified)
            model = load_model(self.lab, vector, partial(self.call_later, self._say))
            check_fits(vector, model.identity, False)
        self.call_later(self._end_loading)

    def _end_loading(self) -> None:
        """Show the tokens once the model is loaded, or how to get them if it failed to."""
        self._say("")
        if self.summary is not None:
            self.show(self.summary)

    def _say(self, text: str) -> None:
        self.progress = text
        if self.summary is not None and self.is_whole:
            self.draw(Read(self.summary.model))


def drawn(found: Read) -> Content:
    """The tokens of each direction, side by side or on one line."""
    from steerlab.evaluation.inspection.logit_lens import beyond_chance

    lenses = found.lenses or ()
    lines = [Content.styled(printable(found.note), "$text-warning")] if found.note else []
    for lens in lenses:
        lines += _side_by_side(lens) if len(lenses) <= APART else _in_a_line(lens)
    if lenses:
        text = f"Logits per dose in the last residual stream; {beyond_chance(lenses)}."
        lines += [Content(""), Content.styled(text, "$text-muted")]
    return Content("\n").join(lines)


def _side_by_side(lens: Lens) -> list[Content]:
    if not lens.promoted:
        return [Content(f"{_place(lens)}: the direction is zero")]
    promoted = f"promoted, {_place(lens)}"
    lines = [Content.styled(f"{promoted:<{WIDTH + 8}}  suppressed", "bold")]
    for up, down in zip(lens.promoted, lens.suppressed, strict=True):
        lines.append(
            Content.assemble(
                (set_cell_size(up.text, WIDTH), "$text-success"),
                f" {up.logit:+7.1f}  ",
                (set_cell_size(down.text, WIDTH), "$text-error"),
                f" {down.logit:+7.1f}",
            )
        )
    return lines


def _in_a_line(lens: Lens) -> list[Content]:
    ends = [
        "  ".join(token.text for token in side[:6]) for side in (lens.promoted, lens.suppressed)
    ]
    return [
        Content.assemble((_place(lens), "bold")),
        Content.assemble(("+ ", "$text-success"), ends[0] or "the direction is zero"),
        Content.assemble(("− ", "$text-error"), ends[1]),
    ]


def _place(lens: Lens) -> str:
    row = "" if lens.row is None else f" row {lens.row}"
    return f"layer {lens.layer}{row}"
