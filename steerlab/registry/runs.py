"""Runs: generated texts, with everything that decided them and the vectors they name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from steerlab.core.record import now
from steerlab.core.run import Generation, Run
from steerlab.errors import BadOption, NotFound
from steerlab.registry.pages import page
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model
from steerlab.registry.refs import resolve
from steerlab.registry.registry_only import operands, operation_of, operation_row, sampling_of
from steerlab.registry.schema import chunks
from steerlab.registry.tables import GENERATION, RUN, RUN_OPERAND


class Runs:
    """Stored runs; no payload holds them, and they survive a rebuild."""

    def __init__(self, database: Catalog) -> None:
        self._database = database

    def save(self, run: Run) -> Run:
        """Store a run; returns it with its number and time.

        It is listed under the stored vectors that its expression names; refs that are not stored
        are kept as text.
        """
        created, operation = now(), operation_row(run.operation)
        plain = run.to_json()
        texts = plain.pop("generations")
        plain |= {"id": None, "created": created, **operation}
        with self._database.writing() as work:
            connection = work.connection
            inserted = connection.execute(insert(RUN).values(plain).returning(RUN.c.id))
            number = int(inserted.scalar_one())
            for ordinal, text in enumerate(texts):
                dose = text["dose"]
                text["dose"] = dose if dose is None or math.isfinite(dose) else None
                row = {"run_id": number, "ordinal": ordinal, **text, **operation}
                connection.execute(insert(GENERATION).values(row))
            for operand in operands(connection, run.expression, run.model):
                connection.execute(insert(RUN_OPERAND).values(run_id=number, **operand))
        return replace(run, id=number, created=created)

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
        query = page(RUN, limit, before)
        with self._database.reading() as connection:
            if ref is not None:
                own = RUN_OPERAND.c.vector_id == resolve(connection, ref, model)
                query = query.where(RUN.c.id.in_(select(RUN_OPERAND.c.run_id).where(own)))
            return _read(connection, query)

    def get(self, number: int) -> Run:
        """A stored run by its number; raises NotFound."""
        with self._database.reading() as connection:
            return _one(connection, number)

    def rate(self, number: int, best: int | None) -> Run:
        """Set the best text of a run, counted from 0; None clears it.

        Raises BadOption for an index out of range.
        """
        with self._database.writing() as work:
            run = _one(work.connection, number)
            if best is not None and not 0 <= best < len(run.generations):
                raise BadOption(
                    f"run {number} has texts 0 to {len(run.generations) - 1}, not {best}"
                )
            work.connection.execute(update(RUN).where(RUN.c.id == number).values(best=best))
        return replace(run, best=best)

    def remove(self, number: int) -> None:
        """Delete a run; raises NotFound."""
        with self._database.writing() as work:
            if not work.connection.execute(delete(RUN).where(RUN.c.id == number)).rowcount:
                raise _unknown(number)


def _one(connection: Connection, number: int) -> Run:
    """The run of a number; raises NotFound."""
    found = _read(connection, select(RUN).where(RUN.c.id == number))
    if not found:
        raise _unknown(number)
    return found[0]


def _unknown(number: int) -> NotFound:
    return NotFound(f"there is no run {number}: `steerlab runs` lists those that are kept")


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
