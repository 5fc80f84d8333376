"""Remove control characters from whatever widgets draw."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

CONTROL_CHARS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1 controls, line ends, and marks that change the direction of text."""


class NoControlChars(LineFilter):
    """Replaces control characters with spaces of the same width.

    Most text is escaped by `printable` before it is drawn. Text in an editable field can't be,
    because it would be saved with its escapes.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments without control characters."""
        return [
            Segment(CONTROL_CHARS.sub(_space, segment.text), segment.style, segment.control)
            if CONTROL_CHARS.search(segment.text) and not segment.control
            else segment
            for segment in segments
        ]


def _space(found: re.Match[str]) -> str:
    return " " * cell_len(found[0])
