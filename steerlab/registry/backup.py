"""A whole store as one file, and back."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab import payload
from steerlab.errors import CorruptPayload, SteerlabError, StoreError
from steerlab.location import finish_move
from steerlab.notation import printable
from steerlab.registry import archive, files
from steerlab.registry.database import Database, copy_database, one_line_errors
from steerlab.registry.exchange import called
from steerlab.registry.integrity import COMPUTED, check_plain

if TYPE_CHECKING:
    from steerlab.registry.store import Progress


@dataclass(frozen=True)
class Backup:
    """A backup that was made.

    payloads: how many files were copied. damaged: a line for each that is not whole, or is
    missing.
    """

    path: Path
    payloads: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class _Moment:
    """A store's files as they were at one moment: names in the store, and where to read them.

    linked: whether they are links, to be deleted once they were read.
    """

    registry: Path | None
    payloads: Sequence[tuple[str, Path]]
    linked: bool


def backup(database: Database, target: Path, force: bool, progress: Progress | None) -> Backup:
    """Write registry and payloads, as they are at one moment, to an archive."""
    finish_move(database.directory)
    if not database.directory.is_dir():
        raise StoreError(f"there is no store at {database.directory}")
    damaged: list[str] = []
    with (
        one_line_errors(target),
        archive.create(target, force=force) as writer,
        _moment(database, target.parent) as moment,
    ):
        if moment.registry is not None:
            damaged += _registry_problems(moment.registry, {name for name, _ in moment.payloads})
            writer.add_file(archive.REGISTRY, moment.registry)
        for done, (name, file) in enumerate(moment.payloads, 1):
            damaged += _payload_problems(name, file)
            writer.add_file(name, file)
            if moment.linked:
                file.unlink()
            if progress is not None:
                progress(done, len(moment.payloads))
    return Backup(target, len(moment.payloads), tuple(damaged))


@contextlib.contextmanager
def _moment(database: Database, place: Path) -> Iterator[_Moment]:
    """A store's files, kept for as long as they are read.

    Payload files are replaced, never changed, so a second link keeps what is there now: the
    store is locked while they are linked, not while they are read. Where the file system has
    no links it stays locked. A store that is read-only has no writers to wait for.
    """
    copy = place / f"{payload.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        copy.mkdir()
        stack.callback(shutil.rmtree, copy, ignore_errors=True)
        lock = stack.enter_context(contextlib.ExitStack())
        if database.writable:
            lock.enter_context(database.locked())
        registry = _copy_registry(database, copy / archive.REGISTRY)
        found = [
            (file.relative_to(database.directory).as_posix(), file)
            for file in files.payload_files(database.directory)
        ]
        linked = False
        if database.writable:
            links = database.directory / f"{files.LINKS}{secrets.token_hex(8)}"
            stack.callback(shutil.rmtree, links, ignore_errors=True)
            with contextlib.suppress(OSError):
                links.mkdir()
                stack.enter_context(files.holder(links))
                found, linked = _linked(found, links), True
                lock.close()
        yield _Moment(registry, found, linked)


def _linked(found: Sequence[tuple[str, Path]], links: Path) -> list[tuple[str, Path]]:
    links.mkdir(exist_ok=True)
    linked = [(name, links / str(number)) for number, (name, _) in enumerate(found)]
    for (_, file), (_, link) in zip(found, linked, strict=True):
        os.link(file, link)
    return linked


def _copy_registry(database: Database, target: Path) -> Path | None:
    """A copy of the registry, log included; of one that SQLite can't read, its bytes."""
    if not database.file.exists():
        return None
    try:
        if database.writable:
            copy_database(database.file, target)
        else:  # SQLite can't open it where it is
            log = database.file.with_name("registry.db-wal")
            shutil.copyfile(database.file, target)
            if log.exists():
                shutil.copyfile(log, target.with_name(f"{target.name}-wal"))
            with contextlib.closing(sqlite3.connect(target)) as merged:
                merged.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # of a message that SQLite gives
        shutil.copyfile(database.file, target)
    return target


def _registry_problems(copy: Path, names: set[str]) -> Iterator[str]:
    try:
        with contextlib.closing(sqlite3.connect(copy)) as registry:
            check_plain(registry)
            (verdict,) = registry.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                yield "registry.db is damaged"
            for (path,) in registry.execute("SELECT DISTINCT path FROM vector ORDER BY path"):
                if path not in names:
                    yield f"{path} is missing"
    except sqlite3.Error:
        yield "registry.db is damaged"


def _payload_problems(name: str, file: Path) -> Iterator[str]:
    try:
        with called(file, name):
            payload.read_all(file)
    except SteerlabError as error:
        yield str(error)


def restore(
    source: Path, database: Database, force: bool, progress: Progress | None
) -> Path | None:
    """Put a backup in a store's place; returns where the old store was moved, if there was one.

    Nothing is deleted: what `force` replaces is moved aside.
    """
    finish_move(database.directory)
    target = Path(os.path.realpath(database.directory))
    taken = target.is_dir() and any(path.name != ".lock" for path in target.iterdir())
    _check_source(source, target)
    if taken and not force:
        raise StoreError(
            f"{target} has vectors already: force it, and they are moved aside, or restore to "
            "another directory"
        )
    new = target.with_name(f"{payload.TEMPORARY_PREFIX}{target.name}-{secrets.token_hex(8)}")
    try:
        payload.make_directory(new)
        if source.is_dir():
            _copy_store(Database(source, lambda connection: None), new)
        else:
            _unpack(source, new, progress)
        _check_registry(source, Database(new, lambda connection: None))
        return database.replace(new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_source(source: Path, target: Path) -> None:
    if source.is_dir():
        if not (source / archive.REGISTRY).exists() and not (source / "payloads").is_dir():
            raise StoreError(f"{source} is no backup: it has neither a registry.db nor payloads")
        if target.exists() and source.samefile(target):
            raise StoreError(f"{source} is the store itself: there is nothing to restore")
    elif not archive.is_archive(source):
        raise StoreError(f"{source} is no backup: `steerlab import` takes in a payload file")


def _check_registry(source: Path, restored: Database) -> None:
    """Refuse what a newer steerlab wrote, or none; a damaged one is taken, to be rebuilt."""
    for (name,) in restored.salvage(COMPUTED):
        raise CorruptPayload(
            f"{source} holds a registry whose table {printable(str(name)[:80])} makes up what it "
            "says: nothing was taken from it; unpack it with tar and import the payloads"
        )


def _unpack(source: Path, new: Path, progress: Progress | None) -> None:
    def place(name: str) -> Path:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        return new / name

    for _, file in archive.unpack(source, place, progress):
        _sync(file)
    for directory in new.rglob("*/"):
        payload.sync_directory(directory)
    payload.sync_directory(new)


def _copy_store(old: Database, new: Path) -> None:
    with old.locked() if old.writable else contextlib.nullcontext():
        for file in files.payload_files(old.directory):
            payload.write(new / file.relative_to(old.directory), file.read_bytes())
        if registry := _copy_registry(old, new / archive.REGISTRY):
            _sync(registry)
    payload.sync_directory(new)


def _sync(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
