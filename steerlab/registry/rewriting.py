"""Rewriting payload files when their records change, in a way that any crash heals from.

A file is replaced before COMMIT, so that a full disk can still refuse the change. Until after
COMMIT the old file is kept in `.undo`, under its path. What a writer that died left there, the
next process finds: it asks the rows which of the two files is right, and puts that in place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import Connection, update

from steerlab.errors import SteerlabError
from steerlab.files import durable, payload
from steerlab.files.header import LONGEST_HEADER
from steerlab.registry.database import UNDO, Writing
from steerlab.registry.files import Entry, Shelf, at_path
from steerlab.registry.rows import Stored
from steerlab.registry.tables import VECTOR

Rows = Mapping[int, Stored]


def rewrite(work: Writing, directory: Path, paths: Iterable[str]) -> None:
    """Make payload files say what the rows say now; undone if the transaction fails.

    All are written beside the old ones before the first is replaced, and the old ones are
    kept until COMMIT: on a full disk neither the change nor its undoing needs space.
    """
    shelf = Shelf(directory)
    staged: dict[str, Path] = {}
    for path in paths:
        rows = at_path(work.connection, path)
        staged[path] = new = durable.stage(directory / path, _encoded(rows, shelf))
        work.undo.append(partial(new.unlink, missing_ok=True))
        _name_keys(work.connection, rows)
    for kept, path in _keep(directory, work, list(staged)):
        work.on_commit.append(partial(kept.unlink, missing_ok=True))
        os.replace(staged[path], directory / path)
        durable.sync_directory((directory / path).parent)


def forget(work: Writing, directory: Path, path: str) -> None:
    """After rows were deleted: take their vectors out of the file, once that is durable."""
    rows = at_path(work.connection, path)
    if not rows:
        work.on_commit.append(lambda: (directory / path).unlink(missing_ok=True))
        return
    try:
        data = _encoded(rows, Shelf(directory))
    except SteerlabError:
        return  # a damaged file is left as it is: what can still be read of it may be wanted
    _name_keys(work.connection, rows)
    ((kept, _),) = _keep(directory, work, [path])

    def take_out() -> None:
        durable.write(directory / path, data)
        kept.unlink(missing_ok=True)

    work.on_commit.append(take_out)


def settle(connection: Connection, directory: Path) -> None:
    """Finish or undo what a writer that died left half done; the caller holds the lock."""
    for kept in sorted((directory / UNDO).iterdir()):
        with contextlib.suppress(SteerlabError, OSError):  # one that has to wait stops no other
            _settle(connection, directory, kept)


def _settle(connection: Connection, directory: Path, kept: Path) -> None:
    path = unquote(kept.name)
    rows = at_path(connection, path)
    if rows and not _says(directory / path, rows):
        if _says(kept, rows):
            _put_back(kept, directory / path)
            durable.sync_directory((directory / path).parent)
        else:
            data = _encoded(rows, Shelf(directory))
            durable.write(directory / path, data)
    kept.unlink(missing_ok=True)


def _keep(directory: Path, work: Writing, paths: Sequence[str]) -> list[tuple[Path, str]]:
    """Hold on to files that are about to change, durably: each one's other name, and its path.

    They are put back if the transaction fails.
    """
    durable.make_directory(directory / UNDO)
    kept = [(directory / UNDO / quote(path, safe=""), path) for path in paths]
    for other, path in kept:
        _link(directory / path, other)
        work.undo.append(partial(_put_back, other, directory / path))
    durable.sync_directory(directory / UNDO)
    return kept


def _link(file: Path, other: Path) -> None:
    other.unlink(missing_ok=True)
    try:
        os.link(file, other)
    except OSError:  # a file system without hard links
        durable.write(other, file.read_bytes())


def _put_back(kept: Path, file: Path) -> None:
    os.replace(kept, file)
    kept.unlink(missing_ok=True)  # it is still there where both were one file


def _encoded(rows: Rows, shelf: Shelf) -> bytes:
    """A file as the rows say; one that is large stays so, however it came to be."""
    entries: list[Entry] = [(stored.record, shelf.load(stored)) for stored in rows.values()]
    return payload.encode(entries, shared=LONGEST_HEADER)


def _name_keys(connection: Connection, rows: Rows) -> None:
    """Have the rows name their vectors as `payload.encode` does."""
    for row, stored in rows.items():
        if stored.key != stored.record.qualified:
            named = update(VECTOR).where(VECTOR.c.id == row).values(key=stored.record.qualified)
            connection.execute(named)


def _says(file: Path, rows: Rows) -> bool:
    """Whether a payload file holds just what the rows of its path say."""
    try:
        written = payload.read_records(file)
    except SteerlabError:
        return False
    return written == {stored.key: stored.record for stored in rows.values()}
