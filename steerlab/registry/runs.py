"""Runs: generated texts, with everything that decided them and the vectors they name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from steerlab.core.record import now
from steerlab.core.run import Generation, Run
from steerlab.errors import BadOption, NotFound
from steerlab.registry.ports import Catalog
from steerlab.registry.queries import Model, page
from steerlab.registry.refs import digest_of
from steerlab.registry.registry_only import operands, operation_of, operation_row, sampling_of
from steerlab.registry.schema import GIVEN, given
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
        with self._database.writing() as work:
            return _insert(work.connection, replace(run, id=None, created=now()))

    def replace(self, before: Run, run: Run) -> Run:
        """Store a run in the place of another, under its number; as a new one if that is gone."""
        own = (RUN.c.id == before.id) & (RUN.c.created == before.created)
        with self._database.writing() as work:
            there = work.connection.execute(delete(RUN).where(own)).rowcount
            number, created = (before.id, before.created) if there else (None, now())
            return _insert(work.connection, replace(run, id=number, created=created))

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
                own = RUN_OPERAND.c.digest == digest_of(connection, ref, model)
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
            if best is not None:
                _check_index(run, best)
            work.connection.execute(update(RUN).where(RUN.c.id == number).values(best=best))
        return replace(run, best=best)

    def rate_text(self, number: int, index: int, rating: int | None) -> Run:
        """Rate a text of a run, counted from 0, from 1 to 5; None clears it.

        Raises BadOption for an index or a rating out of range.
        """
        if rating is not None and not 1 <= rating <= 5:
            raise BadOption(f"a rating is from 1 to 5, not {rating}")
        with self._database.writing() as work:
            run = _one(work.connection, number)
            _check_index(run, index)
            own = (GENERATION.c.run_id == number) & (GENERATION.c.ordinal == index)
            work.connection.execute(update(GENERATION).where(own).values(rating=rating))
        texts = list(run.generations)
        texts[index] = replace(texts[index], rating=rating)
        return replace(run, generations=tuple(texts))

    def remove(self, number: int) -> None:
        """Delete a run; raises NotFound."""
        with self._database.writing() as work:
            if not work.connection.execute(delete(RUN).where(RUN.c.id == number)).rowcount:
                raise _unknown(number)


def _insert(connection: Connection, run: Run) -> Run:
    """Insert the rows of a run; returns it with its number, a new one if it had none."""
    operation, plain = operation_row(run.operation), run.to_json()
    texts = plain.pop("generations")
    plain |= {"id": run.id, "created": run.created, **operation}
    inserted = connection.execute(insert(RUN).values(plain).returning(RUN.c.id))
    number = int(inserted.scalar_one())
    for ordinal, text in enumerate(texts):
        row = {"run_id": number, "ordinal": ordinal, **_row(text), **operation}
        connection.execute(insert(GENERATION).values(row))
    for operand in _operands(connection, run):
        connection.execute(insert(RUN_OPERAND).values(run_id=number, **operand))
    return replace(run, id=number)


def _check_index(run: Run, index: int) -> None:
    """Raise BadOption for a text that a run does not have."""
    if not 0 <= index < len(run.generations):
        raise BadOption(f"run {run.id} has texts 0 to {len(run.generations) - 1}, not {index}")


def _row(text: dict[str, Any]) -> dict[str, Any]:
    """A text as column values: NULL for a dose that is not finite, and for the run's settings."""
    dose = text["dose"]
    known = dose if dose is None or math.isfinite(dose) else None
    return {**text, "dose": known, **{k: text[k] or None for k in ("expression", "layers")}}


def _operands(connection: Connection, run: Run) -> list[dict[str, Any]]:
    """The vectors that the run's expression or that of a text names, each once."""
    expressions = dict.fromkeys([run.expression, *(g.expression for g in run.generations)])
    found = (one for text in expressions for one in operands(connection, text, run.model))
    return list({one["ref"]: one for one in found}.values())


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
    own = func.coalesce(g.expression, ""), func.coalesce(g.layers, ""), g.rating
    found = select(g.run_id, g.coefficient, g.dose, g.text, g.finish, g.tokens, *own)
    found = found.where(g.run_id.in_(GIVEN)).order_by(g.run_id, g.ordinal)
    for number, *values in connection.execute(found, given([row["id"] for row in rows])):
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
