"""The threads of forward passes on a CPU: all of them, or one beside other work.

Threads spin for a tenth of a millisecond while they wait for one another (see `waiting`), as to
wake one that sleeps takes longer than a product of few rows. But one that other work keeps from
its core holds up all others, hundreds of times in a pass: beside one busy process on 2 cores, 20
tokens of SmolLM2 took 4.0 s on two threads and 0.92 s on one, which alone takes 0.91 s to 0.63 s.
So a pass whose own thread was off its core for long is followed by passes on one thread, for a
while. The products that are taken give the same bits on one thread as on all (see `products`).

GNU's OpenMP keeps a team for each thread that has computed, and once all teams have more members
than there are cores, none of them spins. So a thread dismisses its team when its work is done: in
the threads of a server, 30 tokens at 2 rows took 1.75 s, and take 0.92 s.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

HELD_UP = 0.3
"""Share of a pass off the core: 0.00 to 0.03 in quiet, now and then 0.2, and 0.5 beside work."""

_SHORTEST, _LONGEST = 0.25, 4.0
"""Seconds until all threads are tried again; each pass that is held up again doubles them."""

_SOFTLY = 1  # omp_pause_soft: what was set stays

_clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else None


class _Machine:
    """Whether other work held up the last pass that took all threads; for all models."""

    def __init__(self) -> None:
        self.busy_until, self.rest = 0.0, _SHORTEST

    def note(self, now: float, off_core: float) -> None:
        """Take in a pass on all threads. off_core: a share of its time."""
        since = now - self.busy_until
        if off_core > HELD_UP:
            again = since < self.rest
            self.rest = min(2 * self.rest, _LONGEST) if again else _SHORTEST
            self.busy_until = now + self.rest
        elif since > self.rest:
            self.rest = _SHORTEST


machine = _Machine()


class _Pass(threading.local):
    """What a pass of this thread changed and measures.

    A pass that is interrupted does not come to its end: the next one, or the end of the work,
    takes back what it changed.
    """

    def __init__(self) -> None:
        self.threads: int | None = None
        """Their number before the pass, if it runs on one."""
        self.start: tuple[float, float] | None = None

    def end(self) -> None:
        """Give the threads back."""
        self.start = None
        if self.threads is not None:
            torch.set_num_threads(self.threads)
            self.threads = None


_pass = _Pass()


def follow(model: nn.Module) -> None:
    """Choose the threads of a model's passes from now on; where time can't tell, leave them."""
    if _clock is not None and torch.get_num_threads() > 1:
        model.register_forward_pre_hook(_begin)
        model.register_forward_hook(_end, always_call=True)


def dismiss_team() -> None:
    """End the threads that computed for this one; the next parallel product starts new ones."""
    _pass.end()
    _pause()(_SOFTLY)


@cache
def _pause() -> Callable[[int], object]:
    """`omp_pause_resource_all` of the GNU OpenMP that torch has loaded, or nothing."""
    with suppress(OSError, AttributeError, StopIteration):
        maps = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
        loaded = {line.split(maxsplit=5)[5] for line in maps if "/libgomp" in line}
        own = str(Path(torch.__file__).parent.parent)  # others may have brought one too
        path = next(path for path in sorted(loaded) if path.startswith(own) or len(loaded) == 1)
        found: Callable[[int], object] = ctypes.CDLL(path).omp_pause_resource_all
        return found
    return lambda _: None


def _begin(model: nn.Module, args: Any) -> None:
    if torch.compiler.is_compiling() or _clock is None or not next(model.parameters()).is_cpu:
        return
    _pass.end()
    now = time.perf_counter()
    if now < machine.busy_until:
        _pass.threads = torch.get_num_threads()
        torch.set_num_threads(1)
    else:
        _pass.start = (now, _clock())


def _end(model: nn.Module, args: Any, output: Any) -> None:
    if torch.compiler.is_compiling() or _clock is None:
        return
    if _pass.start is not None:
        start, cpu = _pass.start
        now = time.perf_counter()
        machine.note(now, 1 - (_clock() - cpu) / (now - start))
    _pass.end()
