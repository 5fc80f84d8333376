"""How fast a model generates, and how often its text is shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.cell import Cell

FRAMES = 10
"""How often a second growing texts are drawn; more would slow the model."""

SAID = 0.25
"""Seconds between reports of the speed."""


class Throughput:
    """Tokens per second, reported every SAID seconds."""

    def __init__(self) -> None:
        self.said = time.perf_counter()
        self.first: float | None = None
        self.done = 0

    def tick(self, done: int, total: int) -> str | None:
        """Count tokens of a row; a status line if one is due."""
        now = time.perf_counter()
        self.done = done
        self.first = self.first or now
        if now - self.said < SAID:
            return None
        self.said = now
        return f"{done}/{total} tokens · {self.speed(now):.0f} tok/s"

    def speed(self, now: float) -> float:
        """Tokens per second of each row, after the first."""
        return (self.done - 1) / (now - self.first) if self.first and now > self.first else 0.0

    def result(self, cells: Sequence[Cell]) -> str:
        """The final status line."""
        now = time.perf_counter()
        stopped = any(cell.finish == "cancelled" for cell in cells)
        ending = "stopped" if stopped else "done"
        return f"{ending} · {self.done} tokens · {self.speed(now):.0f} tok/s"


class Frames:
    """Queue of text pieces from the model's thread to the screen.

    The screen is notified at most FRAMES times a second, and then takes all pieces so far.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, str]] = deque()
        self._told = 0.0

    def add(self, column: int, piece: str) -> bool:
        """Queue a piece; True if the screen is due to be notified."""
        self._pieces.append((column, piece))
        now = time.perf_counter()
        if now - self._told < 1 / FRAMES:
            return False
        self._told = now
        return True

    def take(self) -> dict[int, str]:
        """Column -> its text since the last call."""
        grown: dict[int, str] = {}
        while self._pieces:
            column, piece = self._pieces.popleft()
            grown[column] = grown.get(column, "") + piece
        return grown
