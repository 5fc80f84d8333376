"""Help: a description of the focused region, and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.widget import Widget
from textual.widgets import Static

HELP_KEY = Binding("f1,question_mark", "help", "help", key_display="?")


class Helpful(Screen[ScreenResultType]):
    """A screen that binds HELP_KEY and shows `HELP` of the focused region, then its own."""

    def action_help(self) -> None:
        """Show the help of the focused region."""
        chain = (self.focused or self).ancestors_with_self
        own = [str(w.HELP) for w in chain if isinstance(w, Widget) and w.HELP]
        keys = {
            self.app.get_key_display(active.binding): active.binding.description.lower()
            for active in self.active_bindings.values()
            if active.binding.description and not active.binding.system
        }
        self.app.push_screen(HelpDialog("\n\n".join(dict.fromkeys(own)), list(keys.items())))


class HelpDialog(ModalScreen[None]):
    """A description and a list of keys."""

    DEFAULT_CSS = """
    HelpDialog { align: center middle; }
    HelpDialog > VerticalScroll { width: 84; max-width: 100%; height: auto; max-height: 100%; }
    HelpDialog > VerticalScroll { border: round $accent; background: $surface; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,question_mark,enter", "dismiss", "close")
    ]

    def __init__(self, about: str, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.about, self.keys = about, keys

    def compose(self) -> ComposeResult:
        """The description, then the keys."""
        width = max((len(key) for key, _ in self.keys), default=0)
        lines = [f"{key:>{width}}  {what}" for key, what in self.keys]
        with VerticalScroll() as box:
            box.border_title, box.border_subtitle = "help", "Esc or a click closes"
            yield Static(f"{self.about}\n", markup=False)
            with Vertical():
                yield Static("\n".join(lines), markup=False)

    def on_click(self) -> None:
        """Close: there is nothing to click on."""
        self.dismiss()
