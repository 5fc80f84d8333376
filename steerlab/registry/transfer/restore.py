"""Restoring a store from a backup: it is checked, then moved into place as a whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from steerlab.core.display import printable
from steerlab.errors import CorruptPayload, StoreError
from steerlab.files import durable
from steerlab.files.location import finish_move, waiting
from steerlab.progress import Progress
from steerlab.registry.database import Database
from steerlab.registry.schema_check import COMPUTED
from steerlab.registry.transfer import archive
from steerlab.registry.transfer.backup import copy_registry, files_of

_TRIES = 10


def restore(
    source: Path, database: Database, force: bool, progress: Progress | None
) -> Path | None:
    """Restore a backup; returns where the old store was moved, None if there was none.

    Nothing is deleted: with `force`, a store that is in the way is moved aside.
    """
    finish_move(database.directory)
    target = Path(os.path.realpath(database.directory))
    taken = target.is_dir() and any(path.name != ".lock" for path in target.iterdir())
    _check_source(source, target)
    if taken and not force:
        raise StoreError(
            f"{target} has vectors already: use --force to move them aside, or restore to "
            "another directory"
        )
    new = target.with_name(f"{durable.TEMPORARY_PREFIX}{target.name}-{secrets.token_hex(8)}")
    try:
        durable.make_directory(new)
        if source.is_dir():
            _copy_store(Database(source, lambda connection: None), new)
        else:
            _unpack(source, new, progress)
        _check_registry(source, Database(new, lambda connection: None))
        return _replace(database, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(database: Database, new: Path) -> Path | None:
    """Move a complete store into place; returns where the old one was moved, if there was one.

    For a moment there is no store here. Whoever looks then, or after this process was killed,
    finishes the move. What a writer saves in that moment is moved aside too.
    """
    target = Path(os.path.realpath(database.directory))  # it may be ".", which moves too
    place = Database(target, database.fill, timeout=database.timeout)
    with place.locked():
        shutil.rmtree(ready := waiting(target), ignore_errors=True)
        os.rename(new, ready)
        try:
            aside = _make_room(target)
        except OSError:
            shutil.rmtree(ready, ignore_errors=True)  # the old store is still there
            raise
    for _ in range(_TRIES):
        with place.locked():  # taking the lock finishes the move
            if not ready.exists():
                durable.sync(target.parent)
                return aside
            later = _make_room(target)
            aside = aside or later
    was = f", and what was there to {aside}" if aside else ""
    raise StoreError(f"can't move {ready} to {target}{was}: move it there yourself")


def _make_room(target: Path) -> Path | None:
    """Move a store aside; returns where, None if it was empty and is deleted."""
    if all(path.name == ".lock" for path in target.iterdir()):
        (target / ".lock").unlink(missing_ok=True)
        target.rmdir()
        return None
    moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    aside = target.with_name(f"{target.name}.before-restore-{moment}")
    os.rename(target, aside)
    return aside


def _check_source(source: Path, target: Path) -> None:
    if source.is_dir():
        if not (source / archive.REGISTRY).exists() and not (source / "payloads").is_dir():
            raise StoreError(f"{source} is no backup: it has neither a registry.db nor payloads")
        if target.exists() and source.samefile(target):
            raise StoreError(f"{source} is the store itself: there is nothing to restore")
    elif not archive.is_archive(source):
        raise StoreError(f"{source} is no backup: use `steerlab import` for a payload file")


def _check_registry(source: Path, restored: Database) -> None:
    """Refuse one that a newer or another program wrote; a damaged one can be rebuilt."""
    for row in restored.salvage(COMPUTED):
        name = printable(str(row["name"])[:80])
        raise CorruptPayload(
            f"{source} holds a registry whose table {name} makes up what it says: nothing was "
            "taken from it; unpack it with tar and import the payloads"
        )


def _unpack(source: Path, new: Path, progress: Progress | None) -> None:
    def place(name: str) -> Path:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        return new / name

    for _, file in archive.unpack(source, place, progress):
        durable.sync(file)
    for directory in new.rglob("*/"):
        durable.sync(directory)
    durable.sync(new)


def _copy_store(old: Database, new: Path) -> None:
    """Copy a store as it is; one that was never written to, as an unpacked backup, is only read."""
    in_use = old.writable and (old.directory / ".lock").exists()
    with old.locked() if in_use else contextlib.nullcontext():
        for name, file in files_of(old.directory, []):
            durable.write(new / name, file.read_bytes())
        if registry := copy_registry(old, new / archive.REGISTRY, []):
            durable.sync(registry)
    durable.sync(new)
