"""Versions that were removed: what they were, so that no number ever means another vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from steerlab.recipe import ModelIdentity
from steerlab.registry.rows import Stored, chunks, identity_text
from steerlab.registry.schema import now
from steerlab.registry.tables import MODEL, REMOVAL, VECTOR


def remember(connection: Connection, stored: Stored) -> None:
    """Say of a version that it is removed now."""
    record = stored.record
    connection.execute(
        insert(REMOVAL)
        .prefix_with("OR REPLACE")  # it may have been removed, brought back, and removed again
        .values(
            model=identity_text(record.model),
            name=record.name,
            version=record.version,
            digest=record.digest,
            summary=str(record.recipe),
            created=now(),
        )
    )


def rename(connection: Connection, model: ModelIdentity, old: str, new: str) -> None:
    """Let what was removed of a name go with it."""
    mine = REMOVAL.c.model == identity_text(model)
    coming = select(REMOVAL.c.version).where(mine, REMOVAL.c.name == old)
    replaced = mine, REMOVAL.c.name == new, REMOVAL.c.version.in_(coming)
    connection.execute(delete(REMOVAL).where(*replaced))
    connection.execute(update(REMOVAL).where(mine, REMOVAL.c.name == old).values(name=new))


def _is_gone() -> ColumnElement[bool]:
    r, v = REMOVAL.c, VECTOR.c
    model = select(MODEL.c.id).where(MODEL.c.identity == r.model).scalar_subquery()
    same = select(v.id).where(v.model_id == model, v.name == r.name, v.version == r.version)
    return ~same.correlate(REMOVAL).exists()


_IS_GONE = _is_gone()
"""Whether no vector has the ref now: one may have come back by import, or by a new name."""


def of_name(connection: Connection, model: str | None, name: str) -> Sequence[Row[Any]]:
    """What was removed of a name, by version; model: its name in the store, None for any."""
    query = select(REMOVAL).where(REMOVAL.c.name == name, _IS_GONE).order_by(REMOVAL.c.version)
    if model is not None:
        identity = select(MODEL.c.identity).where(MODEL.c.name == model)
        query = query.where(REMOVAL.c.model == identity.scalar_subquery())
    return connection.execute(query).all()


def of_names(connection: Connection, names: Sequence[str]) -> list[tuple[int, str, int, str]]:
    """Model row, name, version and digest of what was removed of several names."""
    r = REMOVAL.c
    query = select(MODEL.c.id, r.name, r.version, r.digest).join(MODEL, MODEL.c.identity == r.model)
    found: list[tuple[int, str, int, str]] = []
    for part in chunks(names):
        found += map(tuple, connection.execute(query.where(r.name.in_(part), _IS_GONE)))
    return found
