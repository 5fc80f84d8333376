"""A list of prompts as text, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual.message import Message
from textual.widgets import TextArea

from steerlab.core.prompts import check_text
from steerlab.errors import BadPrompts

BREAK = "⏎"
"""Shown for a line break inside a prompt, because each line of a list is one prompt."""

_PICTURES = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}


class PromptList(TextArea):
    """Numbered prompts, one per line; pair i is line i of both lists."""

    @dataclass
    class Scrolled(Message):
        """The focused list was scrolled to this line."""

        side: PromptList
        line: float

    def __init__(self, text: str, placeholder: str, **kwargs: Any) -> None:
        super().__init__(
            text,
            soft_wrap=False,
            show_line_numbers=True,
            highlight_cursor_line=False,
            placeholder=placeholder,
            **kwargs,
        )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The lines as prompts, spaces included; empty lines at the end are dropped."""
        return prompts_of(self.text)

    def get_line(self, line_index: int) -> Text:
        """The line with control characters as pictures: none may reach the terminal."""
        return Text(self.document.get_line(line_index).translate(_PICTURES), end="", no_wrap=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Post the position, so that the other list can follow."""
        super().watch_scroll_y(old_value, new_value)
        if self.has_focus:
            self.post_message(self.Scrolled(self, new_value))


def prompts_of(text: str) -> tuple[str, ...]:
    """The prompts of a list: its lines without empty ones at the end."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.replace(BREAK, "\n") for line in lines)


def lines_of(prompts: Sequence[str], *, fixed: bool = False) -> str:
    """Inverse of `prompts_of`; raises BadPrompts for a prompt that no line can hold.

    fixed: they are shown alone, so lines may end where they will.
    """
    if fixed:
        return "\n".join(" ".join(prompt.replace("\n", BREAK).splitlines()) for prompt in prompts)
    for number, prompt in enumerate(prompts, 1):
        check_text(prompt, f"prompt {number}")
        if BREAK in prompt or len(prompt.replace("\n", BREAK).splitlines()) > 1:
            raise BadPrompts(
                f"prompt {number} contains a character that ends a line here: "
                "use `steerlab extract --pairs` for this file"
            )
    return "\n".join(prompt.replace("\n", BREAK) for prompt in prompts)
