"""Rows that no payload can restore: they outlive a rebuild and are linked to vectors again."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from steerlab.core.operation import Operation
from steerlab.core.record import canonical_json
from steerlab.core.sampling import Sampling
from steerlab.errors import BadExpression, BadOption, Incompatible, NotFound
from steerlab.registry.refs import resolve
from steerlab.registry.schema import accepted
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.tables import (
    CALIBRATION,
    EVALUATION,
    EVALUATION_VALUE,
    GENERATION,
    LINKED,
    REGISTRY_ONLY,
    RUN,
    SWEEP,
    SWEEP_PROMPT,
    SWEEP_SEED,
    SWEEP_SETTING,
    VECTOR,
)

_RESULTS = (CALIBRATION, EVALUATION, EVALUATION_VALUE)

Salvaged = Mapping[str, Sequence[Mapping[str, Any]]]
"""Table name -> the rows that could still be read of it."""


def vector_of(connection: Connection, digest: str) -> int | None:
    """The newest row that has a digest; None if the vector is not stored."""
    query = select(VECTOR.c.id).where(VECTOR.c.digest == digest)
    return connection.execute(query.order_by(VECTOR.c.id.desc()).limit(1)).scalar()


def operands(connection: Connection, expression: str, model: str) -> list[dict[str, Any]]:
    """The refs of an expression, with `vector_id` and `digest` of those that are stored.

    model: chooses between models that have a vector of that name.
    """
    from steerlab.core.syntax import parse

    try:
        refs = parse(expression).refs if expression.strip() else ()
    except BadExpression:
        return []
    return [{"ref": ref, **_vector(connection, ref, model)} for ref in refs]


@contextmanager
def _checked() -> Iterator[None]:
    """Raise Damaged for values of a row that nothing can be made of."""
    try:
        yield
    except (BadOption, ValueError, TypeError, AttributeError) as error:
        raise Damaged(
            f"a row of the registry can't be read ({error}): run `steerlab rebuild`"
        ) from error


def sampling_of(row: dict[str, Any]) -> Sampling:
    """Pop a Sampling from a row; raises Damaged for invalid options."""
    with _checked():
        return Sampling.pop_from(row)


def operation_row(operation: Operation) -> dict[str, Any]:
    """An operation as column values."""
    return {"operation": operation.name, "parameters": canonical_json(dict(operation.parameters))}


def operation_of(row: dict[str, Any]) -> Operation:
    """Pop an Operation from a row, with the columns that no value carries yet.

    Raises Damaged for an invalid one.
    """
    for column in ("layers", "positions", "condition"):
        if column in row and row[column] is None:
            del row[column]
    with _checked():
        parameters = json.loads(row.pop("parameters"))
        return Operation(row.pop("operation"), tuple(sorted(parameters.items())))


def _vector(connection: Connection, ref: str, model: str) -> dict[str, Any]:
    for chosen in (None, model):
        try:
            row = resolve(connection, ref, chosen)
        except (NotFound, Incompatible):
            continue
        digest = connection.execute(select(VECTOR.c.digest).where(VECTOR.c.id == row)).scalar()
        return {"vector_id": row, "digest": digest}
    return {}


def bring_back(connection: Connection, salvaged: Salvaged) -> None:
    """After a rebuild: insert salvaged rows, if the tables are empty, and link them to vectors."""
    if not any(connection.execute(select(table).limit(1)).first() for table in REGISTRY_ONLY):
        for table in REGISTRY_ONLY:
            unlinked = {"vector_id": None} if table in LINKED else {}
            rows = [{**_as_text(row), **unlinked} for row in salvaged[table.name]]
            rows = [row for row in rows if is_readable(table, row)]
            accepted(connection, rows, partial(connection.execute, insert(table)), lambda *_: None)
        _drop_what_lost_its_place(connection)
    relink(connection)


def _drop_what_lost_its_place(connection: Connection) -> None:
    """Drop sweeps with a gap in settings, prompts or seeds, and stars of runs that lack a text.

    Cells and stars count by place, and would mean another one.
    """
    for axis in (SWEEP_SETTING, SWEEP_PROMPT, SWEEP_SEED):
        gaps = func.max(axis.c.ordinal) + 1 > func.count()
        broken = select(axis.c.sweep_id).group_by(axis.c.sweep_id).having(gaps)
        connection.execute(delete(SWEEP).where(SWEEP.c.id.in_(broken)))
    text = GENERATION.c
    full = (func.max(text.ordinal) + 1 == func.count()) & (RUN.c.best < func.count())
    whole = select(text.run_id).where(text.run_id == RUN.c.id).group_by(text.run_id).having(full)
    connection.execute(update(RUN).where(~whole.exists()).values(best=None))


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """Decode bytes: no column holds any, so they are corrupted text."""
    return {
        column: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for column, value in row.items()
    }


def is_readable(table: Table, row: Mapping[str, Any]) -> bool:
    """Whether values can be made of a row: of its JSON, its operation and its sampling.

    A result's numbers are finite, as those in its file.
    """
    values = dict(row)
    if table in _RESULTS and any(isinstance(v, float) and math.isinf(v) for v in values.values()):
        return False
    try:
        for column in table.c:
            if column.info.get("json") and values.get(column.name) is not None:
                json.loads(values[column.name])
        if "operation" in values:
            operation_of(values)
        if "temperature" in values:
            sampling_of(values)
    except (ValueError, TypeError, Damaged):
        return False
    return True


def relink(connection: Connection, digests: Collection[str] | None = None) -> None:
    """Link rows to vectors by digest, where a rebuild or an undone removal gave them new row ids.

    digests: None for all rows.
    """
    for table in LINKED:
        same = select(VECTOR.c.id).where(VECTOR.c.digest == table.c.digest)
        newest = same.order_by(VECTOR.c.id.desc()).limit(1).scalar_subquery()
        rows = update(table).values(vector_id=newest)
        connection.execute(rows if digests is None else rows.where(table.c.digest.in_(digests)))
