"""Help: a description of the focused region, and its keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

from rich.cells import cell_len
from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.widget import Widget
from textual.widgets import Static

HELP_KEY = Binding(
    "f1,question_mark", "help", "help", key_display="?", tooltip="show help and all keys"
)
MOVES = "Arrows, page up/down, home and end move; Tab goes on to the next field."

SERIES = ("tab", "go", "rate")
"""Actions with several keys that help shows as one line."""

Keys = Sequence[tuple[str, str]]


class Helpful(Screen[ScreenResultType]):
    """A screen that binds HELP_KEY and shows `HELP` of the focused region, then its own."""

    def action_help(self) -> None:
        """Show the help of the focused region."""
        chain = (self.focused or self).ancestors_with_self
        within = (w for w in chain if isinstance(w, Widget) and w.HELP and w is not self)
        own = [str(widget.HELP) for widget in within][:1]
        about = "\n\n".join([*own, self.explanation])
        self.app.push_screen(HelpDialog(about, list(self._keys())))

    @property
    def explanation(self) -> str:
        """What the screen is for."""
        return str(self.HELP or "")

    def _keys(self) -> Iterator[tuple[str, str]]:
        """Keys that do something now: first those that the footer shows."""
        active = {a.binding.key: a.binding.action for a in self.active_bindings.values()}
        shown = sorted((b for _, b in features(self)), key=lambda b: not b.show)
        alive = [b for b in shown if active.get(b.key) == b.action]
        for name, series in groupby(alive, key=lambda b: parse(b.action)[1]):
            said = {phrase(b).removesuffix("…"): self.app.get_key_display(b) for b in series}
            (first, key), *more = said.items()
            if name in SERIES and more:
                last, end = more[-1]
                yield f"{key}…{end}", f"{first} … {last.split()[-1]}"
            else:
                yield from ((key, what) for what, key in said.items())


def features(screen: Screen[Any]) -> Iterator[tuple[DOMNode, Binding]]:
    """Steerlab's own bindings from the focus outward, but for those that only move a cursor.

    Unlike a screen's active bindings, they include letters that a focused field takes as text.
    """
    for node in (screen.focused or screen).ancestors_with_self:
        for kind in type(node).__mro__:
            if kind.__module__.startswith("steerlab."):
                for binding in Binding.make_bindings(kind.__dict__.get("BINDINGS", ())):
                    _, name, parameters = parse(binding.action)
                    if not binding.system and node.check_action(name, parameters):
                        yield node, binding


def phrase(binding: Binding) -> str:
    """What a key does, as a verb and a noun: the tooltip where the footer has but one word."""
    return binding.tooltip or binding.description


class HelpDialog(ModalScreen[None]):
    """A description and the keys, in two columns where there is room."""

    DEFAULT_CSS = """
    HelpDialog { align: center middle; }
    HelpDialog > VerticalScroll { width: 96; max-width: 100%; height: auto; max-height: 100%; }
    HelpDialog > VerticalScroll { border: round $accent; background: $surface; padding: 0 1; }
    HelpDialog > VerticalScroll { scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,question_mark,enter", "dismiss", "close", tooltip="close the help")
    ]

    def __init__(self, about: str, keys: Keys) -> None:
        super().__init__()
        self.about, self.keys = about, keys

    def compose(self) -> ComposeResult:
        """The description, then the keys."""
        with VerticalScroll() as box:
            box.border_title, box.border_subtitle = "help", "↑ ↓ scroll · Esc or a click closes"
            lines = columns_of(self.keys, min(self.app.size.width, 96) - 5)
            text = "\n".join([*lines, MOVES])
            yield Static(f"{self.about}\n", markup=False)
            yield Static(text, markup=False)

    def on_click(self) -> None:
        """Close: there is nothing to click on."""
        self.dismiss()


def columns_of(keys: Keys, width: int) -> list[str]:
    """The keys as lines: two to a line if each fits into half of the width."""
    widest = max((cell_len(key) for key, _ in keys), default=0)
    cells = [f"{' ' * (widest - cell_len(key))}{key}  {what}" for key, what in keys]
    half = width // 2
    if any(cell_len(cell) > half - 1 for cell in cells):
        return cells
    rows = -(-len(cells) // 2)
    right = [*cells[rows:], ""]
    pairs = zip(cells[:rows], right, strict=False)
    return [left + " " * (half - cell_len(left)) + other for left, other in pairs]
