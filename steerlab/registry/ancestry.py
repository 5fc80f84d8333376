"""How vectors hang together over time: the part of `Store` that tells it and acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.registry.queries import Model
from steerlab.registry.results import Results

if TYPE_CHECKING:
    from steerlab.registry.history import Event


class Ancestry(Results):
    """The story of a name, and its next version once an operand got one."""

    path: Path

    def log(self, ref: str, model: Model = None) -> Sequence[Event]:
        """What happened to a name, the newest first: versions, children, runs, measurements.

        A ref with a version tells of that version alone.
        """
        from steerlab.registry.history import history

        with self._database.reading() as connection:
            return history(connection, ref, model)
