"""Shared by the tables: metadata, constraint names, checks that SQLite lacks, statements."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    CheckConstraint,
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import declared_attr, registry
from sqlmodel import Field, SQLModel

_CHUNK = 400  # vectors held in memory at a time

T = TypeVar("T")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Our own metadata, so that other SQLModel tables of a program stay out of the store.

    A table is called as its class is: SweepOperandRow is "sweep_operand".
    """

    @declared_attr.directive
    @classmethod
    def __tablename__(cls) -> str:
        return re.sub("(?<!^)(?=[A-Z])", "_", cls.__name__.removesuffix("Row")).lower()


CREATED = "created LIKE '____-__-__T__:__:__.______+00:00'"
WITHOUT_ROWID = {"sqlite_with_rowid": False}  # one B-tree instead of two: a save writes less
POSITIONS = "positions IN ('all', 'prompt', 'generated', 'continuation')"


def owner(table: str) -> Any:
    """A key column: the row that owns this one; deleted together."""
    key = ForeignKey(f"{table}.id", ondelete="CASCADE")
    return Field(sa_column=Column(Integer, key, primary_key=True))


def place() -> Any:
    """A key column that counts from 0."""
    return Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))


def json_text(*, null: bool = False) -> Any:
    """A JSON column, marked so that `schema_check` validates it."""
    column = Column(Text, nullable=null, info={"json": True})
    return Field(default=None, sa_column=column) if null else Field(sa_column=column)


def linked_vector() -> Any:
    """The vector that a row is about; NULL if it is not in this store."""
    key = ForeignKey("vector.id", ondelete="SET NULL")
    return Field(default=None, sa_column=Column(Integer, key))


def operation() -> Any:
    """The name of an operation, as in `core.operation`."""
    return Field(sa_column=Column(String, nullable=False, server_default="add"))


def parameters() -> Any:
    """The parameters of an operation, as JSON."""
    column = Column(Text, nullable=False, server_default="{}", info={"json": True})
    return Field(sa_column=column)


def check(condition: str, name: str) -> CheckConstraint:
    """A CHECK constraint."""
    return CheckConstraint(condition, name=name)


def steered() -> tuple[CheckConstraint, ...]:
    """Require known positions and a named operation."""
    return check(POSITIONS, "positions_known"), check("operation <> ''", "operation_given")


def whole(*columns: str, null: bool = False) -> tuple[Any, ...]:
    """Require integers: SQLite would store 'abc' in an INTEGER column."""
    kinds = "IN ('integer', 'null')" if null else "= 'integer'"
    return tuple(_in_sqlite(f"typeof({column}) {kinds}", f"{column}_integer") for column in columns)


def real(*columns: str, null: bool = False) -> tuple[Any, ...]:
    """Require real numbers: SQLite would store text. It stores NaN as NULL."""
    kinds = "('real', 'null')" if null else "('real')"
    return tuple(_in_sqlite(f"typeof({column}) IN {kinds}", f"{column}_real") for column in columns)


def flag(column: str) -> Any:
    """Require 0 or 1: SQLite would store any number."""
    return _in_sqlite(f"{column} IN (0, 1)", f"{column}_flag")


def _in_sqlite(condition: str, name: str) -> Any:
    return check(condition, name).ddl_if(dialect="sqlite")


GIVEN = select(func.json_each(bindparam("given")).table_valued("value").c.value)
"""What `column.in_` takes in a statement that is run with the parameters of `given`."""


def given(values: Collection[int] | Collection[str]) -> dict[str, str]:
    """Any number of values, as JSON: SQLite limits how many parameters there are."""
    return {"given": json.dumps([*values])}


def chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split ids into parts, to hold the vectors of one part in memory."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def accepted(
    connection: Connection,
    rows: Sequence[T],
    insert: Callable[[Sequence[T]], object],
    refuse: Callable[[T, str], object],
) -> list[T]:
    """Insert rows, or halves of them until none is refused; returns those inserted.

    refuse: called with each row that the schema refuses, and the reason.
    """
    if not rows:
        return []
    try:
        with connection.begin_nested():
            insert(rows)
        return [*rows]
    except (StatementError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if len(rows) == 1:
            refuse(rows[0], str(getattr(error, "orig", error)))
            return []
    halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
    return [row for half in halves for row in accepted(connection, half, insert, refuse)]


def share(connection: Connection, row: ColumnElement[int], condition: ColumnElement[bool]) -> float:
    """The share of rows that pass a condition, estimated from 50 spread over the row ids."""
    last = connection.execute(select(func.max(row))).scalar() or 0
    some = range(1, last + 1, max(1, last // 50))
    return float(connection.execute(select(func.avg(condition)).where(row.in_(some))).scalar() or 0)


def driver(connection: Connection) -> sqlite3.Connection:
    """The sqlite3 connection below, for what every save does.

    SQLAlchemy takes 0.1 ms a statement: a save through it takes 1.7 times the CPU.
    """
    found: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return found


def fetched(connection: Connection, query: ClauseElement, **parameters: Any) -> list[Any]:
    """The rows of a query by the driver, as plain tuples."""
    return driver(connection).execute(compiled(query), parameters).fetchall()


@cache
def compiled(statement: ClauseElement) -> str:
    """The SQL text of a constant statement with named parameters."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
