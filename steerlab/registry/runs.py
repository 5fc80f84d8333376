"""Runs: the texts that were written, kept with what decided them and the vectors they name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, insert, or_, select, update

from steerlab.errors import BadExpression, BadOption, Incompatible, NotFound
from steerlab.registry.queries import resolve
from steerlab.registry.tables import GENERATION, KEPT, RUN, RUN_OPERAND, VECTOR
from steerlab.run import Generation, Run

_CHUNK = 400  # ids in one IN (…)


def save(connection: Connection, run: Run) -> Run:
    """Store a run as of now; names that mean no stored vector are kept as names."""
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    plain = asdict(run)
    texts = plain.pop("generations")
    plain |= {"id": None, "created": created}
    number = int(connection.execute(insert(RUN).values(plain).returning(RUN.c.id)).scalar_one())
    for ordinal, text in enumerate(texts):
        dose = text["dose"]
        text["dose"] = dose if dose is None or math.isfinite(dose) else None
        connection.execute(insert(GENERATION).values(run_id=number, ordinal=ordinal, **text))
    for operand in _operands(connection, run):
        connection.execute(insert(RUN_OPERAND).values(run_id=number, **operand))
    return replace(run, id=number, created=created)


def _operands(connection: Connection, run: Run) -> list[dict[str, Any]]:
    from steerlab.expression import parse

    try:
        refs = parse(run.expression).refs if run.expression.strip() else ()
    except BadExpression:
        return []
    return [{"ref": ref, **_vector(connection, ref, run.model)} for ref in refs]


def _vector(connection: Connection, ref: str, model: str) -> dict[str, Any]:
    for chosen in (None, model):
        try:
            row = resolve(connection, ref, chosen)
        except (NotFound, Incompatible):
            continue
        digest = connection.execute(select(VECTOR.c.digest).where(VECTOR.c.id == row)).scalar()
        return {"vector_id": row, "digest": digest}
    return {}


def recent(
    connection: Connection, vector: int | None, *, limit: int | None, before: Run | None
) -> list[Run]:
    """The newest runs first: all, or those that name a vector."""
    query = select(RUN).order_by(RUN.c.created.desc(), RUN.c.id.desc()).limit(limit)
    if vector is not None:
        named = select(RUN_OPERAND.c.run_id).where(RUN_OPERAND.c.vector_id == vector)
        query = query.where(RUN.c.id.in_(named))
    if before is not None:
        same = and_(RUN.c.created == before.created, RUN.c.id < before.id)
        query = query.where(or_(RUN.c.created < before.created, same))
    return _read(connection, query)


def one(connection: Connection, number: int) -> Run:
    """The run of a number; raises NotFound."""
    found = _read(connection, select(RUN).where(RUN.c.id == number))
    if not found:
        raise NotFound(f"there is no run {number}: `steerlab runs` lists those that are kept")
    return found[0]


def rate(connection: Connection, number: int, best: int | None) -> Run:
    """Say which of a run's texts is best; raises BadOption for one that is not there."""
    run = one(connection, number)
    if best is not None and not 0 <= best < len(run.generations):
        raise BadOption(f"run {number} has texts 0 to {len(run.generations) - 1}, not {best}")
    connection.execute(update(RUN).where(RUN.c.id == number).values(best=best))
    return replace(run, best=best)


def remove(connection: Connection, number: int) -> None:
    """Forget a run; raises NotFound."""
    if not connection.execute(delete(RUN).where(RUN.c.id == number)).rowcount:
        one(connection, number)


def _read(connection: Connection, query: Select[Any]) -> list[Run]:
    rows = [dict(row) for row in connection.execute(query).mappings()]
    texts: dict[int, list[Generation]] = defaultdict(list)
    g = GENERATION.c
    for start in range(0, len(rows), _CHUNK):
        ids = [row["id"] for row in rows[start : start + _CHUNK]]
        found = select(g.run_id, g.coefficient, g.dose, g.text, g.finish, g.tokens)
        found = found.where(g.run_id.in_(ids)).order_by(g.run_id, g.ordinal)
        for number, *values in connection.execute(found):
            texts[number].append(Generation(*values))
    return [Run(**row, generations=tuple(texts[row["id"]])) for row in rows]


def relink(connection: Connection) -> None:
    """After a rebuild: the vectors that runs name have other rows, but the same digests."""
    o, v = RUN_OPERAND.c, VECTOR.c
    same = select(v.id).where(v.digest == o.digest).order_by(v.id.desc()).limit(1)
    connection.execute(update(RUN_OPERAND).values(vector_id=same.scalar_subquery()))


def bring_back(connection: Connection, salvaged: Mapping[str, Sequence[Row[Any]]]) -> None:
    """After a rebuild: put salvaged rows where none are, and link them to the new vectors."""
    if connection.execute(select(RUN.c.id).limit(1)).first() is None:
        numbers = {row.id for row in salvaged[RUN.name]}
        for table in KEPT:
            for row in salvaged[table.name]:
                values = dict(row._mapping)
                if table is RUN or values["run_id"] in numbers:
                    values |= {"vector_id": None} if table is RUN_OPERAND else {}
                    connection.execute(insert(table).values(values))
    relink(connection)
