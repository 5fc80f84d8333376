"""The registry's SQLite file: transactions, the write lock, the schema gate.

Readers get one consistent snapshot and never wait. Writers hold the store's lock and a
`BEGIN IMMEDIATE`, so none of them ever meets "database is locked". A store whose schema is
newer than the program is refused; an older one is copied aside, then migrated.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, create_mock_engine, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.pool import StaticPool

from steerlab.errors import SteerlabError, StoreError
from steerlab.files.durable import sync
from steerlab.files.location import finish_move
from steerlab.registry import labels, schema_version, text_index
from steerlab.registry.connections import (
    BUSY_SECONDS,
    copy_database,
    copy_with_log,
    engine_of,
    memory_engine,
)
from steerlab.registry.ports import Writing
from steerlab.registry.rows import labels_of
from steerlab.registry.schema import driver
from steerlab.registry.schema_check import problems
from steerlab.registry.schema_version import EARLIER, version_of
from steerlab.registry.sqlite_errors import Newer, damaged, one_line_errors
from steerlab.registry.tables import METADATA, REGISTRY_ONLY
from steerlab.registry.write_lock import write_lock

_OF_ROWS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What code raises that gets values which no program writes."""

Fill = Callable[[Connection], object]
T = TypeVar("T")


class Database:
    """registry.db of one store directory.

    fill: restores rows when the file is missing.
    """

    def __init__(self, directory: Path, fill: Fill, *, timeout: float = BUSY_SECONDS) -> None:
        self.directory, self.fill, self.timeout = directory, fill, timeout
        self.file = directory / "registry.db"
        self._memory: dict[str, Engine] = {}
        self._turn = threading.Lock()

    @property
    def writable(self) -> bool:
        """Whether files can be made in the directory; a missing one counts as writable."""
        effective = os.access in os.supports_effective_ids
        return not self.directory.exists() or os.access(
            self.directory, os.W_OK, effective_ids=effective
        )

    def stamp(self) -> tuple[object, ...]:
        """A token that changes with every commit: times and sizes of the file and its log."""
        found: list[object] = []
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                status = os.stat(f"{self.file}{suffix}")
                if status.st_size:  # an empty log comes and goes with every reader
                    found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent snapshot; raises StoreError if the registry can't be read."""
        with one_line_errors(self.directory):
            self._check_directory()
            with contextlib.ExitStack() as stack:
                connection = self._snapshot(stack)
                with self._sense(connection):
                    yield connection

    @contextlib.contextmanager
    def _sense(self, connection: Connection) -> Iterator[None]:
        """Report damaged rows as such, rather than as a bug of this program."""
        try:
            yield
        except _OF_ROWS as error:
            if problems(connection):
                raise damaged(self.directory) from error
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """The store's lock and a write transaction; committed and durable when it ends."""
        with one_line_errors(self.directory), self.locked():
            with contextlib.ExitStack() as stack:
                work = self._transaction(stack)
                try:
                    with self._sense(work.connection):
                        yield work
                        text_index.update(work.connection)
                except BaseException:
                    for action in reversed(work.undo):
                        with contextlib.suppress(OSError, StoreError):
                            action()
                    raise
            for action in work.on_commit:
                with contextlib.suppress(OSError, StoreError):  # at worst it leaves garbage
                    action()

    @contextlib.contextmanager
    def locked(self, timeout: float | None = None) -> Iterator[None]:
        """The store's lock between processes, and between threads of one.

        timeout: seconds to wait; None is the timeout that the store was opened with.
        """
        self._check_directory()
        with write_lock(self.directory, self.timeout if timeout is None else timeout):
            self._finish()
            yield

    def settle(self) -> None:
        """Finish changes that a dead writer left staged, unless a writer is active."""
        if self.writable and labels.staged(self.directory):
            with contextlib.suppress(StoreError), self.locked(0):
                pass

    def _finish(self) -> None:
        """Finish changes of labels that a dead writer left staged; needs the lock.

        On a full disk or with a damaged registry they stay staged.
        """
        for staged in labels.staged(self.directory) if self.file.exists() else ():
            with contextlib.suppress(SteerlabError, DBAPIError, sqlite3.Error, OSError):
                self.prepare()
                with engine_of(self.file, "rw", "BEGIN").connect() as connection:
                    rows = labels_of(connection, labels.stories(staged))
                labels.finish(self.directory, rows, staged)

    def prepare(self) -> None:
        """Create or migrate the registry; the caller holds the lock."""
        if not self.file.exists():
            self.create()
        elif not self.file.is_file():  # SQLite would wait for a pipe's other end
            raise damaged(self.directory)
        else:
            with engine_of(self.file, "rw", "BEGIN").connect() as connection:
                version = version_of(driver(connection), self.directory)
            if version != schema_version.HEAD:
                self._migrate(version)

    def create(self, fill: Fill | None = None) -> None:
        """Build a registry in a temporary file and move it into place; needs the lock.

        An existing registry, damaged or not, is moved aside.
        """
        with self._temporary(self.file) as new:
            built = engine_of(new, "rwc", "BEGIN IMMEDIATE", journal="DELETE")
            self._build(built, fill or self.fill)
            engine_of(new, "rw", "BEGIN").connect().close()  # WAL from the first reader on
            with contextlib.suppress(OSError):  # SQLite makes files that no group can write
                new.chmod(self.directory.stat().st_mode & 0o666)
            self._set_aside()

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Iterator[Path]:
        """A file to write, which replaces `target` once the block ends; needs the lock."""
        temporary = self.directory / f"registry.db.new-{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            yield temporary
            os.replace(temporary, target)
            sync(self.directory)
        finally:
            temporary.unlink(missing_ok=True)

    def refill(self, fill: Fill) -> None:
        """Empty and refill the registry, keeping a copy of the old one; needs the lock.

        A sound file is refilled in one transaction, because replacing a database that others may
        be reading loses data. A damaged file is replaced. Tables that no payload can restore
        (`tables.REGISTRY_ONLY`) stay in a sound file.
        """
        if not self.file.exists() or not self._sound():
            self.create(fill)
            return
        copy_database(self.file, self._aside())
        with (
            engine_of(self.file, "rw", "BEGIN IMMEDIATE").connect() as connection,
            connection.begin(),
        ):
            text_index.drop(connection)
            for table in reversed(METADATA.sorted_tables):
                if table not in REGISTRY_ONLY:
                    connection.execute(table.delete())
            fill(connection)
            text_index.create(connection)

    def _sound(self) -> bool:
        try:
            self.prepare()
            with engine_of(self.file, "rw", "BEGIN").connect() as connection:
                return not problems(connection)
        except Newer:
            raise
        except (StoreError, DBAPIError, sqlite3.Error):
            return False

    def has_sound_index(self) -> bool:
        """Whether the text index passes FTS5's check; True where nothing may be written."""
        if not (self.writable and self.file.is_file()):
            return True
        engine = engine_of(self.file, "rw", "BEGIN IMMEDIATE")
        with one_line_errors(self.directory), engine.connect() as connection, connection.begin():
            return text_index.sound(connection)

    def _aside(self) -> Path:
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        return self.file.with_name(f"registry.db.before-rebuild-{moment}")

    def _set_aside(self) -> None:
        """Move file and log together: SQLite would replay an old log onto the new file."""
        aside = self._aside()
        for suffix in ("", "-wal", "-shm"):
            old = self.file.with_name(f"{self.file.name}{suffix}")
            if old.exists():
                os.replace(old, aside.with_name(f"{aside.name}{suffix}"))

    def salvage(self, query: Executable) -> list[Any]:
        """Rows of a registry that may be damaged or old; empty if unreadable.

        Raises StoreError if a newer program wrote it.
        """
        return self.salvaged(lambda connection: list(connection.execute(query).mappings())) or []

    def salvaged(self, get: Callable[[Connection], T]) -> T | None:
        """As `salvage`, for any query; None if the registry is unreadable."""
        if not self.file.is_file():
            return None
        engine = engine_of(self.file, "rw", "BEGIN")
        try:
            with engine.connect() as connection:
                version_of(driver(connection), self.directory)
                driver(connection).row_factory = None  # damaged text is read as bytes
                return get(connection)
        except Newer:
            raise
        except (StoreError, DBAPIError, sqlite3.Error, UnicodeDecodeError):
            return None

    def _check_directory(self) -> None:
        finish_move(self.directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise StoreError(f"{self.directory} is a file, not a store: a store is a directory")
        for name in ("payloads", labels.FOLDER):
            place = self.directory / name
            if place.exists() and not place.is_dir():
                raise StoreError(f"{place} is a file, where {name} have their directory: move it")

    def _snapshot(self, stack: contextlib.ExitStack) -> Connection:
        """A read transaction on an up-to-date registry."""
        if not self.file.exists():
            return self._begun(self._restored(), stack)
        if not self.file.is_file():
            raise damaged(self.directory)
        engine = engine_of(self.file, "rw", "BEGIN") if self.writable else self._frozen()
        connection = self._begun(engine, stack)
        if version_of(driver(connection), self.directory) == schema_version.HEAD:
            return connection
        stack.close()
        if not self.writable:
            return self._begun(self._from_payloads(), stack)
        with self.locked():
            self.prepare()
        return self._begun(engine, stack)

    def _transaction(self, stack: contextlib.ExitStack) -> Writing:
        """A write transaction on an up-to-date registry; needs the lock."""
        if self.file.is_file():
            connection = self._begun(engine_of(self.file, "rw", "BEGIN IMMEDIATE"), stack)
            if version_of(driver(connection), self.directory) == schema_version.HEAD:
                return Writing(connection)
            stack.close()
        self.prepare()
        return Writing(self._begun(engine_of(self.file, "rw", "BEGIN IMMEDIATE"), stack))

    def _begun(self, engine: Engine, stack: contextlib.ExitStack) -> Connection:
        """A connection in a transaction, which ends with the stack."""
        stack.enter_context(self._alone(engine))
        connection = stack.enter_context(engine.connect())
        stack.enter_context(connection.begin())
        return connection

    def _restored(self) -> Engine:
        """What to read if registry.db is missing: rows restored from payloads."""
        if not self.writable:
            return self._from_payloads()
        if not (self.directory / "payloads").is_dir():
            return self._in_memory("empty", lambda: self._built(lambda connection: None))
        with self.locked():
            self.prepare()
        return engine_of(self.file, "rw", "BEGIN")

    def _from_payloads(self) -> Engine:
        return self._in_memory("payloads", lambda: self._built(self.fill))

    def _frozen(self) -> Engine:
        """A registry in a directory that SQLite can't write to."""
        log = self.file.with_name("registry.db-wal")
        if not log.exists() or not log.stat().st_size:
            return engine_of(self.file, "ro&immutable=1", "BEGIN", journal=None)
        return self._in_memory("log", lambda: copy_with_log(self.file, log))

    def _alone(self, engine: Engine) -> contextlib.AbstractContextManager[object]:
        """Serialize threads on an in-memory registry, which has one connection."""
        return self._turn if isinstance(engine.pool, StaticPool) else contextlib.nullcontext()

    def _in_memory(self, what: str, make: Callable[[], Engine]) -> Engine:
        with self._turn:
            if what not in self._memory:
                self._memory[what] = make()
                weakref.finalize(self, self._memory[what].dispose)
            return self._memory[what]

    def _built(self, fill: Fill) -> Engine:
        engine = memory_engine()
        self._build(engine, fill)
        return engine

    def _build(self, engine: Engine, fill: Fill) -> None:
        with engine.connect() as connection, connection.begin():
            create_schema(connection)
            fill(connection)
            text_index.create(connection)

    def _migrate(self, version: str) -> None:
        from steerlab.registry import migrations, result_files, results

        kept = self.file.with_name(f"registry.db.before-{schema_version.HEAD}")
        with self._temporary(kept) as copy:
            copy_database(self.file, copy)
        engine = engine_of(self.file, "rw", "BEGIN IMMEDIATE", foreign_keys=False)
        try:
            with engine.connect() as connection, connection.begin():
                if version in EARLIER:
                    migrations.bring_over(connection, self.directory, create_schema)
                else:
                    migrations.upgrade(connection)
                text_index.create(connection)
                if connection.execute(text("PRAGMA foreign_key_check")).first():
                    raise StoreError(
                        f"the registry of {self.directory} can't be brought up to date: rows "
                        "point at rows that are gone; run `steerlab rebuild`"
                    )
                result_files.mend(self.directory, results.every(connection))
        except (*_OF_ROWS, InvalidRequestError) as error:
            raise damaged(self.directory) from error


def create_schema(connection: Connection) -> None:
    """Make the tables of an empty registry, at the newest revision."""
    for statement in _creating():
        connection.exec_driver_sql(statement)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR NOT NULL)"))
    made = {"head": schema_version.HEAD}
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), made)


@cache
def _creating() -> list[str]:
    """The statements that make the tables: to compile them takes 8 ms."""
    made: list[str] = []
    dialect = sqlite.dialect()
    engine = create_mock_engine(
        "sqlite://", lambda ddl, *_, **__: made.append(str(ddl.compile(dialect=dialect)))
    )
    METADATA.create_all(engine, checkfirst=False)
    return made
