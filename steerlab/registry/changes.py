"""Changes of labels and removals: listed, newest first, and undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select, update

from steerlab.core.display import some
from steerlab.core.record import Labels, Record
from steerlab.errors import CorruptPayload, NameTaken, NotFound, StoreError
from steerlab.files import payload
from steerlab.registry import labels, operands, registry_only, relabelling, removals, undo_log
from steerlab.registry.database import Database
from steerlab.registry.ports import Writing
from steerlab.registry.rebuild import usable
from steerlab.registry.refs import Ref, versions_of
from steerlab.registry.rows import Placed, Stored, add, find_model, mark_newest, read
from steerlab.registry.tables import UNDO, VECTOR
from steerlab.registry.undo_log import Change, Step


class Changes:
    """Tags, notes, names and removals that can be undone, by whichever process they were made."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int | None = None) -> Sequence[Change]:
        """The changes that are remembered, newest first."""
        with self._database.reading() as connection:
            return undo_log.changes(connection, limit)

    def undo(self, number: int | None = None) -> Change:
        """Undo a change, by default the newest that was not undone; returns it.

        All of it or nothing. Raises NotFound if there is no such change, and StoreError, with the
        reason, if the vectors are no longer as the change left them or gc deleted a payload.
        """
        directory = self._database.directory
        with self._database.writing() as work:
            change, steps = undo_log.one(work.connection, number)
            if change.undone:
                raise StoreError(f"change {change.number} ({change.text}) was undone already")
            try:
                if change.what == "remove":
                    _bring_back(work, directory, steps)
                else:
                    _relabel(work, directory, change, steps)
            except (NotFound, NameTaken, CorruptPayload, StoreError) as error:
                which = f"change {change.number} ({change.text})"
                raise StoreError(f"can't undo {which}: {error}") from error
            undone = update(UNDO).where(UNDO.c.id == change.number).values(undone=True)
            work.connection.execute(undone)
        return replace(change, undone=True)


def _relabel(work: Writing, directory: Path, change: Change, steps: Sequence[Step]) -> None:
    """Give vectors the labels that they had, unless those were changed again since."""
    stored = _rows(work, steps)
    if change.what == "rename":
        _check_rename(work, list(stored.values()), steps)
        removals.forget_copies(work.connection, stored[steps[0].story].record.model, steps[0])
    found = [(stored[step.story], _before(stored[step.story], step)) for step in steps]
    relabelling.relabel(work, directory, found)


def _rows(work: Writing, steps: Sequence[Step]) -> dict[str, Stored]:
    """Story -> row of the vectors of a change; raises NotFound for one that was removed."""
    found = {}
    for step in steps:
        row = work.connection.execute(select(VECTOR.c.id).where(VECTOR.c.story == step.story))
        if (number := row.scalar()) is None:
            raise NotFound(f"{_called(step.now or step.was)} was removed since: undo that first")
        found[step.story] = read(work.connection, [number])[number]
    return found


def _before(stored: Stored, step: Step) -> Labels:
    """The labels with the change reverted; raises StoreError if they changed again since."""
    was, after, here = (vars(one) for one in (step.was, step.now, stored.labels))
    changed = [key for key in was if key != "edits" and was[key] != after[key]]
    if other := [key for key in changed if here[key] != after[key]]:
        raise StoreError(f"the {' and '.join(other)} of {stored.record.ref} changed again since")
    return replace(stored.labels, **{key: was[key] for key in changed})


def _check_rename(work: Writing, stored: Sequence[Stored], steps: Sequence[Step]) -> None:
    """Refuse to split a name that got other versions since, or to take one that is in use."""
    model, old = stored[0].model, steps[0].was.name
    new = stored[0].record.name
    here = versions_of(work.connection, Ref(new)).get(model, {})
    if later := [f"{new}.v{v}" for v, row in here.items() if row not in {s.id for s in stored}]:
        raise StoreError(f"{some(later)} came since: `steerlab rename {new} {old}` renames all")
    relabelling.check_free(work.connection, model, old)


def _bring_back(work: Writing, directory: Path, steps: Sequence[Step]) -> None:
    """Insert the rows of removed vectors again, from their payloads."""
    connection = work.connection
    placed = [
        Placed(_read(work, directory, step), step.path, step.key, step.was.edits + 2)
        for step in steps
    ]
    add(connection, placed)
    mark_newest(connection, VECTOR.c.name.in_({p.record.name for p in placed}))
    digests = {p.record.digest for p in placed}
    operands.relink(connection, digests)
    registry_only.relink(connection, digests)
    for one in placed:
        removals.forget(connection, one.record)
    labels.change(directory, {s.story: replace(s.was, edits=s.was.edits + 2) for s in steps}, work)


def _read(work: Writing, directory: Path, step: Step) -> Record:
    """The record of a removed vector, whose payload is intact; raises StoreError."""
    same = work.connection.execute(select(VECTOR.c.id).where(VECTOR.c.story == step.story))
    if same.first() is not None:
        raise StoreError(f"{_called(step.was)} is in the store again")
    try:
        record = usable(payload.read(directory / step.path, step.key)[0], step.path)
    except NotFound:
        raise StoreError(
            f"gc deleted the payload of {_called(step.was)}: only a backup or an export has it"
        ) from None
    if record.story != step.story:
        raise StoreError(f"{step.path} holds another vector than {_called(step.was)}")
    record = record.labelled(step.was)
    if (model := find_model(work.connection, record.model)) is not None:
        taken = VECTOR.c.name == record.name, VECTOR.c.version == record.version
        query = select(VECTOR.c.id).where(VECTOR.c.model_id == model, *taken)
        if work.connection.execute(query).first() is not None:
            raise StoreError(f"another vector is called {record.ref} now: rename it first")
    return record


def _called(known: Labels) -> str:
    return f"{known.name}.v{known.version}"
