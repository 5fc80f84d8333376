"""Runs: generated texts, with everything that decided them and the vectors they name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, insert, or_, select, update

from steerlab.core.record import now
from steerlab.core.run import Generation, Run
from steerlab.errors import BadOption, NotFound
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model, resolve
from steerlab.registry.registry_only import operands, operation_of, operation_row, sampling_of
from steerlab.registry.schema import chunks
from steerlab.registry.tables import GENERATION, RUN, RUN_OPERAND


class Runs:
    """Stored runs; no payload holds them, and they survive a rebuild."""

    def __init__(self, database: Catalog) -> None:
        self._database = database

    def save(self, run: Run) -> Run:
        """Store a run; returns it with its number and time.

        It is listed under the stored vectors that its expression names.
        """
        with self._database.writing() as work:
            return _save(work.connection, run)

    def list(
        self,
        ref: str | None = None,
        *,
        model: Model = None,
        limit: int | None = None,
        before: Run | None = None,
    ) -> Sequence[Run]:
        """The stored runs, newest first; with a ref, those that name that vector.

        before: the last run of the previous page.
        """
        with self._database.reading() as connection:
            row = None if ref is None else resolve(connection, ref, model)
            return _recent(connection, row, limit=limit, before=before)

    def get(self, number: int) -> Run:
        """A stored run by its number; raises NotFound."""
        with self._database.reading() as connection:
            return _one(connection, number)

    def rate(self, number: int, best: int | None) -> Run:
        """Set the best text of a run, counted from 0; None clears it."""
        with self._database.writing() as work:
            return _rate(work.connection, number, best)

    def remove(self, number: int) -> None:
        """Delete a run; raises NotFound."""
        with self._database.writing() as work:
            _remove(work.connection, number)


def _save(connection: Connection, run: Run) -> Run:
    """Store a run; refs that are not stored are kept as text."""
    created = now()
    plain = run.to_json()
    texts = plain.pop("generations")
    plain |= {"id": None, "created": created, **operation_row(run.operation)}
    number = int(connection.execute(insert(RUN).values(plain).returning(RUN.c.id)).scalar_one())
    for ordinal, text in enumerate(texts):
        dose = text["dose"]
        text["dose"] = dose if dose is None or math.isfinite(dose) else None
        connection.execute(
            insert(GENERATION).values(
                run_id=number, ordinal=ordinal, **text, **operation_row(run.operation)
            )
        )
    for operand in operands(connection, run.expression, run.model):
        connection.execute(insert(RUN_OPERAND).values(run_id=number, **operand))
    return replace(run, id=number, created=created)


def _recent(
    connection: Connection, vector: int | None, *, limit: int | None, before: Run | None
) -> list[Run]:
    """Runs, newest first: all, or those that name a vector."""
    query = select(RUN).order_by(RUN.c.created.desc(), RUN.c.id.desc()).limit(limit)
    if vector is not None:
        named = select(RUN_OPERAND.c.run_id).where(RUN_OPERAND.c.vector_id == vector)
        query = query.where(RUN.c.id.in_(named))
    if before is not None:
        same = and_(RUN.c.created == before.created, RUN.c.id < before.id)
        query = query.where(or_(RUN.c.created < before.created, same))
    return _read(connection, query)


def _one(connection: Connection, number: int) -> Run:
    """The run of a number; raises NotFound."""
    found = _read(connection, select(RUN).where(RUN.c.id == number))
    if not found:
        raise NotFound(f"there is no run {number}: `steerlab runs` lists those that are kept")
    return found[0]


def _rate(connection: Connection, number: int, best: int | None) -> Run:
    """Set the best text of a run; raises BadOption for an index out of range."""
    run = _one(connection, number)
    if best is not None and not 0 <= best < len(run.generations):
        raise BadOption(f"run {number} has texts 0 to {len(run.generations) - 1}, not {best}")
    connection.execute(update(RUN).where(RUN.c.id == number).values(best=best))
    return replace(run, best=best)


def _remove(connection: Connection, number: int) -> None:
    """Delete a run; raises NotFound."""
    if not connection.execute(delete(RUN).where(RUN.c.id == number)).rowcount:
        _one(connection, number)


def _read(connection: Connection, query: Select[Any]) -> list[Run]:
    rows = [dict(row) for row in connection.execute(query).mappings()]
    texts: dict[int, list[Generation]] = defaultdict(list)
    g = GENERATION.c
    for ids in chunks([row["id"] for row in rows]):
        found = select(g.run_id, g.coefficient, g.dose, g.text, g.finish, g.tokens)
        found = found.where(g.run_id.in_(ids)).order_by(g.run_id, g.ordinal)
        for number, *values in connection.execute(found):
            texts[number].append(Generation(*values))
    return [
        Run(
            sampling=sampling_of(row),
            operation=operation_of(row),
            generations=tuple(texts[row["id"]]),
            **row,
        )
        for row in rows
    ]
