"""Where ptrace is not allowed: Python's own file functions ask before each call what befalls it.

What SQLite does between two SQL statements is then one step, and nothing stops half-way.
"""

from __future__ import annotations

import builtins
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.registry import tracing
from tests.registry.tracing import Call, Fate, Kill

_FUNCTIONS = {
    "fsync": (os, "fsync"),
    "replace": (os, "rename"),
    "rename": (os, "rename"),
    "link": (os, "link"),
    "unlink": (os, "unlink"),
    "mkdir": (os, "mkdir"),
    "open": (os, "openat"),
}


def follow(work: Callable[[], object], root: Path, fate: Callable[[Call], Fate]) -> int:
    """As `tracing.follow`, for calls made through Python's functions."""
    mine, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        mine.close()
        _work_and_exit(work, theirs)
    theirs.close()
    problem = ""
    with mine, mine.makefile("rw") as line:
        for said in line:
            name, _, path = said.rstrip("\n").partition("\t")
            if name == "problem":
                problem = line.read()
                break
            verdict = fate(Call(name, (path,), (0, 0, os.O_CREAT), child))
            if isinstance(verdict, Kill):
                os.kill(child, signal.SIGKILL)
                break
            line.write(f"{verdict or 0}\n")
            line.flush()
    _, status = os.waitpid(child, 0)
    assert not problem, problem
    return status


def _work_and_exit(work: Callable[[], object], theirs: socket.socket) -> None:
    line = theirs.makefile("rw")

    def ask(name: str, path: object) -> None:
        line.write(f"{name}\t{path!s}\n")
        line.flush()
        error = int(line.readline() or signal.pause())
        if error:
            raise OSError(error, os.strerror(error))

    def asking(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            ask(name, arguments[0])
            return real(*arguments, **options)

        return call

    def hear(path: Any, *arguments: Any, **options: Any) -> bool:
        if str(path).startswith(tracing.MARK):
            ask("mark", str(path).removeprefix(tracing.MARK).replace("\n", " "))
        return access(path, *arguments, **options)

    access = os.access
    try:
        for name, (module, call) in _FUNCTIONS.items():
            setattr(module, name, asking(call, getattr(module, name)))
        builtins.open = asking("openat", builtins.open)
        os.access = hear
        os.supports_effective_ids.add(hear)  # the program asks whether `os.access` is in there
        work()
    except BaseException:
        line.write(f"problem\t\n{traceback.format_exc()}")
        line.flush()
        os._exit(7)
    os._exit(0)
