"""Garbage collection: files that no row needs."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, select

from steerlab.core.record import Labels
from steerlab.errors import SteerlabError
from steerlab.files import durable, payload
from steerlab.files.header import FileTooLarge
from steerlab.registry import labels, result_files
from steerlab.registry.files import LINKS, SUFFIX, is_held, payload_files
from steerlab.registry.tables import VECTOR


@dataclass(frozen=True)
class Garbage:
    """A file that no row needs; path is relative to the store.

    holds: refs of the vectors in an intact payload. unreadable: why a payload can't be read, or
    empty.
    """

    path: str
    size: int
    holds: tuple[str, ...] = ()
    unreadable: str = ""


def collect(
    connection: Connection,
    directory: Path,
    dry_run: bool,
    grace: timedelta,
    progress: Callable[[int, int], object] | None = None,
    only: Collection[str] | None = None,
) -> list[Garbage]:
    """Find and delete garbage older than `grace`; to delete, the caller holds the lock.

    only: the paths to consider; None for all.
    """
    used = set(connection.execute(select(VECTOR.c.path).distinct()).scalars())
    used |= _needed_labels(connection, directory, used)

    def is_due(path: Path, name: str) -> bool:
        return (only is None or name in only) and _age(path) >= grace.total_seconds()

    found = []
    known = labels.read_all(directory)
    spared = False
    files = list(_loose(directory))
    for number, path in enumerate(files, 1):
        if progress is not None:
            progress(number, len(files))
        name = path.relative_to(directory).as_posix()
        with contextlib.suppress(FileNotFoundError):  # a writer was done with it
            if name in used or not is_due(path, name):
                continue
            if spared and path.suffix == labels.SUFFIX:  # its vectors may be what was spared
                continue
            garbage = _garbage(path, name, path.stat().st_size, known)
            if garbage is None:
                spared = True
                continue
            found.append(garbage)
            if not dry_run:
                path.unlink(missing_ok=True)
    return found + _links(directory, dry_run, is_due)


def _needed_labels(connection: Connection, directory: Path, paths: Collection[str]) -> set[str]:
    """The label files of stored vectors, and those that can't be read."""
    stories = connection.execute(select(VECTOR.c.story)).scalars()
    unneeded = set(labels.unneeded(directory, stories, paths))
    needed = (path for path in labels.label_files(directory) if path not in unneeded)
    return {path.relative_to(directory).as_posix() for path in needed}


def _age(path: Path) -> float:
    """Seconds between now and its modification time, which may be in the future."""
    return abs(time.time() - path.stat().st_mtime)


def _garbage(path: Path, name: str, size: int, known: labels.Known) -> Garbage | None:
    """The Garbage of an unreferenced file; None if it is to be kept."""
    if path.name.startswith(durable.TEMPORARY_PREFIX) or path.suffix != SUFFIX:
        return Garbage(name, size)
    try:
        records = [record for record, _ in payload.read_all(path)]
        own = ((r, known.of(r.story, r.labels if r.name else None)) for r in records)
        held = (r.labelled(s) if isinstance(s, Labels) else r for r, s in own)
        return Garbage(name, size, tuple(record.qualified for record in held))
    except FileTooLarge:
        return None  # another steerlab may read what is in it
    except SteerlabError as error:
        return Garbage(name, size, unreadable=str(error).replace(str(path), name))


def _links(directory: Path, dry_run: bool, is_due: Callable[[Path, str], bool]) -> list[Garbage]:
    """Hard links that a killed backup left; they take no space."""
    found = []
    for path in sorted(directory.glob(f"{LINKS}*")):
        with contextlib.suppress(FileNotFoundError):
            if not is_due(path, path.name) or is_held(path):
                continue
            found.append(Garbage(path.name, 0))
            if not dry_run:
                shutil.rmtree(path, ignore_errors=True)
    return found


def _loose(directory: Path) -> Iterator[Path]:
    yield from payload_files(directory)
    yield from labels.label_files(directory)
    for folder in ("payloads", labels.FOLDER, result_files.FOLDER):
        yield from sorted((directory / folder).glob(f"**/{durable.TEMPORARY_PREFIX}*"))
    yield from sorted(directory.glob("registry.db.new-*"))
