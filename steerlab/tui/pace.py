"""How fast a model writes, and how often what it writes is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.lab import Cell

FRAMES = 10
"""Times a second that growing texts are drawn: more is not seen, and takes from the model."""

SAID = 0.25
"""Seconds between two words on how fast the model writes."""


class Pace:
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
        stopped = any(cell.completion.finish == "cancelled" for cell in cells)
        ending = "stopped" if stopped else "done"
        return f"{ending} · {self.done} tokens · {self.speed(now):.0f} tok/s"


class Frames:
    """Gathers pieces of the columns' texts, and hands them on at most FRAMES times a second."""

    def __init__(self, hand_on: Callable[[Mapping[int, str]], object]) -> None:
        self._hand_on = hand_on
        self._pieces: dict[int, str] = {}
        self._last = 0.0

    def add(self, column: int, piece: str) -> None:
        """Take a piece of one column."""
        self._pieces[column] = self._pieces.get(column, "") + piece

    def step(self) -> None:
        """All columns have grown by a token: hand on what there is, if it is time."""
        if time.perf_counter() - self._last >= 1 / FRAMES:
            self.finish()

    def finish(self) -> None:
        """Hand on what there is."""
        if self._pieces:
            self._last = time.perf_counter()
            self._hand_on(self._pieces)
            self._pieces = {}
