"""How vectors hang together over time: the part of `Store` that tells it and acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.registry.queries import Model
from steerlab.registry.results import Results

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.registry.history import Event
    from steerlab.registry.rederive import Rederived
    from steerlab.registry.rows import Stored


class Ancestry(Results):
    """The story of a name, and its next version once an operand got one."""

    path: Path

    def _payload_of(self, stored: Stored) -> SteeringVector:
        raise NotImplementedError

    def log(self, ref: str, model: Model = None) -> Sequence[Event]:
        """What happened to a name, the newest first: versions, children, runs, measurements.

        Also to its versions that were removed. A ref with a version tells of that one alone.
        """
        from steerlab.registry.history import history

        with self._database.reading() as connection:
            return history(connection, ref, model)

    def rederive(
        self, ref: str, *, deep: bool = False, dry_run: bool = False, model: Model = None
    ) -> Sequence[Rederived]:
        """Make the next version of a composition whose operands got newer versions.

        Its text is evaluated with the newest version of each operand; tags and note go on.
        Returns what was made, parents first, the vector itself last; empty where nothing is
        newer. All or none is stored.
        deep: operands that are compositions are made again beforehand, where they need it.
        Raises Incompatible for a vector that is no composition, NotFound for an operand that is
        not in the store any more.
        """
        from steerlab.registry import queries, saving
        from steerlab.registry.rederive import Rederivation

        with self._database.reading() as connection:
            plan = Rederivation(connection, self._payload_of, deep)
            plan.of(queries.resolve(connection, ref, model))
        if plan.steps and not dry_run:
            with self._database.writing() as work:
                for stored, made in plan.steps:
                    old = stored.record
                    pair = (old.name, made.after)
                    entries = saving.plan(work, [pair], old.tags, old.note)
                    saving.store(work, self.path, entries)
        return [made for _, made in plan.steps]
