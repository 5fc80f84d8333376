"""Backups: a whole store in one file, as it is at one moment, even while others write."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from steerlab.core.display import printable
from steerlab.errors import SteerlabError, StoreError
from steerlab.files import durable, header, payload
from steerlab.files.location import finish_move
from steerlab.progress import Progress, followed
from steerlab.registry import files, labels, result_files
from steerlab.registry.connections import copy_database
from steerlab.registry.database import Database
from steerlab.registry.schema_check import check_plain
from steerlab.registry.sqlite_errors import Newer, one_line_errors, tells_damage
from steerlab.registry.transfer import archive

_DAMAGED = "registry.db is damaged"


@dataclass(frozen=True)
class Backup:
    """A finished backup.

    payloads: files copied. damaged: a line for each that is damaged, missing or can't be copied.
    """

    path: Path
    payloads: int
    damaged: tuple[str, ...]

    @property
    def way_back(self) -> str:
        """The command that restores it; --force is needed where the store still exists."""
        return shlex.join(["steerlab", "restore", str(self.path.absolute())])


def proposal(directory: Path) -> Path:
    """A path for a backup that is free: a dated file beside the store."""
    store = Path(os.path.realpath(directory))
    name = f"{store.name}-{datetime.now().astimezone():%Y-%m-%d}"
    names = (f"{name}{f'-{n}' if n > 1 else ''}{archive.SUFFIX}" for n in count(1))
    return next(path for path in map(store.with_name, names) if not os.path.lexists(path))


@dataclass(frozen=True)
class _Moment:
    """A store's files as they were at one moment: names in the store, and where to read them.

    damaged: a line for each file that is missing, incomplete or left out.
    """

    registry: Path | None
    files: Sequence[tuple[str, Path]]
    damaged: Sequence[str]


def backup(database: Database, target: Path, force: bool, progress: Progress | None) -> Backup:
    """Write registry, labels and payloads, as they are at one moment, to an archive."""
    finish_move(database.directory)
    if not database.directory.is_dir():
        raise StoreError(f"there is no store at {database.directory}")
    files.check_target(database.directory, target)
    with (
        one_line_errors(target),
        archive.create(target, force=force) as writer,
        _moment(database, target.parent) as moment,
    ):
        damaged = dict.fromkeys(moment.damaged)
        if moment.registry is not None:
            names = {name for name, _ in moment.files}
            damaged |= dict.fromkeys(_registry_problems(moment.registry, names))
            writer.add_file(archive.REGISTRY, moment.registry)
        for name, file in followed(moment.files, progress):
            damaged |= dict.fromkeys(_payload_problems(name, file))
            with archive.called(file, name):
                writer.add_file(name, file)
    payloads = sum(name.startswith("payloads/") for name, _ in moment.files)
    return Backup(target, payloads, tuple(damaged))


@contextlib.contextmanager
def _moment(database: Database, place: Path) -> Iterator[_Moment]:
    """A store's files, kept for as long as they are read.

    Files are replaced, never changed, so a second link keeps what is there now: the
    store is locked while they are linked, not while they are read. Where the file system has
    no links it stays locked. A store that is read-only has no writers to wait for.
    """
    copy = place / f"{durable.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        copy.mkdir()
        stack.callback(shutil.rmtree, copy, ignore_errors=True)
        lock = stack.enter_context(contextlib.ExitStack())
        if database.writable:
            lock.enter_context(database.locked())
        damaged: list[str] = []
        registry = copy_registry(database, copy / archive.REGISTRY, damaged)
        found = files_of(database.directory, damaged)
        if database.writable:
            links = database.directory / f"{files.LINKS}{secrets.token_hex(8)}"
            stack.callback(shutil.rmtree, links, ignore_errors=True)
            with contextlib.suppress(OSError):
                links.mkdir()
                stack.enter_context(files.holder(links))
                found = _linked(found, links)
                lock.close()
        yield _Moment(registry, found, damaged)


def _linked(found: Sequence[tuple[str, Path]], links: Path) -> list[tuple[str, Path]]:
    links.mkdir(exist_ok=True)
    linked = [(name, links / str(number)) for number, (name, _) in enumerate(found)]
    for (_, file), (_, link) in zip(found, linked, strict=True):
        os.link(file, link)
    return linked


def files_of(directory: Path, damaged: list[str]) -> list[tuple[str, Path]]:
    """The files of a store that can be copied: names in the store, and where they really are."""
    found = []
    kinds = (labels.label_files, result_files.result_files, files.payload_files, labels.staged)
    for file in chain.from_iterable(kind(directory) for kind in kinds):
        name = file.relative_to(directory).as_posix()
        if not archive.can_hold(name):
            damaged.append(f"{printable(name)} is left out: its name can't be in a backup")
        elif not file.is_file():
            damaged.append(f"{name} is left out: it is no file")
        else:
            found.append((name, file.resolve() if file.is_symlink() else file))
    return found


def copy_registry(database: Database, target: Path, damaged: list[str]) -> Path | None:
    """Copy the registry with its log, bytewise if SQLite can't read it; None if there is none."""
    if not database.file.exists():
        return None
    try:
        if database.writable:
            copy_database(database.file, target)
        else:  # SQLite can't open it where it is
            _copy_bytes(database.file, target)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite may quote bytes
        if isinstance(error, sqlite3.Error) and not tells_damage(error):
            raise
        damaged.append(_DAMAGED)
        with contextlib.suppress(sqlite3.DatabaseError):  # its log is lost then
            _copy_bytes(database.file, target)
    return target


def _copy_bytes(file: Path, target: Path) -> None:
    """Copy a registry and merge its log; the log first, which others may merge meanwhile."""
    target.unlink(missing_ok=True)
    log = file.with_name(f"{file.name}-wal")
    if log.exists():
        shutil.copyfile(log, target.with_name(f"{target.name}-wal"))
    shutil.copyfile(file, target)
    with contextlib.closing(sqlite3.connect(target)) as merged:
        merged.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _registry_problems(copy: Path, names: set[str]) -> Iterator[str]:
    try:
        with contextlib.closing(sqlite3.connect(copy)) as registry:
            check_plain(registry, copy.parent)
            (verdict,) = registry.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                yield _DAMAGED
            for (path,) in registry.execute("SELECT DISTINCT path FROM vector ORDER BY path"):
                if path not in names:
                    yield f"{path} is missing"
    except Newer:
        yield "its registry was written by a newer steerlab: upgrade steerlab"
    except sqlite3.Error:
        yield _DAMAGED


def _payload_problems(name: str, file: Path) -> Iterator[str]:
    try:
        with archive.called(file, name):
            if name.startswith(f"{labels.FOLDER}/"):
                labels.parsed(header.read_plain(file), file)
            elif name.startswith(f"{result_files.FOLDER}/"):
                result_files.parsed(header.read_plain(file), file)
            else:
                payload.read_all(file)
    except SteerlabError as error:
        yield str(error)
