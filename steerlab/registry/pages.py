"""Pages of runs, sweeps and measurements, the newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, and_, or_, select

from steerlab.core.run import Run
from steerlab.core.sweep import Sweep


def page(
    table: Table, limit: int | None, before: Run | Sweep | None = None
) -> Select[tuple[Any, ...]]:
    """The rows of a table, newest first. before: the last value of the previous page."""
    c = table.c
    query = select(table).order_by(c.created.desc(), c.id.desc()).limit(limit)
    if before is None:
        return query
    same = and_(c.created == before.created, c.id < before.id)
    return query.where(or_(c.created < before.created, same))
