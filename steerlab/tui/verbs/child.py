"""A command in a process of its own: its lines as they come, and its progress."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from steerlab.core.display import printable
from steerlab.progress import LINES, PROGRESS_VARIABLE, ProgressLine

CANCELLED = 130  # the exit code of a command that was stopped


def program() -> list[str]:
    """The words that start steerlab in this interpreter."""
    here = Path(__file__).parents[3] == Path.cwd()  # a checkout that need not be installed
    # -P: a random.py in the working directory must not shadow Python's
    return [sys.executable, *([] if here else ["-P"]), "-m", "steerlab"]


def talk(words: Sequence[str]) -> int:
    """Run a command that has the terminal for itself; its exit code.

    Ctrl+C is the command's alone. After a failure the terminal stays until Enter is pressed.
    """
    print(f"$ steerlab {printable(shlex.join(words))}", flush=True)
    # not SIG_IGN, which the command would inherit
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.call([*program(), *words])
        if code:
            with suppress(EOFError):
                input("Press Enter to go back. ")
    finally:
        signal.signal(signal.SIGINT, before)
    return code


def _take_interrupts() -> None:
    """Undo that a program which was started in the background ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Child:
    """A running command; it reads no input, and its errors are lines among its output.

    width: cells of a line of its tables.
    """

    def __init__(self, words: Sequence[str], width: int) -> None:
        variables = {
            "COLUMNS": str(width),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            PROGRESS_VARIABLE: LINES,
        }
        self.process = subprocess.Popen(
            [*program(), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | variables,
            start_new_session=True,  # Ctrl+C in the terminal is not for it
            preexec_fn=_take_interrupts if os.name == "posix" else None,
        )

    def lines(self) -> Iterator[str | ProgressLine]:
        """What it writes, until it ends."""
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                yield ProgressLine.parsed(line) or line.rstrip("\n")

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait()

    def interrupt(self) -> None:
        """Ask it to stop and to show what it has, as Ctrl+C does."""
        self._send(signal.SIGINT)

    def end(self) -> None:
        """End it, if it has not ended."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        with suppress(OSError, ValueError):  # it has ended; Windows knows no SIGINT for others
            self.process.send_signal(number)
