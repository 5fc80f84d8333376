"""Ask a thread worker to stop, and let it say itself that it has ended."""

from __future__ import annotations

from typing import Any

from textual.worker import Worker


def stop(worker: Worker[Any]) -> None:
    """Tell a worker to stop.

    `Worker.cancel` would also cancel its task: a thread that has not begun yet, which a key can
    meet, then never runs, and what it posts at its end never comes.
    """
    worker.cancelled_event.set()


def is_stopping(worker: Worker[Any]) -> bool:
    """Whether a worker was told to stop, by `stop` or because the app closes."""
    return worker.cancelled_event.is_set()
