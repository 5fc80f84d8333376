"""What no payload can bring back: rows that outlive a rebuild, and find their vectors again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import StatementError

from steerlab.core.operation import Operation
from steerlab.core.record import canonical_json
from steerlab.core.sampling import Sampling
from steerlab.errors import BadExpression, BadOption, Incompatible, NotFound
from steerlab.registry.queries import resolve
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.tables import LINKED, REGISTRY_ONLY, VECTOR

Salvaged = Mapping[str, Sequence[Mapping[str, Any]]]
"""Table name -> the rows that could still be read of it."""


def vector_of(connection: Connection, digest: str) -> int | None:
    """The newest row that has a digest; None if the vector is not stored."""
    query = select(VECTOR.c.id).where(VECTOR.c.digest == digest)
    return connection.execute(query.order_by(VECTOR.c.id.desc()).limit(1)).scalar()


def operands(connection: Connection, expression: str, model: str) -> list[dict[str, Any]]:
    """What an expression names: `ref`, and `vector_id` and `digest` where it is stored.

    model: decides where several have a vector of that name.
    """
    from steerlab.core.expression import parse

    try:
        refs = parse(expression).refs if expression.strip() else ()
    except BadExpression:
        return []
    return [{"ref": ref, **_vector(connection, ref, model)} for ref in refs]


def sampling_of(row: dict[str, Any]) -> Sampling:
    """Take the options of a Sampling out of a row; raises Damaged where they can't be right."""
    try:
        return Sampling.pop_from(row)
    except (BadOption, TypeError) as error:
        raise Damaged(
            f"a row of the registry can't be read ({error}): run `steerlab rebuild`"
        ) from error


def operation_row(operation: Operation) -> dict[str, Any]:
    """An operation as columns have it."""
    return {"operation": operation.name, "parameters": canonical_json(dict(operation.parameters))}


def operation_of(row: dict[str, Any]) -> Operation:
    """Take the operation out of a row, and what else no value carries yet.

    Raises Damaged where it can't be right.
    """
    for column in ("layers", "positions", "condition"):
        if column in row and row[column] is None:
            del row[column]
    try:
        parameters = json.loads(row.pop("parameters"))
        return Operation(row.pop("operation"), tuple(sorted(parameters.items())))
    except (BadOption, ValueError, AttributeError) as error:
        raise Damaged(
            f"a row of the registry can't be read ({error}): run `steerlab rebuild`"
        ) from error


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
    """After a rebuild: put salvaged rows where none are, and link them to the new vectors."""
    if not any(connection.execute(select(table).limit(1)).first() for table in REGISTRY_ONLY):
        for table in REGISTRY_ONLY:
            unlinked = {"vector_id": None} if table in LINKED else {}
            rows = [{**_as_text(row), **unlinked} for row in salvaged[table.name]]
            _insert(connection, table, [row for row in rows if _is_readable(table, row)])
    relink(connection)


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without bytes: no column holds any, so they are text that was damaged."""
    return {
        column: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for column, value in row.items()
    }


def _is_readable(table: Table, row: Mapping[str, Any]) -> bool:
    """Whether what should be JSON is; otherwise nothing could be made of the row."""
    try:
        for column in table.c:
            if column.info.get("json") and row.get(column.name) is not None:
                json.loads(row[column.name])
    except (ValueError, TypeError):
        return False
    return True


def _insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows; if the schema refuses one, whose owner was lost for instance, the others."""
    if not rows:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(table), rows)
    except StatementError:
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if len(rows) > 1 else ():
            _insert(connection, table, half)


def relink(connection: Connection) -> None:
    """After a rebuild: vectors have other rows, but the same digests."""
    for table in LINKED:
        same = select(VECTOR.c.id).where(VECTOR.c.digest == table.c.digest)
        newest = same.order_by(VECTOR.c.id.desc()).limit(1).scalar_subquery()
        connection.execute(update(table).values(vector_id=newest))
