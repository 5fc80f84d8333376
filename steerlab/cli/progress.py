"""While a verb works: progress on stderr, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.output import asked, say
from steerlab.core.display import printable
from steerlab.core.notation import runs, subscript
from steerlab.errors import ModelError
from steerlab.progress import LINES, PROGRESS_VARIABLE, ProgressLine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

_TOO_EARLY, _TOO_LITTLE = 5.0, 0.03  # seconds, and share of the work, before a time is said
_TOLD = 0.1  # seconds between lines of progress

STOP_KEY = "Esc" if os.environ.get(PROGRESS_VARIABLE) == LINES else "Ctrl-C"
"""What stops a command: in the terminal UI, which runs it, not what it is in a shell."""
_QUIET_FOR = 0.1  # seconds after the last printed line before a hidden bar comes back


class Interrupt:
    """Whether Ctrl-C was pressed; called between tokens as `should_stop`."""

    def __init__(self) -> None:
        self.fired = False

    def __call__(self) -> bool:
        return self.fired

    def check(self, message: str = "cancelled; the results so far are shown") -> None:
        """End the verb as cancelled; called after the results so far were shown."""
        if self.fired:
            raise click.Abort(message)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C stops after the current token and keeps the results; a second one stops at once."""
    interrupt = Interrupt()

    def handle(signum: int, frame: Any) -> None:
        if interrupt.fired:
            raise KeyboardInterrupt
        interrupt.fired = True

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not the main thread, where no Ctrl-C arrives
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def console(*, stderr: bool = False) -> Console:
    """A rich console for live text and progress; NO_COLOR is honoured."""
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False)


def about(seconds: float) -> str:
    """A time to wait in round numbers, which stay put while the pace changes a little."""
    if seconds < 60:
        return f"about {max(10 * round(seconds / 10), 10)} s left"
    minutes = seconds / 60
    step = 1 if minutes < 5 else 5 if minutes < 30 else 15
    return f"about {step * max(round(minutes / step), 1)} min left"


class Bar:
    """Progress of one task, called with (done, total). shown: None shows nothing."""

    def __init__(self, label: str, shown: Progress | None) -> None:
        self.shown, self.hidden = shown, 0.0
        self.began: tuple[float, int] | None = None
        self.last = 0
        self.announced: set[str] = set()
        if shown is not None:
            self.task = shown.add_task(label, total=None, left="")

    def __call__(self, done: int, total: int) -> None:
        if self.shown is not None:
            left = self._left(done, total)
            self.shown.update(self.task, completed=done, total=total, left=left)
            if time.monotonic() - self.hidden > _QUIET_FOR:
                self.shown.start()

    def _left(self, done: int, total: int) -> str:
        """About how long it will take at the pace so far, in round numbers; empty at first."""
        now = time.monotonic()
        if self.began is None or done < self.last:  # it counts anew: another stage
            self.began = now, done
        self.last = done
        started, first = self.began
        if now - started < _TOO_EARLY or done - first <= _TOO_LITTLE * total:
            return ""
        return about((now - started) * (total - done) / (done - first))

    def stage(self, what: str, done: int, total: int) -> None:
        """A stage of fetching the embedded model; announced once where no bar can be drawn."""
        if self.shown is not None:
            self.shown.update(self.task, description=f"{what} smollm2")
        elif what not in self.announced:
            self.announced.add(what)
            size = f" ({total / 1e6:.0f} MB)" if total > 1000 else ""
            say(f"{what} the embedded model{size} …")
        self(done, total)

    def hide(self) -> None:
        """Make way for a line to print; later progress brings the bar back."""
        if self.shown is not None:
            self.shown.stop()
            self.hidden = time.monotonic()


class BarInLines(Bar):
    """Progress as lines on stderr, for the program that runs this command."""

    def __init__(self, label: str) -> None:
        super().__init__(label, None)
        self.label, self.told = label, 0.0
        self.tell(0, 0)

    def tell(self, done: int, total: int) -> None:
        """Write a line."""
        self.told = time.monotonic()
        click.echo(str(ProgressLine(printable(self.label), done, total)), err=True)

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.told > _TOLD or done == total:
            self.tell(done, total)


@contextmanager
def progress_bar(label: str) -> Iterator[Bar]:
    """A bar on stderr with the time left; none in a pipe or with -q."""
    if os.environ.get(PROGRESS_VARIABLE) == LINES:
        yield BarInLines(label)
        return
    target = None if asked("quiet") or not sys.stderr.isatty() else console(stderr=True)
    if target is None or not target.is_interactive:
        yield Bar(label, None)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    text, left = (
        TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[left]")
    )
    bars = Progress(text, BarColumn(), left, console=target, transient=True)
    with bars:
        yield Bar(printable(label), bars)


def load(lab: Lab, vector: SteeringVector | None = None) -> None:
    """Load the model named by --model, else the vector's own, with a sign of life.

    Loads nothing where an engine runs it, which is started if need be.
    """
    if lab.engine is not None:
        lab.load(vector)
        if lab.engine == "vllm":
            from steerlab.cli.engine import started

            lab.engine = started(lab)
        return
    source = lab.source or (vector.model.source if vector is not None else "smollm2")
    with progress_bar(f"loading {source} …") as bar:
        from steerlab.models.loading import hush

        hush()
        lab.load(vector, bar.stage)


def load_to_make(lab: Lab, vector: SteeringVector) -> None:
    """Load the model if the layer where a vector works is not stored, so that it has to be made.

    A ModelError says what can be written without it.
    """
    found = lab.calibration_of(vector)
    if found is not None and found.layer not in vector.directions:
        say(f"{vector} works at layer {found.layer}, which is made now: it is not stored")
        try:
            load(lab, vector)
        except ModelError as error:
            stored = [f"({vector})[{subscript(run)}]" for run in runs(vector.layers)]
            raise ModelError(f'{error}; what is stored is "{" + ".join(stored)}"') from None


def load_exactly(lab: Lab, vector: SteeringVector) -> None:
    """Load a model as other programs are compared with it, unless options say otherwise.

    In float32, on the CPU, in torch's own linear layers.
    """
    exact = {"device": "cpu", "dtype": "float32", "layout": "plain"}
    lab.options |= {name: lab.options.get(name) or value for name, value in exact.items()}
    load(lab, vector)
