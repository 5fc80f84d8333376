"""The prompt that the model continues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea


class Prompt(TextArea):
    """The prompt: Enter generates; pasted text keeps its lines."""

    HELP = "The text to continue. Enter generates; ctrl+j or alt+enter makes a new line."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "continue the prompt", priority=True, show=False),
        Binding("alt+enter,ctrl+j", "newline", "begin a new line", show=False),
    ]

    @dataclass
    class Submitted(Message):
        """Enter was pressed in the prompt."""

    def __init__(self, text: str) -> None:
        super().__init__(
            text, compact=True, highlight_cursor_line=False, id="prompt", placeholder="a prompt"
        )

    def action_submit(self) -> None:
        """Ask for a generation."""
        self.post_message(self.Submitted())

    def action_newline(self) -> None:
        """Start a new line."""
        self.insert("\n")
