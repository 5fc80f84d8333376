"""How often growing texts are shown: more would slow the model."""

from __future__ import annotations

import time
from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K")


class Frames(Generic[K]):
    """Queue of pieces of texts from the model's thread to the screen.

    The screen is notified at most `rate` times a second, and then takes all pieces so far.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._pieces: deque[tuple[K, str]] = deque()
        self._told = 0.0

    def add(self, text: K, piece: str) -> bool:
        """Queue a piece; True if the screen is due to be notified."""
        self._pieces.append((text, piece))
        now = time.perf_counter()
        if now - self._told < 1 / self.rate:
            return False
        self._told = now
        return True

    def take(self) -> dict[K, str]:
        """What each text has grown by since the last call."""
        grown: dict[K, str] = {}
        while self._pieces:
            text, piece = self._pieces.popleft()
            grown[text] = grown.get(text, "") + piece
        return grown
