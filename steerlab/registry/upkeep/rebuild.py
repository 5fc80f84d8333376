"""Rebuilding the registry from the payloads, each of which holds its whole record."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from steerlab.core.display import printable
from steerlab.core.record import Record
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import payload
from steerlab.files.header import FileTooLarge
from steerlab.registry.files import payload_files
from steerlab.registry.rows import Placed, add, identity_text, link, mark_newest, settle
from steerlab.registry.saving import check_recipe
from steerlab.registry.tables import VECTOR

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", re.ASCII)
_BATCH = 500

Name = tuple[str, str, int]


@dataclass
class Rebuilt:
    """What a rebuild found: how many vectors have rows again, and what was left out, and why."""

    count: int = 0
    skipped: list[str] = field(default_factory=list)


def rebuild(
    connection: Connection,
    directory: Path,
    preferred: Sequence[tuple[str, str]] = (),
    known: Callable[[str], Sequence[Placed]] = lambda path: (),
) -> Rebuilt:
    """Insert rows for every payload into an empty registry.

    Where two payloads claim one name and version, the one in `preferred` (path, key) wins,
    then the younger: the older is what a crash left behind before it was acknowledged. Of the
    same vector twice, one that is whole wins.
    known: what a former registry knew of a path, for files that are larger than can be read.
    """
    done = Rebuilt()
    chosen: dict[Name, Placed] = {}
    first = set(preferred)
    for placed in _placed(directory, known, done):
        name = _name(placed.record)
        rival = chosen.get(name)
        if rival is None:
            chosen[name] = placed
            continue
        kept, lost = sorted((rival, placed), key=lambda p: _rank(p, first), reverse=True)
        if kept.record.digest == lost.record.digest and not _whole(directory, kept):
            kept, lost = lost, kept
        chosen[name] = kept
        if kept.record.digest != lost.record.digest:
            done.skipped.append(
                f"{lost.path}: {lost.record.ref} is already another vector; "
                "`steerlab import` gives it a version of its own"
            )
    ordered = sorted(  # a stray file may claim any time: it takes no model's name from those here
        chosen.values(),
        key=lambda p: ((p.path, p.key) not in first, p.record.created, p.record.ref),
    )
    for start in range(0, len(ordered), _BATCH):
        _add(connection, ordered[start : start + _BATCH], done)
    mark_newest(connection, VECTOR.c.version == 1)
    link(connection)
    return done


def _add(connection: Connection, placed: Sequence[Placed], done: Rebuilt) -> None:
    """Insert a batch; if the schema refuses one of it, all but that one."""
    try:
        with connection.begin_nested():
            rows = add(connection, placed)
            settle(connection, rows, placed)
        done.count += len(rows)
    except (DBAPIError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        if len(placed) == 1:
            why = str(getattr(error, "orig", error))
            done.skipped.append(f"{placed[0].path}: {placed[0].record.ref}: {why}")
            return
        for one in placed:
            _add(connection, [one], done)


def usable(record: Record, what: object) -> Record:
    """The record as the registry can hold it: its time in UTC; raises CorruptPayload."""
    try:
        check_recipe(record.recipe)
    except SteerlabError as error:
        why = printable(str(error))[:200]
        raise CorruptPayload(f"{what}: {record.ref}: its recipe can't be used: {why}") from None
    layers = {facts.layer for facts in record.layers}
    sizes = (record.version, record.model.n_layers, record.model.d_model, *layers)
    if max(sizes) >= 2**63 or len(layers) < len(record.layers):
        raise CorruptPayload(f"{what}: {record.ref} has an impossible version, model or layers")
    if not re.fullmatch(r"[0-9a-f]{64}", record.digest):
        raise CorruptPayload(f"{what}: {record.digest[:40]!r} is not a digest")
    created = _utc(record.created, what)
    return replace(record, created=created, tags=tuple(sorted(set(record.tags) - {""})))


def _utc(created: str, what: object) -> str:
    """A time as rows hold it; raises CorruptPayload for what is none."""
    try:
        moment = datetime.fromisoformat(created)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):  # year 1 has no earlier hour
        raise CorruptPayload(f"{what}: {created[:40]!r} is not a time") from None
    return created if _UTC.fullmatch(created) else moment.isoformat(timespec="microseconds")


def _placed(
    directory: Path, known: Callable[[str], Sequence[Placed]], done: Rebuilt
) -> list[Placed]:
    found: list[Placed] = []
    for file in payload_files(directory):
        path = file.relative_to(directory).as_posix()
        try:
            for key, record in payload.read_records(file).items():
                found.append(Placed(usable(record, path), path, key))
        except FileTooLarge as error:
            found += (kept := known(path))
            if not kept:
                done.skipped.append(f"{error}; keep the file, and upgrade steerlab")
        except SteerlabError as error:
            done.skipped.append(str(error))
    return found


def _name(record: Record) -> Name:
    return (identity_text(record.model), record.name, record.version)


def _whole(directory: Path, placed: Placed) -> bool:
    with contextlib.suppress(SteerlabError):
        payload.read(directory / placed.path, placed.key)
        return True
    return False


def _rank(placed: Placed, preferred: set[tuple[str, str]]) -> tuple[bool, str, str]:
    return ((placed.path, placed.key) in preferred, placed.record.created, placed.path)
