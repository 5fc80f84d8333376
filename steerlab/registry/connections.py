"""Connections to an SQLite file: plain, durable, and closed when the call is over."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool, StaticPool
from sqlalchemy.util import LRUCache

from steerlab.errors import StoreError
from steerlab.registry.schema import driver
from steerlab.registry.schema_check import check_plain

BUSY_SECONDS = 30.0

_PAGE = 8192  # bytes: SQLite's 4096 leave a quarter of the page unused behind two vectors


def opened(
    file: Path, mode: str, *, journal: str | None = "WAL", foreign_keys: bool = True
) -> sqlite3.Connection:
    """A sqlite3 connection to a file, outside a transaction."""
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        if mode == "rwc":
            connection.execute(f"PRAGMA page_size = {_PAGE}")
        check_plain(connection, file.parent)
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        connection.execute("PRAGMA synchronous = FULL")
        if journal:
            connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.row_factory = _as_written
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection


@cache
def _shared() -> tuple[Dialect, LRUCache[Any, Any]]:
    """The dialect of every engine, and their compiled statements."""
    engine = create_engine("sqlite://")
    with engine.connect():
        pass  # the dialect asks for the version
    engine.dispose()
    return engine.dialect, LRUCache(500)


@lru_cache(maxsize=64)
def engine_of(
    file: Path,
    mode: str,
    begin: str,
    *,
    journal: str | None = "WAL",
    foreign_keys: bool = True,
) -> Engine:
    """An engine that keeps no connection open, so nothing outlives a call or crosses a fork."""
    connect: Any = partial(opened, file, mode, journal=journal, foreign_keys=foreign_keys)
    dialect, compiled = _shared()
    pool, options = NullPool(connect, dialect=dialect), {"compiled_cache": compiled}
    engine = Engine(pool, dialect, make_url("sqlite://"), execution_options=options)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver(connection).execute(begin)

    return engine


def _as_written(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
    """Reject BLOBs: we never store any, so one means a corrupted TEXT value."""
    if bytes in map(type, row):
        raise sqlite3.DatabaseError("malformed: there are bytes where text should be")
    return row


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a database that may be in use, log included."""
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def copy_with_log(file: Path, log: Path) -> Engine:
    """An in-memory copy of a database with its log."""
    memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    with tempfile.TemporaryDirectory() as copies:
        for source in (file, log):
            shutil.copyfile(source, Path(copies) / source.name)
        with contextlib.closing(sqlite3.connect(Path(copies) / file.name)) as copy:
            copy.backup(memory)
    check_plain(memory, file.parent)
    memory.row_factory = _as_written
    return create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool)


def memory_engine() -> Engine:
    """A database in memory, of one connection that threads take turns to use."""
    threads = {"check_same_thread": False}
    return create_engine("sqlite://", poolclass=StaticPool, connect_args=threads)
