"""Removed versions, remembered so that their numbers are never used again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, literal, select

from steerlab.core.display import some
from steerlab.core.recipe import ModelIdentity
from steerlab.core.record import now
from steerlab.registry import labels
from steerlab.registry.ports import Writing
from steerlab.registry.rows import Stored, identity_text, mark_newest
from steerlab.registry.schema import chunks
from steerlab.registry.tables import MODEL, REMOVAL, VECTOR


def remove(work: Writing, directory: Path, stored: Stored) -> None:
    """Delete the rows of a version, and its payload file if no other row needs it.

    In a shared payload file its numbers stay, and its label file says that it was removed, until
    `gc` deletes a file that no row needs.
    """
    connection, path = work.connection, stored.path
    connection.execute(delete(VECTOR).where(VECTOR.c.id == stored.id))
    remember(connection, stored)
    mark_newest(connection, VECTOR.c.name == stored.record.name)
    if connection.execute(select(VECTOR.c.id).where(VECTOR.c.path == path).limit(1)).first():
        labels.change(directory, {stored.story: labels.Removed(path, stored.edits + 1)}, work)
    else:
        work.on_commit.append(partial((directory / path).unlink, missing_ok=True))
        work.on_commit.append(partial(labels.forget, directory, stored.story))


def refusal(ref: str, children: Sequence[str]) -> str:
    """Why a vector that others were made from is not removed."""
    were, them = ("was", "it") if len(children) == 1 else ("were", "them")
    return (
        f"can't remove {ref}: {some(children)} {were} made from it; remove {them} first, or "
        "force it and lose the means to re-evaluate"
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
    names: Sequence[str],
    model: int | None = None,
    version: int | None = None,
) -> list[Row[Any]]:
    """Removed versions of some names that did not come back, by name and version.

    model: row id; None for all. version: None for all.
    """
    query = _GONE
    if model is not None:
        query = query.where(MODEL.c.id == model)
    if version is not None:
        query = query.where(REMOVAL.c.version == version)
    return [
        row
        for part in chunks(names)
        for row in connection.execute(query.where(REMOVAL.c.name.in_(part)))
    ]
