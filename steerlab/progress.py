"""Progress of long work, and the question whether to stop it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Self, TypedDict, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Progress = Callable[[int, int], object]
"""Called with (done, total)."""

Loading = Callable[[str, int, int], object]
"""Called with (what, done, total) while a model is fetched."""

ShouldStop = Callable[[], bool]
"""Asked between steps; True stops the work."""


PROGRESS_VARIABLE, LINES = "STEERLAB_PROGRESS", "lines"
"""Set in a command's environment, it writes progress as lines for the program that started it."""


@dataclass(frozen=True)
class ProgressLine:
    """Progress as a command writes it to stderr. total: 0 while it is not known."""

    label: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"\x1e{self.done} {self.total} {self.label}"

    @classmethod
    def parsed(cls, line: str) -> Self | None:
        """What was written as a line; None for any other line."""
        done, _, rest = line.removeprefix("\x1e").partition(" ")
        total, _, label = rest.partition(" ")
        if not line.startswith("\x1e") or not (done.isdecimal() and total.isdecimal()):
            return None
        return cls(label.rstrip("\n"), int(done), int(total))


class Watch(TypedDict, total=False):
    """The options of work that reports its progress and can be stopped."""

    progress: Progress | None
    should_stop: ShouldStop | None


def followed(items: Sequence[T], progress: Progress | None) -> Iterator[T]:
    """The items one by one, each reported when it is done."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(done, len(items))


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


_has_bar = ContextVar("steerlab_has_bar", default=False)


def in_notebook() -> bool:
    """Whether the code runs in the kernel of a notebook; imports nothing."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def with_bar(label: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate work that takes `progress` by name: in notebooks it has a bar if it gets none.

    Work within it has no bar of its own, and none appears for what is done in half a second.
    """

    def decorate(work: Callable[P, R]) -> Callable[P, R]:
        @wraps(work)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs.get("progress") is not None or _has_bar.get() or not in_notebook():
                return work(*args, **kwargs)
            with _bar(label) as progress:
                kwargs["progress"] = progress
                return work(*args, **kwargs)

        return watched

    return decorate


@contextmanager
def _bar(label: str) -> Iterator[Callable[..., object]]:
    """A bar of tqdm, of text where the notebook has no widgets."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets
        from tqdm.auto import tqdm

        bar: Any = tqdm(desc=label, leave=False, delay=0.5)

    def move(*at: Any) -> None:
        *what, done, bar.total = at
        if what:
            bar.set_description(str(what[0]), refresh=False)
        bar.update(done - bar.n)

    token = _has_bar.set(True)
    try:
        yield move
    finally:
        _has_bar.reset(token)
        bar.close()
