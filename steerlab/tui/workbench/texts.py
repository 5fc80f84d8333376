"""The texts of a run side by side: they grow as they are generated, differences marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from steerlab.core.audit import AuditedText
from steerlab.core.display import printable
from steerlab.core.run import Run
from steerlab.tui.generation_text import audited, marked, rating_text
from steerlab.tui.partial_refresh import Paragraph
from steerlab.tui.setup import COLUMNS

NARROW = 22  # cells; narrower columns are stacked
HINTS = (
    "Press ctrl+g to generate. Baseline: the model without the vector.",
    "Steered: with the vector added.",
)
AUDIT = ("a", "screen.at('lab', 'audit')", "show changed tokens")
_SHOWN = 400  # characters of a long prompt shown before the text


class Column(VerticalScroll, can_focus=True):
    """A text under its heading."""

    HELP = """\
A generated text. Words that differ from the baseline are marked. * rates this text as the best of \
the run, 1 to 5 rate it alone; y copies the run as a command. a shows its tokens instead: █ before \
one that was changed most, ▄ and ▂ by up to two thirds and a third of that, · before one that was \
not changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("asterisk", "pick", "best (1-5 rate)", tooltip="rate the text as the best"),
        *(
            Binding(str(n), f"rate({n})", f"rate the text {n} of 5", show=False)
            for n in range(1, 6)
        ),
        Binding(*AUDIT),
        Binding("left", "beside(-1)", "to the text on the left", show=False),
        Binding("right", "beside(1)", "to the text on the right", show=False),
    ]

    def __init__(self, index: int) -> None:
        super().__init__(id=f"text-{index}", classes="column")
        self.index = index
        self.written = self.heading = ""
        self.prompt = ""
        self.audit: AuditedText | None = None
        self.shows_audit = False

    def compose(self) -> ComposeResult:
        """The text."""
        yield Paragraph()

    def action_pick(self) -> None:
        """Rate this text as the best."""
        self.post_message(Texts.Rated(self.index))

    def action_beside(self, step: int) -> None:
        """Go to the text beside this one, if there is one."""
        columns, place = self.query_ancestor(Texts).columns, self.index + step
        if 0 <= place < len(columns):
            columns[place].focus()

    def action_rate(self, rating: int) -> None:
        """Rate this text from 1 to 5."""
        self.post_message(Texts.Rated(self.index, rating))

    def draw(self, baseline: str | None = None, *, grown: bool = False) -> None:
        """Show the text. baseline: mark the words that differ from it. grown: since drawn last."""
        if self.shows_audit and self.audit is not None:
            text = audited(self.audit)
        else:
            text = Content.assemble((self.prompt, "dim"), marked(self.written, baseline))
        height = self.styles.height
        least = 1 if height is not None and height.is_auto else self.size.height
        changes = self.query_one(Paragraph).show(text, grown=grown, least=least)
        if changes and baseline is None:
            self.scroll_end(animate=False)


class Texts(Container):
    """Up to five columns, one per generation of the run."""

    DEFAULT_CSS = """
    Texts { height: 1fr; layout: horizontal; min-height: 3; }
    Texts.-stacked { layout: vertical; overflow-y: auto; }
    Texts .column { width: 1fr; height: 1fr; border: round $panel; padding: 0 1; }
    Texts .column { scrollbar-size-vertical: 1; border-title-color: $text-muted; }
    Texts .column Static { min-height: 100%; }
    Texts.-stacked .column { height: auto; min-height: 3; }
    Texts.-stacked .column Static { min-height: 1; }
    Texts .column.steered { border-title-color: $text-accent; }
    Texts .column:focus { border: round $accent; }
    Texts .column.best { border-title-color: $text-warning; }
    """

    @dataclass
    class Rated(Message):
        """The text of this column was rated from 1 to 5, or as the best without a number."""

        index: int
        rating: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.baseline: int | None = 0
        self._all = [Column(index) for index in range(COLUMNS[-1])]  # used at every token
        self._count = 2

    def compose(self) -> ComposeResult:
        """All columns; `begin` shows those of the run."""
        yield from self._all

    def on_mount(self) -> None:
        """Show hints."""
        self.begin(("baseline", "steered"), "", baseline=0)
        for column, what in zip(self.columns, HINTS, strict=True):
            column.query_one(Static).update(Content.styled(what, "dim"))

    @property
    def columns(self) -> list[Column]:
        """The columns of the run, from left to right."""
        return self._all[: self._count]

    def begin(self, headings: Sequence[str], prompt: str, *, baseline: int | None) -> None:
        """Clear the columns, and set their headings and the prompt."""
        self._count, self.baseline = len(headings), baseline
        tail = prompt if len(prompt) <= _SHOWN else f"…{prompt[-_SHOWN:]}"
        for column in self._all:
            column.display = column.index < self._count
            column.written, column.prompt = "", printable(tail, newlines=True)
            column.audit = None
            column.remove_class("best")
            if column.display:
                column.set_class(column.index != baseline, "steered")
                column.heading = headings[column.index]
                column.border_title = Content(printable(column.heading))
                column.draw()
        self._arrange()

    def write(self, index: int, piece: str) -> None:
        """Append to a text."""
        column = self.columns[index]
        column.written += piece
        column.draw(grown=True)

    def finish(self, audits: Sequence[AuditedText | None] = ()) -> None:
        """Mark the words that differ from the baseline. audits: what was changed in each text."""
        for column, audit in zip(self.columns, audits, strict=False):
            column.audit = audit
        plain = self.baseline
        baseline = self.columns[plain].written if plain is not None else None
        for column in self.columns:
            column.draw(None if column.index == plain else baseline)
            column.scroll_home(animate=False)

    def toggle_audit(self) -> bool:
        """Show the tokens that were changed, or the texts again; whether tokens are shown now."""
        for column in self._all:
            column.shows_audit = not column.shows_audit
        shown = self._all[0].shows_audit
        if self.is_audited:
            self.finish()
        elif shown:
            self.notify("changed tokens are shown from the next generation on", timeout=3)
        return shown

    @property
    def is_audited(self) -> bool:
        """Whether it is known what was changed in the texts."""
        return any(column.audit is not None for column in self.columns)

    def show_ratings(self, run: Run) -> None:
        """Put a star on the best text, and what each was rated."""
        for column, text in zip(self.columns, run.generations, strict=False):
            best = column.index == run.best
            column.set_class(best or text.rating is not None, "best")
            rated = rating_text(text.rating, best=best)
            column.border_title = Content(
                printable("  ".join(filter(None, (rated, column.heading))))
            )

    def on_resize(self, event: events.Resize) -> None:
        """Stack columns that would be too narrow."""
        self._arrange()

    def _arrange(self) -> None:
        self.set_class(self.size.width < NARROW * self._count, "-stacked")
