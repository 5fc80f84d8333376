"""A real terminal: tmux, on a socket of its own, whose screen can be read."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

KEYS = {"enter": "Enter", "escape": "Escape"}
SIZE = (100, 30)


def find() -> str | None:
    """The program's path; None where there is none."""
    return shutil.which("tmux")


class Terminal:
    """One window with one program; reading it never waits."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def tmux(self, *words: str, **options: object) -> str:
        """One command of tmux and what it prints."""
        inherited = {name: value for name, value in os.environ.items() if name != "TMUX"}
        return subprocess.run(
            ["tmux", "-S", str(self.socket), "-f", "/dev/null", *words],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            env=inherited | {"LC_ALL": "C.UTF-8"},
        ).stdout

    async def type(self, text: str) -> None:
        """Press keys that write a character each."""
        self.tmux("send-keys", "-l", "--", text)

    async def press(self, key: str) -> None:
        """Press a key by Textual's name of it."""
        self.tmux("send-keys", KEYS.get(key) or key.replace("ctrl+", "C-"))

    async def click(self, column: int, row: int) -> None:
        """Click on a cell, counted from 0, as terminals report it (SGR 1006)."""
        at = f"\x1b[<0;{column + 1};{row + 1}"
        self.tmux("send-keys", "-l", f"{at}M{at}m")

    async def text(self) -> str:
        """What the terminal shows."""
        return self.tmux("capture-pane", "-p")


@contextmanager
def terminal(
    socket: Path, command: Sequence[str], variables: Mapping[str, str], size: tuple[int, int] = SIZE
) -> Iterator[Terminal]:
    """A terminal in which a command runs; ended afterwards, whatever happened."""
    opened = Terminal(socket)
    width, height = map(str, size)
    settings = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    start = ["new-session", "-d", "-x", width, "-y", height, *settings]
    told = f"{shlex.join(command)}; echo ended with $?; exec cat"  # so that it can be read
    try:
        opened.tmux(*start, told)
        yield opened
    finally:
        opened.tmux("kill-server")
