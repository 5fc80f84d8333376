"""Tokens: which tokens a direction promotes and suppresses, once its model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import set_cell_size
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.detail.pane import Pane
from steerlab.tui.notices import reporting_errors

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.logit_lens import Lens
    from steerlab.registry import Summary

MOST = 10
"""Tokens of each side of a direction; where there are many directions, a few in a line."""

APART = 3
"""Directions whose tokens stand one below the other."""

WIDTH = 15  # cells of a token


@dataclass(frozen=True)
class Read:
    """Lenses, and a word on them; None where the model is not loaded."""

    source: str
    lenses: Sequence[Lens] | None = None
    note: str = ""


class Tokens(Pane):
    """Promoted and suppressed tokens, side by side."""

    HELP = """\
The tokens that the direction promotes and suppresses by itself, read through the model's final \
norm and unembedding. That takes the model: Enter loads it."""

    DEFAULT_CSS = """
    Tokens Static { height: auto; }
    Tokens Button { margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "load", "load the model")]

    @dataclass
    class Loaded(Message):
        """The model is there, or could not be loaded."""

    @dataclass
    class Loading(Message):
        """How far the model is."""

        text: str

    waits = False  # for somebody to ask for the model
    progress = ""

    def compose(self) -> ComposeResult:
        """The tokens; or what it takes to see them."""
        yield Static(id="tokens", markup=False)
        yield Button("load the model", id="load", compact=True)

    def on_mount(self) -> None:
        """Nothing is asked for yet."""
        self.query_one("#load").display = False

    def read(self, summary: Summary, worker: Worker[None]) -> Read:
        """The lens, if the vector's model is loaded already: looking at a vector loads none."""
        vector = self.lab.store.load(summary.qualified)
        model = self.lab.loaded_for(vector)
        if model is None:
            return Read(vector.model.source)
        from steerlab.evaluation.inspection.inspect import illegible
        from steerlab.evaluation.inspection.logit_lens import logit_lens

        lenses = logit_lens(model, vector, top=MOST, should_stop=lambda: worker.is_cancelled)
        return Read(model.source, lenses, " ".join(illegible(self.lab, vector, lenses)))

    def draw(self, found: Read) -> None:
        """Tokens, or how to get them."""
        self.waits = found.lenses is None
        self.query_one("#load").display = self.waits and not self.progress
        content = self._invitation(found.source) if found.lenses is None else drawn(found)
        self.query_one("#tokens", Static).update(content)
        self.refresh_bindings()

    def _invitation(self, source: str) -> Content:
        text = (
            "Which tokens this direction promotes and suppresses is read through the "
            f"unembedding of {source}, which is not loaded."
        )
        how = self.progress or "f3, then Enter, loads it; so does the first text that is written."
        return Content.styled(printable(f"{text}\n\n{how}", newlines=True), "$text-muted")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enter means something only while the model is missing."""
        return action != "load" or (self.waits and not self.progress)

    @on(Button.Pressed, "#load")
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_load()

    def action_load(self) -> None:
        """Load the model of the vector that is shown."""
        if self.summary is not None and self.waits and not self.progress:
            self._say(f"loading {self.summary.model} …")
            self._load(self.summary)

    @work(thread=True, group="load")
    def _load(self, summary: Summary) -> None:
        from steerlab.interventions.hooks import check_fits

        with reporting_errors(self):
            from steerlab.models.loading import hush

            hush()
            vector = self.lab.store.load(summary.qualified)
            check_fits(vector, self.lab.load(vector, self._progress).identity, False)
        self.post_message(self.Loaded())

    def _progress(self, what: str, done: int, total: int) -> None:
        percent = f" {100 * done // total}%" if total > 1 else ""
        self.post_message(self.Loading(f"{what} the embedded model{percent} …"))

    @on(Loading)
    def _loading_on(self, event: Loading) -> None:
        event.stop()
        self._say(event.text)

    @on(Loaded)
    def _loaded(self, event: Loaded) -> None:
        event.stop()
        self.progress = ""
        if self.summary is not None:
            self.show(self.summary)

    def _say(self, text: str) -> None:
        self.progress = text
        if self.summary is not None:
            self.draw(Read(self.summary.model))


def drawn(found: Read) -> Content:
    """Directions one below the other; a line each where there are many."""
    lenses = found.lenses or ()
    lines = [Content.styled(printable(found.note), "$text-warning")] if found.note else []
    for lens in lenses:
        lines += _side_by_side(lens) if len(lenses) <= APART else _in_a_line(lens)
    if lenses:
        text = (
            f"Logits per dose in the last residual stream; at random, a direction's first token "
            f"comes to ±{lenses[0].chance:.1f}."
        )
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
