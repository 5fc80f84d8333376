"""Removing versions, which are remembered: their numbers are never used again."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, literal, select

from steerlab.core.display import some
from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import Record, now
from steerlab.errors import StoreError
from steerlab.registry import labels, undo_log
from steerlab.registry.operands import relink
from steerlab.registry.ports import Writing
from steerlab.registry.rows import Stored, identity_text, mark_newest, read
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import MODEL, OPERAND, REMOVAL, VECTOR
from steerlab.registry.undo_log import Step


def remove(
    work: Writing, directory: Path, rows: Mapping[int, Stored], force: bool = False
) -> list[str]:
    """Delete the rows of versions; returns the refs of vectors that lose an operand with them.

    Equal vectors that stay take the place of those removed. Label files say that they were
    removed. Their payloads stay until `gc` deletes files that no row needs, counted from now.
    Raises StoreError if a vector loses an operand, unless forced.
    """
    connection, going = work.connection, list(rows.values())
    for stored in going:
        connection.execute(delete(VECTOR).where(VECTOR.c.id == stored.id))
    relink(connection, {stored.record.digest for stored in going})
    broken = {s.qualified: refs for s in going if (refs := _bereft(connection, s.record.digest))}
    if broken and not force:
        raise StoreError(_refusal(broken))
    for stored in going:
        remember(connection, stored)
        mark_newest(connection, VECTOR.c.name == stored.record.name)
    labels.change(directory, {s.story: labels.Removed(s.path, s.edits + 1) for s in going}, work)
    for path in {stored.path for stored in going}:
        used = select(VECTOR.c.id).where(VECTOR.c.path == path).limit(1)
        if connection.execute(used).first() is None:
            work.on_commit.append(partial(os.utime, directory / path))
    steps = [Step(s.story, s.labels, None, s.path, s.key) for s in going]
    undo_log.record(connection, "remove", f"remove {some([s.qualified for s in going])}", steps)
    return list(dict.fromkeys(child for refs in broken.values() for child in refs))


def _bereft(connection: Connection, digest: str) -> list[str]:
    """The refs of compositions without the operand of this digest."""
    lost = OPERAND.c.digest == digest, OPERAND.c.parent_id.is_(None)
    children = select(OPERAND.c.child_id).where(*lost).order_by(OPERAND.c.child_id)
    found = read(connection, connection.execute(children).scalars().all())
    return [child.qualified for child in found.values()]


def _refusal(broken: Mapping[str, Sequence[str]]) -> str:
    """Why vectors that others were made from are not removed; broken: ref -> refs of those."""
    ref, refs = next(iter(broken.items()))
    were, them = ("was", "it") if len(refs) == 1 else ("were", "them")
    return (
        f"can't remove {ref}: {some(refs)} {were} made from it; remove {them} "
        "too, or use --force (force=True) and lose the means to re-evaluate"
    )


def remember(connection: Connection, stored: Stored) -> None:
    """Record the removal of a version, in place of an earlier removal."""
    record = stored.record
    place = {"model": identity_text(record.model), "name": record.name, "version": record.version}
    what = {"digest": record.digest, "summary": str(record.recipe), "created": now()}
    earlier = (REMOVAL.c[column] == value for column, value in place.items())
    connection.execute(delete(REMOVAL).where(*earlier))
    connection.execute(insert(REMOVAL).values(**place, **what))


def copy(connection: Connection, model: ModelIdentity, old: str, new: str) -> None:
    """Copy the removals of a name to its new name, except for numbers that the new name had.

    The old name keeps them, so that its numbers stay used.
    """
    columns = [column for column in REMOVAL.c if column.name != "name"]
    mine = REMOVAL.c.model == identity_text(model)
    had = select(REMOVAL.c.version).where(mine, REMOVAL.c.name == new)
    query = select(literal(new), *columns).where(mine, REMOVAL.c.name == old)
    query = query.where(REMOVAL.c.version.not_in(had))
    connection.execute(insert(REMOVAL).from_select(["name", *columns], query))


def forget(connection: Connection, record: Record) -> None:
    """Forget the removal of a version that is back."""
    r = REMOVAL.c
    place = r.model == identity_text(record.model), r.name == record.name
    connection.execute(
        delete(REMOVAL).where(*place, r.version == record.version, r.digest == record.digest)
    )


def forget_copies(connection: Connection, model: ModelIdentity, step: Step) -> None:
    """Delete the removals that `copy` gave a new name, when the rename is undone."""
    assert step.now is not None
    r, old = REMOVAL.c, REMOVAL.alias()
    mine = r.model == identity_text(model)
    same = old.c.model == r.model, old.c.version == r.version, old.c.created == r.created
    copied = select(old.c.version).where(*same, old.c.name == step.was.name).exists()
    connection.execute(delete(REMOVAL).where(mine, r.name == step.now.name, copied))


def _is_gone() -> ColumnElement[bool]:
    v, r = VECTOR.c, REMOVAL.c
    same = select(v.id).where(v.model_id == MODEL.c.id, v.name == r.name, v.version == r.version)
    return ~same.correlate(REMOVAL, MODEL).exists()


_GONE = (
    select(MODEL.c.id.label("model_id"), *REMOVAL.c)
    .join(MODEL, MODEL.c.identity == REMOVAL.c.model)
    .where(_is_gone())  # a vector may have come back by import, or to the name by renaming
    .order_by(REMOVAL.c.name, REMOVAL.c.version)
)


def gone(
    connection: Connection,
    names: Collection[str],
    model: int | None = None,
    version: int | None = None,
) -> list[Row[Any]]:
    """Removed versions of some names that did not come back, by name and version.

    model: row id; None for all. version: None for all.
    """
    query = _GONE.where(REMOVAL.c.name.in_(GIVEN))
    if model is not None:
        query = query.where(MODEL.c.id == model)
    if version is not None:
        query = query.where(REMOVAL.c.version == version)
    return [*connection.execute(query, given(names))]
