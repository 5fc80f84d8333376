"""Threads that work for a widget: stop one, and take its answer only while it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.widget import Widget
from textual.worker import Worker, get_current_worker


def stop(worker: Worker[Any]) -> None:
    """Tell a worker to stop; it says itself that it has ended.

    `Worker.cancel` would also cancel its task: a thread that has not begun yet, which a key can
    meet, then never runs, and what it posts at its end never comes.
    """
    worker.cancelled_event.set()


def is_stopping(worker: Worker[Any]) -> bool:
    """Whether a worker was told to stop, by `stop` or because the app closes."""
    return worker.cancelled_event.is_set()


def answer(asker: Widget, take: Callable[..., object], *found: object) -> None:
    """Hand what a thread has found to the app's thread, unless its worker was cancelled by then.

    An exclusive worker is cancelled when the next one begins, but its thread goes on: an old
    answer must not come after the new one. The app's own thread decides, so none slips between.
    """
    worker = get_current_worker()

    def call() -> None:
        if not worker.is_cancelled:
            take(*found)

    asker.call_later(call)
