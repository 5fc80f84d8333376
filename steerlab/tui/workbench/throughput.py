"""How fast a model generates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.cell import Cell

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
