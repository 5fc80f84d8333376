"""The last door: whatever a widget draws, no terminal obeys it."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

CONTROL_CHARS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls of C0 and C1, line ends, and marks that turn the direction of text around."""


class NoControlChars(LineFilter):
    """Leaves out of what is drawn all that is no text; widths stay as they were.

    Most text is escaped before it is drawn, so that it can be read (`printable`). What stands in
    a field that can be edited can't be: it would be stored with its escapes.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments; those with something to obey without it."""
        return [
            Segment(CONTROL_CHARS.sub(_space, segment.text), segment.style, segment.control)
            if CONTROL_CHARS.search(segment.text) and not segment.control
            else segment
            for segment in segments
        ]


def _space(found: re.Match[str]) -> str:
    return " " * cell_len(found[0])
