"""Rebuilding rows from payload files and label files."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from steerlab.core.display import printable
from steerlab.core.notation import canonical
from steerlab.core.recipe import Expression
from steerlab.core.record import Labels, Record
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import payload
from steerlab.files.header import FileTooLarge
from steerlab.registry import labels
from steerlab.registry.files import payload_files
from steerlab.registry.operands import link
from steerlab.registry.rows import Placed, Stored, add, identity_text, mark_newest, read
from steerlab.registry.saving import check_recipe
from steerlab.registry.schema import accepted, chunks
from steerlab.registry.tables import VECTOR

_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", re.ASCII)
_BATCH = 500

Name = tuple[str, str, int]
Trusted = Mapping[str, Stored]
"""Story -> the row of a former registry that is as a program wrote it."""


@dataclass
class Rebuilt:
    """The result of a rebuild: the number of vectors, and a line for each that was left out.

    wanted: story -> the labels in its row; initial: those in its payload file.
    """

    count: int = 0
    skipped: list[str] = field(default_factory=list)
    wanted: dict[str, Labels] = field(default_factory=dict)
    initial: dict[str, Labels] = field(default_factory=dict)


def trusted_rows(connection: Connection) -> dict[str, Stored]:
    """The unaltered rows of a registry, which may be damaged, by story."""
    found: dict[str, Stored] = {}
    for part in chunks(list(connection.execute(select(VECTOR.c.id)).scalars())):
        try:
            rows = [*read(connection, part).values()]
        except (SteerlabError, DBAPIError, sqlite3.Error, UnicodeDecodeError):
            rows = [row for one in part for row in _alone(connection, one)]
        found |= {stored.story: stored for stored in rows if not stored.altered}
    return found


def _alone(connection: Connection, row: int) -> list[Stored]:
    with contextlib.suppress(SteerlabError, DBAPIError, sqlite3.Error, UnicodeDecodeError):
        return [*read(connection, [row]).values()]
    return []


def rebuild(connection: Connection, directory: Path, trusted: Trusted) -> Rebuilt:
    """Insert rows for every payload into an empty registry.

    Labels come from the trusted row, else from the label file, else from the payload file; from
    the label file too if it has more edits than the row. If two vectors claim a version, the one
    whose trusted row has it wins, then one with a trusted row, which goes back to that row's
    version, then the newer: the other was never acknowledged. Of two copies of a vector, an intact
    one wins.
    """
    done = Rebuilt()
    known = labels.read_all(directory, done.skipped)
    found: dict[str, Placed] = {}
    for placed in _placed(directory, trusted, done):
        story = placed.record.story
        rival = found.get(story)
        found[story] = placed if rival is None else _better(directory, rival, placed, trusted)
        if placed.record.name:
            done.initial[story] = placed.record.labels
    chosen: dict[Name, Placed] = {}
    for story, placed in found.items():
        own = _labels(story, placed.record, trusted, known)
        if own is not None:
            record = placed.record.labelled(own)
            _claim(chosen, replace(placed, record=record, edits=own.edits), trusted, done)
    insert(connection, chosen.values(), done, trusted)
    done.skipped += [
        f"{row.qualified}: its payload {row.path} is missing"
        for story, row in trusted.items()
        if story not in found and not (directory / row.path).exists()
    ]
    return done


def _labels(story: str, record: Record, trusted: Trusted, known: labels.Known) -> Labels | None:
    """The labels of a vector; None if it was removed."""
    own = known.of(story, record.labels if record.name else None)
    if story in trusted and (own is None or own.edits <= trusted[story].edits):
        return trusted[story].labels  # else the registry lost a change: its log, for instance
    if isinstance(own, labels.Removed):
        return None
    return own or unnamed(story)


def unnamed(story: str) -> Labels:
    """Labels for a vector whose own are lost."""
    return Labels(f"unnamed_{story[:12]}", 1)


def _better(directory: Path, one: Placed, other: Placed, trusted: Trusted) -> Placed:
    """The better of two copies of a vector."""
    story = one.record.story
    own = (trusted[story].path, trusted[story].key) if story in trusted else None
    first, second = (other, one) if (other.path, other.key) == own else (one, other)
    return first if _whole(directory, first) else second


def _claim(chosen: dict[Name, Placed], placed: Placed, trusted: Trusted, done: Rebuilt) -> None:
    """Assign a name and version to the better of the vectors that claim it."""
    rival = chosen.get(_name(placed.record))
    rivals = [placed] if rival is None else [placed, rival]
    kept, *others = sorted(rivals, key=lambda p: _right(p, trusted), reverse=True)
    chosen[_name(placed.record)] = kept
    for lost in others:
        row = trusted.get(lost.record.story)
        if row is not None and _name(row.record) != _name(lost.record):
            _claim(chosen, replace(lost, record=lost.record.labelled(row.labels)), trusted, done)
            continue
        done.skipped.append(
            f"{lost.path}: {lost.record.ref} is already another vector; "
            "`steerlab import` gives it a version of its own"
        )


def _right(placed: Placed, trusted: Trusted) -> tuple[bool, bool, str, str]:
    """The right of a vector to its name and version; the greatest of several is the best."""
    record, row = placed.record, trusted.get(placed.record.story)
    own = row is not None and _name(row.record) == _name(record)
    return own, row is not None, record.created, placed.path


def insert(
    connection: Connection, found: Iterable[Placed], done: Rebuilt, trusted: Trusted
) -> None:
    """Insert the rows of vectors, except for those that the schema refuses, and link operands."""

    def refuse(one: Placed, why: str) -> None:
        done.skipped.append(f"{one.path}: {one.record.ref}: {why}")

    ordered = sorted(  # a stray file may claim any time: it takes no model's name from those here
        found, key=lambda p: (p.record.story not in trusted, p.record.created, p.record.ref)
    )
    for start in range(0, len(ordered), _BATCH):
        part = ordered[start : start + _BATCH]
        for one in accepted(connection, part, partial(add, connection), refuse):
            done.count += 1
            done.wanted[one.record.story] = replace(one.record.labels, edits=one.edits)
    mark_newest(connection, VECTOR.c.version == 1)
    link(connection)


def usable(record: Record, what: object) -> Record:
    """The record normalized for the registry; raises CorruptPayload if it is invalid."""
    try:
        check_recipe(record.recipe)
    except SteerlabError as error:
        why = printable(str(error))[:200]
        raise CorruptPayload(f"{what}: {record.ref}: its recipe can't be used: {why}") from None
    layers = {facts.layer for facts in record.layers}
    sizes = (record.model.n_layers, record.model.d_model, *layers)
    if max(sizes) >= 2**63 or len(layers) < len(record.layers):
        raise CorruptPayload(f"{what}: {record.ref} has an impossible model or layers")
    if not re.fullmatch(r"[0-9a-f]{64}", record.digest):
        raise CorruptPayload(f"{what}: {record.digest[:40]!r} is not a digest")
    recipe = record.recipe
    if isinstance(recipe, Expression):
        recipe = Expression(canonical(recipe.text), recipe.operands)
    created, tags = _utc(record.created, what), tuple(sorted(set(record.tags) - {""}))
    return replace(record, created=created, tags=tags, recipe=recipe)


def _utc(created: str, what: object) -> str:
    """A time in UTC; raises CorruptPayload if it is no time."""
    try:
        moment = datetime.fromisoformat(created)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):  # year 1 has no earlier hour
        raise CorruptPayload(f"{what}: {created[:40]!r} is not a time") from None
    return created if _UTC.fullmatch(created) else moment.isoformat(timespec="microseconds")


def _placed(directory: Path, trusted: Trusted, done: Rebuilt) -> Iterator[Placed]:
    """The vectors in payload files; of files that are too large, those with trusted rows."""
    for file in payload_files(directory):
        path = file.relative_to(directory).as_posix()
        try:
            for key, record in payload.read_records(file).items():
                yield Placed(usable(record, path), path, key)
        except FileTooLarge as error:
            known = [s for s in trusted.values() if s.path == path]
            yield from (Placed(stored.record, path, stored.key) for stored in known)
            if not known:
                done.skipped.append(f"{error}; keep the file, and upgrade steerlab")
        except SteerlabError as error:
            done.skipped.append(str(error))


def _name(record: Record) -> Name:
    return (identity_text(record.model), record.name, record.version)


def _whole(directory: Path, placed: Placed) -> bool:
    with contextlib.suppress(SteerlabError):
        payload.read(directory / placed.path, placed.key)
        return True
    return False
