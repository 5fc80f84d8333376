"""When an app has nothing to do: read off its event loop and its workers.

Textual compares CPU time with the clock, so that an app that a busy machine starves passes for
idle, and the next key comes before the last one has had its effect.
"""

import asyncio
from asyncio import TimerHandle
from collections.abc import Sequence
from time import monotonic

from textual._context import active_app

from steerlab.tui.app import WORKING

SOON = 2 / 60
"""Timers that are due so soon belong to what was done: Textual draws 60 times a second."""


async def wait_for_idle(_min_sleep: float = 0, max_sleep: float = 1) -> None:
    """Return when no callback, no timer and no reading thread is about to act, or after a while."""
    end = monotonic() + max_sleep
    while monotonic() < end:
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        if loop._ready:  # type: ignore[attr-defined]
            continue
        due = next_due(loop._scheduled) - loop.time()  # type: ignore[attr-defined]
        if due <= SOON:
            await asyncio.sleep(max(due, 0))
        elif threads_run():
            await asyncio.sleep(0.001)
        else:
            return


def next_due(timers: Sequence[TimerHandle]) -> float:
    """The time of the first timer that is not cancelled."""
    return min((timer.when() for timer in timers if not timer.cancelled()), default=float("inf"))


def threads_run() -> bool:
    """Whether threads read or write the store; long work is not waited for."""
    app = active_app.get(None)
    workers = app.workers if app is not None else ()
    return any(worker.group not in WORKING and not worker.is_finished for worker in workers)
