"""Planning an import: names and versions for vectors of another store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import Record
from steerlab.registry import removals, saving
from steerlab.registry.rows import ensure_model
from steerlab.registry.schema import chunks
from steerlab.registry.tables import VECTOR


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A vector to import: the parts of its record that decide its name."""

    model: ModelIdentity
    name: str
    version: int
    digest: str
    story: str
    created: str

    @staticmethod
    def of(record: Record, model: ModelIdentity) -> Arrival:
        """The arrival of a record; model: the record's, shared to save memory."""
        names = ("name", "version", "digest", "story", "created")
        return Arrival(model, *(getattr(record, name) for name in names))

    @property
    def ref(self) -> str:
        """Its ref in the file."""
        return f"{self.name}.v{self.version}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A vector's place in this store: row id of its model, name and version."""

    model: int
    name: str
    version: int
    here: bool

    @property
    def ref(self) -> str:
        return f"{self.name}.v{self.version}"


class Plan:
    """The names and versions of all arrivals, planned before the first is stored.

    A stored story keeps its version, and a removed vector gets its version back. A name in use
    gets its next versions, oldest first.

    back: the names of removed versions that come back.
    """

    def __init__(self, connection: Connection, arrivals: Sequence[Arrival]) -> None:
        self.arrivals, self.back = arrivals, set[str]()
        self._models = {
            model: ensure_model(connection, model)
            for model in dict.fromkeys(a.model for a in arrivals)
        }
        self._stored = _stored(connection, {a.digest for a in arrivals})
        names = sorted({a.name for a in arrivals})
        self._latest = saving.newest_versions(connection, names)
        self._removed: dict[tuple[int, str, int], str] = {}
        for row in removals.gone(connection, names):
            self._removed[row.model_id, row.name, row.version] = row.digest
        self._places: dict[Arrival, _Place] = {}
        self._coming: dict[str, _Place] = {}
        for arrival in sorted(arrivals, key=lambda a: a.created):
            self._places[arrival] = self._coming[arrival.story] = self._place(arrival)

    def ref(self, arrival: Arrival) -> str:
        """Its ref in this store."""
        return self._places[arrival].ref

    def is_here(self, arrival: Arrival) -> bool:
        """Whether it is stored already."""
        return self._places[arrival].here

    def same_numbers(self, arrival: Arrival) -> int | None:
        """The row of a stored vector with the same digest, preferably of the same name."""
        rows = self._stored.get(arrival.digest, ())
        return min(rows, key=lambda row: row.name != arrival.name).id if rows else None

    def localized(self, arrival: Arrival, record: Record) -> Record:
        """The record under its name and version here."""
        place = self._places[arrival]
        return replace(record, name=place.name, version=place.version)

    def _place(self, arrival: Arrival) -> _Place:
        model = self._models[arrival.model]
        for row in self._stored.get(arrival.digest, ()):
            if row.story == arrival.story:
                return _Place(row.model_id, row.name, row.version, here=True)
        if arrival.story in self._coming:
            return replace(self._coming[arrival.story], here=True)
        latest = self._latest[model, arrival.name]
        before = (model, arrival.name, arrival.version)
        back = self._removed.get(before) == arrival.digest
        if back:
            del self._removed[before]
            self.back.add(arrival.name)
        version = arrival.version if arrival.version > latest or back else latest + 1
        self._latest[model, arrival.name] = max(version, latest)
        return _Place(model, arrival.name, version, here=False)


def _stored(connection: Connection, digests: Iterable[str]) -> dict[str, list[Any]]:
    v = VECTOR.c
    found: dict[str, list[Any]] = defaultdict(list)
    query = select(v.id, v.digest, v.story, v.model_id, v.name, v.version).order_by(v.id)
    for part in chunks(sorted(digests)):
        for row in connection.execute(query.where(v.digest.in_(part))):
            found[row.digest].append(row)
    return found
