"""Checking a store: nothing is believed that can be computed again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, func, or_, select, text

from steerlab import payload
from steerlab.errors import NotFound, SteerlabError
from steerlab.recipe import Expression
from steerlab.record import Record
from steerlab.registry.files import LINKS, Shelf, payload_files
from steerlab.registry.rows import IS_NEWEST, Stored, read
from steerlab.registry.tables import DIRECTION, OPERAND, VECTOR
from steerlab.vector import SteeringVector

_CHUNK = 200


@dataclass(frozen=True)
class Finding:
    """Something about a stored vector that is not as it should be."""

    ref: str
    problem: str


@dataclass(frozen=True)
class Garbage:
    """A file of the store that nothing refers to; path is relative to the store."""

    path: str
    size: int


def verify(
    connection: Connection, directory: Path, progress: Callable[[int, int], object] | None = None
) -> list[Finding]:
    """Every problem of the store; progress is called with (checked, all)."""
    found = [Finding("registry.db", problem) for problem in _database_problems(connection)]
    query = select(VECTOR.c.id).order_by(VECTOR.c.path, VECTOR.c.id)
    ids = list(connection.execute(query).scalars())
    audit = _Audit(connection, directory)
    done = 0
    for start in range(0, len(ids), _CHUNK):
        for stored in read(connection, ids[start : start + _CHUNK]).values():
            found += [Finding(stored.qualified, problem) for problem in audit.problems(stored)]
            done += 1
            if progress is not None:
                progress(done, len(ids))
    return found


def untrue_facts(record: Record, vector: SteeringVector) -> list[str]:
    """What a record says of the arrays that the arrays do not bear out."""
    found = []
    if record.norm != vector.norm:
        found.append(f"the record says norm {record.norm:.9g}, the arrays {vector.norm:.9g}")
    said = {f.layer: (f.positions, f.norm) for f in record.layers}
    norms = vector.norms()
    true = {b: (len(d), norms[b]) for b, d in vector.directions.items()}
    wrong = [b for b in sorted({*said, *true}) if said.get(b) != true.get(b)]
    if wrong:
        found.append(f"the record's shape or norm of layer {wrong[0]} is not that of its array")
    return found


def collect(
    connection: Connection, directory: Path, dry_run: bool, grace: timedelta
) -> list[Garbage]:
    """Unreferenced payloads and temporary files older than `grace`; the caller holds the lock."""
    used = set(connection.execute(select(VECTOR.c.path).distinct()).scalars())
    found = []
    for path in _loose(directory):
        name = path.relative_to(directory).as_posix()
        status = path.stat()
        if name in used or time.time() - status.st_mtime < grace.total_seconds():
            continue
        found.append(Garbage(name, status.st_size))
        if not dry_run:
            path.unlink(missing_ok=True)
    return found + _links(directory, dry_run, grace)


def _links(directory: Path, dry_run: bool, grace: timedelta) -> list[Garbage]:
    """What a backup that was killed held on to: second links, which take no room of their own."""
    found = []
    for path in sorted(directory.glob(f"{LINKS}*")):
        if time.time() - path.stat().st_mtime >= grace.total_seconds():
            found.append(Garbage(path.name, 0))
            if not dry_run:
                shutil.rmtree(path, ignore_errors=True)
    return found


def _loose(directory: Path) -> Iterator[Path]:
    yield from payload_files(directory)
    yield from sorted((directory / "payloads").glob(f"**/{payload.TEMPORARY_PREFIX}*"))
    yield from sorted(directory.glob("registry.db.new-*"))


def _database_problems(connection: Connection) -> list[str]:
    check = connection.execute(text("PRAGMA quick_check(5)")).scalars().all()
    broken = connection.execute(text("PRAGMA foreign_key_check")).all()
    found = [str(line) for line in check if line != "ok"]
    least = select(func.min(DIRECTION.c.layer)).where(DIRECTION.c.vector_id == VECTOR.c.id)
    wrong = or_(VECTOR.c.newest != IS_NEWEST, VECTOR.c.first_layer != least.scalar_subquery())
    if unlisted := connection.execute(select(func.count(VECTOR.c.id)).where(wrong)).scalar():
        found.append(f"{unlisted} vectors are not listed as they are: run `steerlab rebuild`")
    return found + [f"a row of {row[0]} points at a row of {row[2]} that is gone" for row in broken]


class _Audit:
    """One pass over a store; payload files are read once, not once a vector."""

    def __init__(self, connection: Connection, directory: Path) -> None:
        self.connection, self.directory = connection, directory
        self.shelf, self.parents = Shelf(directory), Shelf(directory)
        self.path, self.records = "", dict[str, Record]()

    def problems(self, stored: Stored) -> list[str]:
        try:
            if self.path != stored.path:
                self.records = payload.read_records(self.directory / stored.path)
                self.path = stored.path
            vector = self.shelf.load(stored)
        except NotFound:
            return [f"its payload {stored.path} is missing"]
        except SteerlabError as error:
            return [str(error)]
        found = _differences(stored, self.records.get(stored.key))
        found += untrue_facts(stored.record, vector)
        if isinstance(stored.record.recipe, Expression):
            found += self.recomputed(stored, stored.record.recipe)
        return found

    def recomputed(self, stored: Stored, recipe: Expression) -> list[str]:
        from steerlab.expression import evaluate

        edges = select(OPERAND.c.ref, OPERAND.c.parent_id).where(OPERAND.c.child_id == stored.id)
        rows: dict[str, int | None] = {
            edge.ref: edge.parent_id for edge in self.connection.execute(edges)
        }
        digests = {o.ref: o.digest for o in recipe.operands}

        def lookup(ref: str) -> SteeringVector:
            row = rows.get(ref)
            if row is None:
                raise NotFound(f"its operand {ref} is not in this store")
            parent = read(self.connection, [row])[row]
            if parent.record.digest != digests[ref]:
                raise NotFound(f"its operand {ref} is another vector than it was made from")
            return self.parents.load(parent)

        try:
            result = evaluate(recipe.text, lookup)
        except SteerlabError as error:
            return [f"it can't be re-evaluated: {error}"]
        if result.digest == stored.record.digest:
            return []
        return [f"its recipe {recipe} gives other bytes than are stored"]


def _differences(stored: Stored, written: Record | None) -> list[str]:
    if written is None:
        return [f"its payload does not call it {stored.key}: run `steerlab rebuild`"]
    names = [f.name for f in fields(Record)]
    differing = [n for n in names if getattr(stored.record, n) != getattr(written, n)]
    return [f"registry and payload differ in its {', '.join(differing)}"] if differing else []
