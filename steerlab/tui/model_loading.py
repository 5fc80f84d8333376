"""Loading a model in a worker, with a line on how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel

MODEL = "smollm2"
"""Loaded where neither the lab nor a vector names a model."""

PATIENCE = 10
"""Seconds after which it is said why loading may take long."""


def load_model(
    lab: Lab, vector: SteeringVector | None, say: Callable[[str], object]
) -> LanguageModel:
    """The model for a vector, loaded if need be; `say` receives a line at each step."""
    if lab.is_loaded:
        return lab.load(vector)
    source = lab.source or (vector.model.source if vector else MODEL)
    with _seconds_said(f"loading {source} …", say) as saying:
        from steerlab.models.loading import hush

        hush()

        def progress(what: str, done: int, total: int) -> None:
            percent = f" {100 * done // total}%" if total > 1 else ""
            saying(f"{what} the embedded model{percent} …")

        return lab.load(vector, progress)


@contextmanager
def _seconds_said(first: str, say: Callable[[str], object]) -> Iterator[Callable[[str], object]]:
    """Say a line again each second, with the time so far, until the block ends.

    Yields a function that changes the line.
    """
    begun, ended, lines = time.monotonic(), Event(), [first]

    def saying(line: str) -> None:
        lines.append(line)
        say(line)

    def count() -> None:
        while not ended.wait(1):
            seconds = round(time.monotonic() - begun)
            patience = "" if seconds < PATIENCE else "; a model that is not on disk yet is fetched"
            say(f"{lines[-1]} {seconds} s{patience}")

    saying(first)
    counting = Thread(target=count, daemon=True)
    counting.start()
    try:
        yield saying
    finally:
        ended.set()
        counting.join()
