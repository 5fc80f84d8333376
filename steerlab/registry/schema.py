"""What the tables share: our own metadata, names of constraints, and checks that SQLite lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, String, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_CHUNK = 400  # ids in one IN (…)

T = TypeVar("T")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Our own metadata: a program's other SQLModel tables never land in the store."""


CREATED = "created LIKE '____-__-__T__:__:__.______+00:00'"
OPERATION = "operation <> ''"
POSITIONS = "positions IN ('all', 'prompt', 'generated', 'continuation')"


def owner(table: str) -> Any:
    """The first column of a key: the row that this one belongs to and goes with."""
    key = ForeignKey(f"{table}.id", ondelete="CASCADE")
    return Field(sa_column=Column(Integer, key, primary_key=True))


def place() -> Any:
    """A column of a key that counts from 0."""
    return Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))


def json_text(*, null: bool = False) -> Any:
    """JSON, which is written and read elsewhere; marked so that damage to it is seen."""
    column = Column(Text, nullable=null, info={"json": True})
    return Field(default=None, sa_column=column) if null else Field(sa_column=column)


def linked_vector() -> Any:
    """A vector that a row of its own life speaks of; NULL where it is not in this store."""
    key = ForeignKey("vector.id", ondelete="SET NULL")
    return Field(default=None, sa_column=Column(Integer, key))


def operation() -> Any:
    """What was done to the stream: a name of `core.operation`."""
    return Field(sa_column=Column(String, nullable=False, server_default="add"))


def parameters() -> Any:
    """The operation's parameters, as JSON."""
    column = Column(Text, nullable=False, server_default="{}", info={"json": True})
    return Field(sa_column=column)


def condition() -> Any:
    """When it was done, as JSON; NULL for always."""
    return json_text(null=True)


def check(condition: str, name: str) -> CheckConstraint:
    """A condition that every row fulfils."""
    return CheckConstraint(condition, name=name)


def whole(column: str, *, null: bool = False) -> Any:
    """SQLite stores 'abc' in an INTEGER column unless told not to; PostgreSQL does not."""
    kinds = "IN ('integer', 'null')" if null else "= 'integer'"
    check = CheckConstraint(f"typeof({column}) {kinds}", name=f"{column}_integer")
    return check.ddl_if(dialect="sqlite")


def real(column: str, *, null: bool = False) -> Any:
    """A number, where SQLite would take text too; NaN it stores as NULL."""
    kinds = "('real', 'null')" if null else "('real')"
    check = CheckConstraint(f"typeof({column}) IN {kinds}", name=f"{column}_real")
    return check.ddl_if(dialect="sqlite")


def flag(column: str) -> Any:
    """Yes or no, where SQLite would take any number."""
    check = CheckConstraint(f"{column} IN (0, 1)", name=f"{column}_flag")
    return check.ddl_if(dialect="sqlite")


def chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """The ids in parts that one statement takes."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
