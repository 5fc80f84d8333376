"""Progress of long work, and the question whether to stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

Progress = Callable[[int, int], object]
"""Called with (done, total)."""

Loading = Callable[[str, int, int], object]
"""Called with (what, done, total) while a model is fetched."""

ShouldStop = Callable[[], bool]
"""Asked between steps; True stops the work."""


class Watch(TypedDict, total=False):
    """The options of work that reports its progress and can be stopped."""

    progress: Progress | None
    should_stop: ShouldStop | None


class Parts:
    """Reports the progress of a job's parts as progress of the whole, in thousandths.

    progress: called with (done, 1000); None reports nothing.
    total: sum of the weights of all parts, in any unit.
    """

    def __init__(self, progress: Progress | None, total: float) -> None:
        self.progress, self.total, self.begun = progress, total, 0.0

    def part(self, weight: float) -> Progress | None:
        """The callback for the next part; `weight` is its share of `total`."""
        before, self.begun = self.begun, self.begun + weight
        whole, progress = self.total, self.progress
        if progress is None:
            return None
        return lambda done, total: progress(
            min(999, round(1000 * (before + weight * done / max(total, 1)) / whole)), 1000
        )

    def finish(self) -> None:
        """Report that the whole job is done."""
        if self.progress is not None:
            self.progress(1000, 1000)


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
