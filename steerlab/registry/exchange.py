"""Vectors on their way out of a store and into another: export, import, backup."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, or_, select

from steerlab import payload
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.recipe import Expression, ModelIdentity
from steerlab.registry import files, saving
from steerlab.registry.audit import untrue_facts
from steerlab.registry.database import Database, Writing, copy_database, one_line_errors
from steerlab.registry.files import Entry
from steerlab.registry.restore import usable
from steerlab.registry.rows import ensure_model, link, read
from steerlab.registry.tables import OPERAND, VECTOR
from steerlab.vector import placeholder_of


@dataclass(frozen=True)
class Import:
    """What became of a vector that was imported.

    ref: what it is called here. was: what the file calls it. already: it was here before,
    so nothing was stored. model: whose it is.
    """

    ref: str
    was: str
    already: bool
    model: ModelIdentity


def export(connection: Connection, directory: Path, row: int, target: Path, parents: bool) -> Path:
    """Write a vector, and all it was made from if asked, to a payload file that is new."""
    ids = _ancestors(connection, row) if parents else [row]
    stored = read(connection, ids)
    target = target / f"{stored[row].record.name}{files.SUFFIX}" if target.is_dir() else target
    if target.exists():
        raise StoreError(f"{target} exists: export to another name, or delete it first")
    payload.write(
        target, payload.encode([(s.record, files.load(directory, s)) for s in stored.values()])
    )
    return target


def admit(work: Writing, directory: Path, entries: Sequence[Entry], source: Path) -> list[Import]:
    """Store what a payload file holds, oldest first, so that operands come before results."""
    results: list[Import] = []
    new: list[Entry] = []
    for record, vector in sorted(entries, key=lambda e: e[0].created):
        wrong = untrue_facts(record, vector)
        if wrong:
            raise CorruptPayload(f"{source}: {record.ref}: {wrong[0]}")
        saving.check(vector)
        entry = usable(record, source), vector
        here = _already(work.connection, entry, new)
        if here is None:
            new.append(_welcomed(work.connection, entry, new))
        results.append(Import(here or new[-1][0].ref, record.ref, here is not None, record.model))
    saving.store(work, directory, new)
    link(work.connection)
    return results


def backup(database: Database, target: Path) -> Path:
    """Copy registry and payloads to a directory that is new; writers wait meanwhile."""
    if target.exists():
        raise StoreError(f"{target} exists: a backup goes to a directory of its own")
    if not database.directory.is_dir():
        raise StoreError(f"there is no store at {database.directory}")
    part = target.with_name(f"{payload.TEMPORARY_PREFIX}{target.name}-{os.getpid()}")
    held = database.locked() if database.writable else contextlib.nullcontext()
    with one_line_errors(target), held:
        try:
            _copy(database, part)
            os.rename(part, target)
            payload.sync_directory(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


def bring_back(source: Path, database: Database, *, force: bool) -> Path | None:
    """Put a backup in a store's place; returns where the old store was moved, if there was one.

    The backup stays as it is. Nothing is deleted: what `force` replaces is moved aside.
    """
    if not (source / "registry.db").exists() and not (source / "payloads").is_dir():
        raise StoreError(f"{source} is no backup: it has neither a registry.db nor payloads")
    target = database.directory
    if target.exists() and source.samefile(target):
        raise StoreError(f"{source} is the store itself: there is nothing to restore")
    taken = target.is_dir() and any(path.name != ".lock" for path in target.iterdir())
    if taken and not force:
        raise StoreError(
            f"{target} has vectors already: force it, and they are moved aside, or restore to "
            "another directory"
        )
    old = Database(source, lambda connection: None)
    new = target.with_name(f"{payload.TEMPORARY_PREFIX}{target.name}-restored-{os.getpid()}")
    backup(old, new)
    aside = None
    with one_line_errors(target), database.locked():
        if taken:
            moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
            aside = target.with_name(f"{target.name}.before-restore-{moment}")
            os.rename(target, aside)
        else:
            shutil.rmtree(target)  # it holds its lock alone
        os.rename(new, target)
        payload.sync_directory(target.parent)
    return aside


def _copy(database: Database, part: Path) -> None:
    payload.make_directory(part)
    for source in files.payload_files(database.directory):
        payload.write(part / source.relative_to(database.directory), source.read_bytes())
    if database.writable:
        database.prepare()
        copy_database(database.file, part / database.file.name)
    else:  # SQLite can't open it as it is, but nobody writes to it either
        for source in database.directory.glob("registry.db*"):
            if source.name in ("registry.db", "registry.db-wal"):
                shutil.copyfile(source, part / source.name)
    for copy in part.glob("registry.db*"):
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
    payload.sync_directory(part)


def _ancestors(connection: Connection, row: int) -> list[int]:
    """The row and everything it was made from, parents first."""
    found = [row]
    for current in found:
        edges = select(OPERAND.c.parent_id).where(
            OPERAND.c.child_id == current, OPERAND.c.parent_id.is_not(None)
        )
        found += [p for p in connection.execute(edges).scalars() if p not in found]
    return found[::-1]


def _already(connection: Connection, entry: Entry, new: Sequence[Entry]) -> str | None:
    """The ref of the same record, if it is here: same bytes, and same name or moment."""
    record = entry[0]
    query = select(VECTOR.c.name, VECTOR.c.version).where(
        VECTOR.c.model_id == ensure_model(connection, record.model),
        VECTOR.c.digest == record.digest,
        or_(VECTOR.c.name == record.name, VECTOR.c.created == record.created),
    )
    for name, version in connection.execute(query.order_by(VECTOR.c.name != record.name)):
        return f"{name}.v{version}"
    return next((r.ref for r, _ in new if (r.name, r.digest) == (record.name, record.digest)), None)


def _welcomed(connection: Connection, entry: Entry, new: Sequence[Entry]) -> Entry:
    """The entry under a version that is free here, its operands under this store's refs."""
    record, vector = entry
    model = ensure_model(connection, record.model)
    latest = max(
        saving.latest(connection, model, record.name),
        *(r.version for r, _ in new if (r.name, r.model) == (record.name, record.model)),
        0,
    )
    recipe = record.recipe
    if isinstance(recipe, Expression):
        recipe = _at_home(connection, recipe, entry, model, new)
    version = record.version if record.version > latest else latest + 1
    record = replace(record, version=version, recipe=recipe)
    return record, files.described(vector, record)


def _at_home(
    connection: Connection, recipe: Expression, entry: Entry, model: int, new: Sequence[Entry]
) -> Expression:
    """The expression with this store's refs; an operand that is not here keeps its own name
    unless another vector bears it here.
    """
    renamed = {}
    for operand in recipe.operands:
        try:
            renamed[operand.ref] = saving.stored_ref(connection, operand, entry[1], model, new)
        except NotFound:
            name = operand.ref.split(".")[-2] if "." in operand.ref else operand.ref
            taken = saving.latest(connection, model, name)
            renamed[operand.ref] = placeholder_of(operand.digest) if taken else operand.ref
    return saving.with_refs(recipe, renamed)
