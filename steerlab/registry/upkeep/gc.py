"""Garbage collection: files that no row needs."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, select

from steerlab.core.record import Labels, Record
from steerlab.errors import SteerlabError
from steerlab.files import durable, payload
from steerlab.files.header import FileTooLarge
from steerlab.progress import Progress, followed
from steerlab.registry import labels, result_files
from steerlab.registry.files import LINKS, is_held, payload_files
from steerlab.registry.tables import VECTOR


@dataclass(frozen=True)
class Garbage:
    """A file that no row needs; path is relative to the store.

    holds: refs of vectors in an intact payload that the registry does not know; removed: of those
    that were removed. unreadable: why a payload can't be read, or empty.
    """

    path: str
    size: int
    holds: tuple[str, ...] = ()
    unreadable: str = ""
    removed: tuple[str, ...] = ()

    @property
    def contents(self) -> str:
        """The vectors in it, as text."""
        return " ".join((*self.holds, *(f"{ref} (removed)" for ref in self.removed)))


def collect(
    connection: Connection,
    directory: Path,
    dry_run: bool,
    grace: timedelta,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
) -> list[Garbage]:
    """Find and delete garbage older than `grace`; to delete, the caller holds the lock.

    only: the paths to consider; None for all.
    """
    sweep = _Sweep(connection, directory, dry_run, grace, only)
    payloads, others = list(payload_files(directory)), list(_others(directory))
    for number, path in enumerate(followed([*payloads, *others], progress)):
        if number < len(payloads):
            sweep.payload(path)
        elif path not in sweep.needed_labels:
            sweep.other(path)
    return sweep.found + _links(directory, dry_run, sweep.is_due)


class _Sweep:
    """One run of `collect`: payloads first, since they decide which label files are needed."""

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        dry_run: bool,
        grace: timedelta,
        only: Collection[str] | None,
    ) -> None:
        self.directory, self.dry_run, self.grace, self.only = directory, dry_run, grace, only
        self.stories = set(connection.execute(select(VECTOR.c.story)).scalars())
        self.kept = set(connection.execute(select(VECTOR.c.path).distinct()).scalars())
        self.labels = labels.read_all(directory)
        self.unknown = False  # whether a payload is kept that only another steerlab can read
        self.found: list[Garbage] = []

    def is_due(self, path: Path, name: str) -> bool:
        """Whether a file is to be considered, and old enough."""
        considered = self.only is None or name in self.only
        return considered and _age(path) >= self.grace.total_seconds()

    def payload(self, path: Path) -> None:
        """Delete a payload that no row needs."""
        name = path.relative_to(self.directory).as_posix()
        with contextlib.suppress(FileNotFoundError):  # a writer was done with it
            if name in self.kept or not self.is_due(path, name):
                self.kept.add(name)
                return
            try:
                self._delete(path, self._garbage(path, name))
            except FileTooLarge:
                self.kept.add(name)
                self.unknown = True

    def other(self, path: Path) -> None:
        """Delete a label file or a temporary file."""
        name = path.relative_to(self.directory).as_posix()
        with contextlib.suppress(FileNotFoundError):
            if self.is_due(path, name):
                self._delete(path, Garbage(name, path.stat().st_size))

    @cached_property
    def needed_labels(self) -> set[Path]:
        """The label files of vectors whose payloads are kept, and those that can't be read."""
        found = set(labels.label_files(self.directory))
        if self.unknown:  # their vectors may be in it
            return found
        return found - set(labels.unneeded(self.directory, self.stories, self.kept))

    def _garbage(self, path: Path, name: str) -> Garbage:
        """What an unreferenced payload holds; raises FileTooLarge."""
        size = path.stat().st_size
        try:
            records = [record for record, _ in payload.read_all(path)]
        except FileTooLarge:
            raise
        except SteerlabError as error:
            return Garbage(name, size, unreadable=str(error).replace(str(path), name))
        removed = [r for r in records if isinstance(self._said(r), labels.Removed)]
        unknown = [r for r in records if r.story not in self.stories and r not in removed]
        told = (r.labelled(s) if isinstance(s := self._said(r), Labels) else r for r in unknown)
        holds, gone = (tuple(record.qualified for record in found) for found in (told, removed))
        return Garbage(name, size, holds, removed=gone)

    def _said(self, record: Record) -> Labels | labels.Removed | None:
        return self.labels.of(record.story, record.labels if record.name else None)

    def _delete(self, path: Path, garbage: Garbage) -> None:
        self.found.append(garbage)
        if not self.dry_run:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds between now and its modification time, which may be in the future."""
    return abs(time.time() - path.stat().st_mtime)


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


def _others(directory: Path) -> Iterator[Path]:
    yield from labels.label_files(directory)
    for folder in ("payloads", labels.FOLDER, result_files.FOLDER):
        yield from sorted((directory / folder).glob(f"**/{durable.TEMPORARY_PREFIX}*"))
    yield from sorted(directory.glob("registry.db.new-*"))
