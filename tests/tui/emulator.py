"""As much of a terminal as it takes to know what a terminal UI shows."""

from __future__ import annotations

import re

from rich.cells import cell_len

_TOKENS = re.compile(
    r"\x1b\[(?P<private>[?>=<]*)(?P<numbers>[\d;:]*)(?P<final>[ -/]*[@-~])"  # CSI
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC
    r"|\x1b."
    r"|(?P<text>.)",
    re.S,
)


class Emulator:
    """Cells on which text, cursor moves and clearing have their effect; colours have none."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.cells = [[" "] * width for _ in range(height)]
        self.row = self.column = 0

    def __str__(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def feed(self, data: bytes) -> None:
        """Take what a program wrote; escape sequences have to be whole."""
        for token in _TOKENS.finditer(data.decode()):
            if (text := token["text"]) is not None:
                self._write(text)
            elif token["final"] and not token["private"]:
                numbers = [int(n) if n else 0 for n in re.split("[;:]", token["numbers"])]
                self._control(token["final"], numbers)

    def _write(self, text: str) -> None:
        if text == "\n":
            self.row += 1
        elif text == "\r":
            self.column = 0
        elif text >= " ":
            if self.row < self.height and self.column < self.width:
                self.cells[self.row][self.column] = text
            self.column += cell_len(text)

    def _control(self, final: str, numbers: list[int]) -> None:
        first = max(numbers[0], 1)
        if final in "Hf":
            self.row = first - 1
            self.column = max(numbers[1] if len(numbers) > 1 else 1, 1) - 1
        elif final in "ABCD":
            self.row += {"A": -first, "B": first}.get(final, 0)
            self.column += {"C": first, "D": -first}.get(final, 0)
        elif final == "J":
            self.cells = [[" "] * self.width for _ in range(self.height)]
        elif final == "K" and self.row < self.height:
            self.cells[self.row][self.column :] = [" "] * (self.width - self.column)
