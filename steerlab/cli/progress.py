"""While something runs: progress and signs of life on stderr, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.output import say
from steerlab.core.display import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_APART = 0.1  # seconds without anything printed after which a hidden bar comes back


class Interrupt:
    """Whether Ctrl-C was pressed; called between tokens as `should_stop`."""

    def __init__(self) -> None:
        self.fired = False

    def __call__(self) -> bool:
        return self.fired

    def check(self, message: str = "cancelled; what had come so far is shown") -> None:
        """End the command as cancelled, once what came so far has been shown."""
        if self.fired:
            raise click.Abort(message)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C stops after the token at hand, and keeps what came; a second one stops at once."""
    interrupt = Interrupt()

    def handle(signum: int, frame: Any) -> None:
        if interrupt.fired:
            raise KeyboardInterrupt
        interrupt.fired = True

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def console(*, stderr: bool = False) -> Console:
    """A rich console for what moves: live text and progress. NO_COLOR is honoured."""
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False)


class Bar:
    """Progress of one thing, called with (done, total). shown: None shows nothing."""

    def __init__(self, label: str, shown: Progress | None) -> None:
        self.shown, self.hidden = shown, 0.0
        if shown is not None:
            self.task = shown.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        if self.shown is not None:
            self.shown.update(self.task, completed=done, total=total)
            if time.monotonic() - self.hidden > _APART:
                self.shown.start()

    def hide(self) -> None:
        """Make way for what is printed now; what is told of progress later brings it back."""
        if self.shown is not None:
            self.shown.stop()
            self.hidden = time.monotonic()


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar on stderr with the time left. Silent in pipes and with -q."""
    target = None if quiet or not sys.stderr.isatty() else console(stderr=True)
    if target is None or not target.is_interactive:
        yield Bar(label, None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=target, transient=True) as bar:
        yield Bar(label, bar)


@contextmanager
def loading_bar(source: str, *, quiet: bool = False) -> Iterator[Any]:
    """A sign of life while a model is loaded; a callable (what, done, total) for its fetching."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _Announcer()
        return
    from rich.markup import escape

    target = console(stderr=True)
    with target.status(escape(printable(f"loading {source} …"))) as status:
        bars = _FetchBars(status, target)
        try:
            yield bars
        finally:
            bars.stop()


class _FetchBars:
    """Progress of fetching and converting the embedded model, in place of the spinner."""

    def __init__(self, status: Any, target: Console) -> None:
        self.status, self.target = status, target
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = self._begun()
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(f"{what} smollm2", total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _begun(self) -> Any:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.status.stop()
        text = TextColumn("{task.description}")
        columns = (text, BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.target, transient=True)
        bar.start()
        return bar


class _Announcer:
    """Says each stage once, where no bar can be drawn."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.said:
            self.said.add(what)
            size = f" ({total / 1e6:.0f} MB)" if total > 1000 else ""
            say(f"{what} the embedded model{size} …")
