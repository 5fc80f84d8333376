"""What vectors of another store will be called in this one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from steerlab.core.recipe import Expression, ModelIdentity, Operand
from steerlab.core.record import Record
from steerlab.core.vector import SteeringVector, placeholder_of
from steerlab.errors import NotFound
from steerlab.registry import removals, saving
from steerlab.registry.rows import chunks, ensure_model
from steerlab.registry.tables import MODEL, VECTOR


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A vector that comes in: as much of its record as decides what it will be called."""

    model: ModelIdentity
    name: str
    version: int
    digest: str
    created: str

    @staticmethod
    def of(record: Record, model: ModelIdentity) -> Arrival:
        """What matters of a record; model: the record's, shared between many."""
        return Arrival(model, record.name, record.version, record.digest, record.created)

    @property
    def ref(self) -> str:
        """What the file calls it."""
        return f"{self.name}.v{self.version}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A vector's place in this store: row id of its model, name and version."""

    model: int
    name: str
    version: int
    created: str
    here: bool

    @property
    def ref(self) -> str:
        return f"{self.name}.v{self.version}"


class Plan:
    """The places of all that arrive, settled before the first is stored.

    A record that is here already (same bytes, and same name or moment) keeps its place, one that
    was removed from here gets it back; a name that is taken gets its next versions, the oldest
    first.

    back: the names of which a version comes back, perhaps from before their newest.
    """

    def __init__(self, connection: Connection, arrivals: Sequence[Arrival]) -> None:
        self.arrivals, self.back = arrivals, set[str]()
        self._models = {
            model: ensure_model(connection, model)
            for model in dict.fromkeys(a.model for a in arrivals)
        }
        self._stored = _stored(connection, {a.digest for a in arrivals})
        names = sorted({a.name for a in arrivals})
        self._latest = _latest(connection, names)
        self._removed: dict[tuple[int, str, int], str] = {}
        for row in removals.gone(connection, names):
            place = row.model_id, row.name
            self._removed[*place, row.version] = row.digest
            self._latest[place] = max(row.version, self._latest.get(place, 0))
        self._names = {row.id: row.name for row in connection.execute(select(MODEL))}
        self._places: dict[Arrival, _Place] = {}
        self._of_digest: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in sorted(arrivals, key=lambda a: a.created):
            self._places[arrival] = self._place(arrival)
            self._of_digest[arrival.digest].append(arrival)

    def ref(self, arrival: Arrival) -> str:
        """What it will be called here."""
        return self._places[arrival].ref

    def is_here(self, arrival: Arrival) -> bool:
        """Whether it needs not be stored."""
        return self._places[arrival].here

    def at_home(
        self, connection: Connection, arrival: Arrival, record: Record, vector: SteeringVector
    ) -> Record:
        """The record under its version here, its operands under this store's refs."""
        place = self._places[arrival]
        recipe = record.recipe
        if isinstance(recipe, Expression):
            renamed = {
                o.ref: self._operand(connection, o, vector, place.model) for o in recipe.operands
            }
            recipe = saving.with_refs(recipe, renamed)
        return replace(record, version=place.version, recipe=recipe)

    def _place(self, arrival: Arrival) -> _Place:
        model = self._models[arrival.model]
        same = [p for p in self._stored.get(arrival.digest, ()) if p.model == model]
        own = [p for p in same if p.name == arrival.name]
        found = own or [p for p in same if p.created == arrival.created]
        if found:
            return found[0]
        twins = (self._places[a] for a in self._of_digest.get(arrival.digest, ()))
        for twin in twins:
            if (twin.model, twin.name) == (model, arrival.name):
                return replace(twin, here=True)
        latest = self._latest.get((model, arrival.name), 0)
        before = (model, arrival.name, arrival.version)
        back = self._removed.get(before) == arrival.digest
        if back:
            del self._removed[before]
            self.back.add(arrival.name)
        version = arrival.version if arrival.version > latest or back else latest + 1
        self._latest[model, arrival.name] = max(version, latest)
        return _Place(model, arrival.name, version, arrival.created, here=False)

    def _operand(
        self, connection: Connection, operand: Operand, child: SteeringVector, model: int
    ) -> str:
        """What the operand is called here: it comes along, or is here, or is in neither.

        One that is in neither keeps its own name, unless another vector bears or bore it here.
        """
        coming = self._of_digest.get(operand.digest, ())
        own = ".".join(operand.ref.split(".")[-2:])
        for arrival in sorted(coming, key=lambda a: a.ref != own and a.name != own):
            place = self._places[arrival]
            return place.ref if place.model == model else f"{self._names[place.model]}.{place.ref}"
        try:
            return saving.stored_ref(connection, operand, child, model, ())
        except NotFound:
            name = operand.ref.split(".")[-2] if "." in operand.ref else operand.ref
            was = removals.gone(connection, [name], model)
            if (own, operand.digest) in {(f"{r.name}.v{r.version}", r.digest) for r in was}:
                return operand.ref
            taken = self._latest.get((model, name)) or saving.latest(connection, model, name)
            return placeholder_of(operand.digest) if taken else operand.ref


def _stored(connection: Connection, digests: Iterable[str]) -> dict[str, list[_Place]]:
    v = VECTOR.c
    found: dict[str, list[_Place]] = defaultdict(list)
    for part in chunks(sorted(digests)):
        query = select(v.digest, v.model_id, v.name, v.version, v.created)
        for row in connection.execute(query.where(v.digest.in_(part)).order_by(v.id)):
            place = _Place(row.model_id, row.name, row.version, row.created, here=True)
            found[row.digest].append(place)
    return found


def _latest(connection: Connection, names: Iterable[str]) -> dict[tuple[int, str], int]:
    """(model row, name) -> its newest version."""
    v = VECTOR.c
    found: dict[tuple[int, str], int] = {}
    for part in chunks(sorted(names)):
        query = select(v.model_id, v.name, func.max(v.version)).where(v.name.in_(part))
        for model, name, version in connection.execute(query.group_by(v.model_id, v.name)):
            found[model, name] = version
    return found
