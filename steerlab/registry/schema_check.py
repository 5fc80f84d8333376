"""Checking a registry against SQLite's rules and the schema."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from pathlib import Path

from sqlalchemy import Boolean, Connection, Float, Integer, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from steerlab.registry import text_index
from steerlab.registry.registry_only import is_readable
from steerlab.registry.schema_version import version_of
from steerlab.registry.tables import METADATA, REGISTRY_ONLY

Shape = dict[str, tuple[str, list[str]]]


COMPUTED = text(
    "SELECT made.name FROM sqlite_master AS made JOIN pragma_table_xinfo(made.name) AS found"
    " WHERE made.type = 'table' AND made.name <> 'vector_text' AND found.hidden"
)
"""Tables with a generated column, which could produce a gigabyte of text when read."""

_FOREIGN = (
    "SELECT sql FROM sqlite_master WHERE sql NOT LIKE 'CREATE TABLE %'"
    " AND sql NOT LIKE 'CREATE INDEX %' AND sql NOT LIKE 'CREATE UNIQUE INDEX %'"
)


_HAS_VERSION = (
    "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version' AND type = 'table'"
    " AND sql LIKE 'CREATE TABLE alembic_version (%' AND sql NOT LIKE '% AS %'"
)

_OURS = {*text_index.SCHEMA, *text_index.EARLIER_SCHEMA}


def check_plain(connection: sqlite3.Connection, directory: Path) -> None:
    """Refuse a registry with more than tables, indexes and our text index, before it is queried.

    A view may have no end, and a trigger change what is written. What claims to be a table may
    be a view, so only the statement that made it counts. Raises sqlite3.DatabaseError, or
    StoreError if a newer program wrote it, which may have more.
    """
    try:
        found = {sql for (sql,) in connection.execute(_FOREIGN)} - _OURS
    except UnicodeDecodeError:  # the sqlite3 module can't say SQLite's own message
        raise sqlite3.DatabaseError("malformed: the schema is not UTF-8") from None
    if found:
        if connection.execute(_HAS_VERSION).fetchone():
            version_of(connection, directory)
        raise sqlite3.DatabaseError("malformed: only tables and indexes may be in a registry")


def problems(connection: Connection) -> list[str]:
    """A few lines about what is wrong; empty for a sound registry.

    A changed value that the schema allows is not seen here: `verify` compares rows with payloads.
    Raises DBAPIError if nothing can be read.
    """
    try:
        checks = connection.execute(text("PRAGMA integrity_check(5)")).scalars().all()
    except UnicodeDecodeError:
        return ["SQLite can't check it, for a reason that is not UTF-8"]
    found = [str(line) for line in checks if line != "ok"]
    shape, intended = _shape(connection), _intended()
    found += [
        f"the schema of {name} is not what it was made with"
        for name in sorted(shape.keys() | intended.keys())
        if shape.get(name) != intended.get(name)
    ]
    if found:
        return found
    if not text_index.readable(connection):
        return ["the text index can't be read"]
    broken = connection.execute(text("PRAGMA foreign_key_check")).all()
    found += [f"a row of {row[0]} points at a row of {row[2]} that is gone" for row in broken[:5]]
    return found + _no_text(connection)


def _no_text(connection: Connection) -> list[str]:
    """Tables with bytes or invalid JSON; in those that no payload restores, rows of no value."""
    found = []
    for table in METADATA.sorted_tables:
        texts = [c.name for c in table.c if not isinstance(c.type, Integer | Float | Boolean)]
        wrongs = [f"typeof({name}) = 'blob'" for name in texts]
        said = [c.name for c in table.c if c.info.get("json")]
        wrongs += [f"{name} NOT NULL AND NOT json_valid({name})" for name in said]
        odd = text(f"SELECT 1 FROM {table.name} WHERE {' OR '.join(wrongs) or '0'} LIMIT 1")
        try:
            wrong = connection.execute(odd).first() is not None
            if table in REGISTRY_ONLY:  # read to the end: a page that is broken says so only then
                rows = connection.execute(select(table))
                wrong |= not all(is_readable(table, row._asdict()) for row in rows)
        except DBAPIError:
            wrong = True
        if wrong:
            found.append(f"a row of {table.name} can't be read")
    return found


def _shape(connection: Connection) -> Shape:
    """Name -> its CREATE statement, with constraints in any order."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'alembic%'"
    shapes = {}
    for name, sql in connection.execute(text(query)):
        said, without, _ = re.sub(r"\s+", " ", str(sql)).partition("WITHOUT ROWID")
        first, *constraints = said.split(", CONSTRAINT ")
        shapes[str(name)] = (first + without, sorted(part.strip(" )") for part in constraints))
    return shapes


@cache
def _intended() -> Shape:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        METADATA.create_all(connection)
        text_index.create(connection)
        shape = _shape(connection)
    engine.dispose()
    return shape
