"""Planning an import: names and versions for vectors of another store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import Record
from steerlab.registry import removals, saving
from steerlab.registry.rows import ensure_model, identity_text
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import VECTOR


@dataclass(slots=True, eq=False)
class Import:
    """A vector to import, and what became of it.

    model, name, version, digest, story, created: of its record.
    place: its name and version in this store. already: True if it was here before, so that
    nothing was stored. twin: the row of a stored vector with the same digest and another story;
    same_numbers: its ref; differs: the parts of the story that differ.
    """

    model: ModelIdentity
    name: str
    version: int
    digest: str
    story: str
    created: str
    place: tuple[str, int] = ("", 0)
    already: bool = False
    twin: int | None = None
    same_numbers: str | None = None
    differs: tuple[str, ...] = ()

    @staticmethod
    def of(record: Record, model: ModelIdentity) -> Import:
        """The import of a record; model: the record's, shared to save memory."""
        names = ("name", "version", "digest", "story", "created")
        return Import(model, *(getattr(record, name) for name in names))

    @property
    def was(self) -> str:
        """Its ref in the file."""
        return f"{self.name}.v{self.version}"

    @property
    def ref(self) -> str:
        """Its ref in this store."""
        name, version = self.place
        return f"{name}.v{version}"


def plan(connection: Connection, imports: Sequence[Import]) -> set[str]:
    """Give each vector its place, before the first is stored.

    A stored story keeps its version, and a removed vector gets its version back. A name in use
    gets its next versions, oldest first. Returns the names of removed versions that come back.
    """
    models = {m: ensure_model(connection, m) for m in dict.fromkeys(i.model for i in imports)}
    names = {one.name for one in imports}
    stored = _stored(connection, {one.digest for one in imports})
    latest = saving.newest_versions(connection, names)
    gone = {(r.model_id, r.name, r.version): r.digest for r in removals.gone(connection, names)}
    coming: dict[str, Import] = {}
    back: set[str] = set()
    for one in sorted(imports, key=lambda one: one.created):
        equal = stored.get(one.digest, ())
        same = next((row for row in equal if row.story == one.story), None)
        first = coming.setdefault(one.story, one)
        if same is not None or first is not one:
            one.already, one.place = (
                True,
                first.place if same is None else (same.name, same.version),
            )
            continue
        own = models[one.model], one.name
        called = identity_text(one.model), one.name
        version = one.version
        if gone.get((*own, version)) == one.digest:
            del gone[*own, version]
            back.add(one.name)
        elif version <= latest[called]:
            version = saving.following(one.name, latest[called])
        latest[called] = max(version, latest[called])
        one.place = one.name, version
        if equal:
            one.twin = min(equal, key=lambda row: row.name != one.name).id
    return back


def _stored(connection: Connection, digests: Collection[str]) -> dict[str, list[Any]]:
    v = VECTOR.c
    found: dict[str, list[Any]] = defaultdict(list)
    query = select(v.id, v.digest, v.story, v.name, v.version).order_by(v.id)
    for row in connection.execute(query.where(v.digest.in_(GIVEN)), given(digests)):
        found[row.digest].append(row)
    return found
