"""Ctrl-C at a moment when something is half done: it waits until that is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol


class Uninterrupted:
    """A `with` block in which SIGINT is only noted; its handler runs when the block is over.

    Python runs handlers in the main thread, so other threads need nothing.
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._noted: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self._noted is not None:
            self._handler(*self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)


class Removable(Protocol):
    """What was done to a model, as the handle of a hook."""

    def remove(self) -> None:
        """Take it back; does nothing the second time."""


@contextmanager
def attached(*makers: Callable[[], Removable]) -> Iterator[None]:
    """Do something to a model inside the `with` block only, whenever Ctrl-C comes.

    makers: each does one thing, and returns the handle that takes it back. An interrupt at the
    entrance of this context's own `__exit__` leaves a generator, which cleans up as it is freed.
    """
    handles: list[Removable] = []
    try:
        with Uninterrupted():
            for make in makers:
                handles.append(make())  # noqa: PERF401  # those made so far count if one fails
        yield
    finally:
        try:
            with Uninterrupted():
                remove_all(handles)
        finally:
            remove_all(handles)  # if the interrupt came before it was held off


def remove_all(handles: list[Removable]) -> None:
    """Take all of it back, the last one first; does nothing the second time."""
    while handles:
        handles[-1].remove()
        handles.pop()
