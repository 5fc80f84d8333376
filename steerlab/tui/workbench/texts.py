"""The texts of a run side by side: they grow as they are written, and show where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Static

from steerlab.core.display import printable
from steerlab.tui.generation_text import marked
from steerlab.tui.partial_refresh import PartialRefresh
from steerlab.tui.setup import COLUMNS

NARROW = 22  # cells; columns that would get fewer stand below one another
HINTS = (
    "ctrl+g (or F5) writes here how the model goes on by itself,",
    "and here how it goes on when steered.",
)
_SHOWN = 400  # characters of a long prompt that are shown before its continuation


class Passage(Static, PartialRefresh):
    """A text that may grow: then its last line and what comes after it are drawn."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._drawn = (0, 0)  # cells across, lines

    def show(self, text: Content, *, grown: bool) -> int:
        """Draw a text; gives the lines it has. grown: it is the last one with more at its end."""
        width, height = self.size
        lines = text.get_height({}, width) if width else 0  # not laid out yet
        first = max(0, self._drawn[1] - 1) if grown and self._drawn[0] == width else 0
        last = lines if grown else max(lines, height)
        self._drawn = (width, lines)
        with self.only(Region(0, first, width, last - first)):
            self.update(text, layout=False)
        return lines


class Column(VerticalScroll, can_focus=True):
    """One text under its heading."""

    HELP = """\
A text that was written. Words that the baseline does not have are marked. \
* keeps this text as the best of the run; y copies the run as a command."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("asterisk", "pick", "best")]

    def __init__(self, index: int) -> None:
        super().__init__(id=f"text-{index}", classes="column")
        self.index = index
        self.written = ""
        self.prompt = ""

    def compose(self) -> ComposeResult:
        """The text."""
        yield Passage()

    def action_pick(self) -> None:
        """Say that this text is the best."""
        self.post_message(Texts.Picked(self.index))

    def draw(self, baseline: str | None = None, *, grown: bool = False) -> None:
        """Show what is written; baseline: mark the words that it does not have.

        grown: it has only grown since it was drawn last.
        """
        passage = self.query_one(Passage)
        text = Content.assemble((self.prompt, "dim"), marked(self.written, baseline))
        lines = passage.show(text, grown=grown)
        height = self.styles.height
        least = 1 if height is not None and height.is_auto else self.size.height
        if max(lines, least) == passage.size.height:
            return  # a layout of the whole screen takes from the model: only for what grows out
        passage.refresh(layout=True)
        if baseline is None:
            self.scroll_end(animate=False)


class Texts(Container):
    """Up to five columns, one a generation of the run."""

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
    Texts .column.best { border-subtitle-color: $text-warning; }
    """

    @dataclass
    class Picked(Message):
        """The reader likes the text of this column best."""

        index: int

    def __init__(self) -> None:
        super().__init__()
        self.baseline: int | None = 0
        self._all = [Column(index) for index in range(COLUMNS[-1])]  # asked for at every token
        self._count = 2

    def compose(self) -> ComposeResult:
        """All columns there can be; those of the run are shown."""
        yield from self._all

    def on_mount(self) -> None:
        """Show what will stand here."""
        self.begin(("baseline", "steered"), "", baseline=0)
        for column, what in zip(self.columns, HINTS, strict=True):
            column.query_one(Static).update(Content.styled(what, "dim"))

    @property
    def columns(self) -> list[Column]:
        """The columns of the run, from left to right."""
        return self._all[: self._count]

    def begin(self, headings: Sequence[str], prompt: str, *, baseline: int | None) -> None:
        """Clear the columns and give them headings; texts will continue the prompt."""
        self._count, self.baseline = len(headings), baseline
        tail = prompt if len(prompt) <= _SHOWN else f"…{prompt[-_SHOWN:]}"
        for column in self._all:
            column.display = column.index < self._count
            column.written, column.prompt = "", printable(tail, newlines=True)
            column.border_subtitle = ""
            column.remove_class("best")
            if column.display:
                column.set_class(column.index != baseline, "steered")
                column.border_title = Content(printable(headings[column.index]))
                column.draw()
        self._arrange()

    def write(self, index: int, piece: str) -> None:
        """Let a text grow."""
        column = self.columns[index]
        column.written += piece
        column.draw(grown=True)

    def finish(self) -> None:
        """All is written: mark what differs from the baseline."""
        plain = self.baseline
        baseline = self.columns[plain].written if plain is not None else None
        for column in self.columns:
            column.draw(None if column.index == plain else baseline)
            column.scroll_home(animate=False)

    def show_best(self, index: int | None) -> None:
        """Put a star on the text that was liked best."""
        for column in self.columns:
            column.set_class(column.index == index, "best")
            column.border_subtitle = "★ best" if column.index == index else ""

    def on_resize(self, event: events.Resize) -> None:
        """Columns that would be too narrow to read stand below one another."""
        self._arrange()

    def _arrange(self) -> None:
        self.set_class(self.size.width < NARROW * self._count, "-stacked")
