"""Progress of long work, and the question whether to stop it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], object]
"""Called with (done, total)."""

Loading = Callable[[str, int, int], object]
"""Called with (what, done, total) while a model is fetched."""

ShouldStop = Callable[[], bool]
"""Asked between steps; True stops the work."""


class Ticker:
    """A `should_stop` that counts how often it is asked: once a token, while a batch is written.

    done, total: tokens done before this batch, and in all batches.
    """

    def __init__(
        self, should_stop: ShouldStop | None, progress: Progress | None, done: int, total: int
    ) -> None:
        self.should_stop, self.progress = should_stop, progress
        self.done, self.total = done, total
        self.stopped = False

    def __call__(self) -> bool:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
        self.stopped = self.should_stop is not None and self.should_stop()
        return self.stopped
