"""How fast a model writes, and how often what it writes is shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.cell import Cell

FRAMES = 10
"""Times a second that growing texts are drawn: more is not seen, and takes from the model."""

SAID = 0.25
"""Seconds between two words on how fast the model writes."""


class Throughput:
    """How fast a model writes, said every SAID seconds."""

    def __init__(self) -> None:
        self.start = self.said = time.perf_counter()
        self.first: float | None = None
        self.done = 0

    def tick(self, done: int, total: int) -> str | None:
        """What to say after so many tokens of a row, if it is time to say something."""
        now = time.perf_counter()
        self.done = done
        self.first = self.first or now
        if now - self.said < SAID:
            return None
        self.said = now
        return f"{done}/{total} tokens · {self.speed(now):.0f} tok/s"

    def speed(self, now: float) -> float:
        """Tokens a second of each row, once the prompt is read."""
        return (self.done - 1) / (now - self.first) if self.first and now > self.first else 0.0

    def result(self, cells: Sequence[Cell]) -> str:
        """How it ended."""
        now = time.perf_counter()
        stopped = any(cell.finish == "cancelled" for cell in cells)
        ending = "stopped" if stopped else "done"
        return f"{ending} · {self.done} tokens · {self.speed(now):.0f} tok/s"


class Frames:
    """Pieces of the columns' texts on their way from the model to the screen.

    The model's thread adds them; the screen is told of them at most FRAMES times a second, and
    then takes all that have come, other columns' and later ones too.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, str]] = deque()
        self._told = 0.0

    def add(self, column: int, piece: str) -> bool:
        """Take a piece of one column; whether it is time to tell the screen."""
        self._pieces.append((column, piece))
        now = time.perf_counter()
        if now - self._told < 1 / FRAMES:
            return False
        self._told = now
        return True

    def take(self) -> dict[int, str]:
        """What every column has grown by since the last time."""
        grown: dict[int, str] = {}
        while self._pieces:
            column, piece = self._pieces.popleft()
            grown[column] = grown.get(column, "") + piece
        return grown
