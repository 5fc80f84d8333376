"""Changing what people may change of stored vectors: in rows, label files and the undo log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from steerlab.core.record import Labels, Record
from steerlab.errors import BadOption, NameTaken
from steerlab.files import header
from steerlab.registry import labels, removals, rows, undo_log
from steerlab.registry.ports import Writing
from steerlab.registry.refs import Ref, versions_of
from steerlab.registry.rows import Stored
from steerlab.registry.undo_log import Step, What


def relabel(work: Writing, directory: Path, changed: Sequence[tuple[Stored, Labels]]) -> list[Step]:
    """Change the labels of vectors; returns those that differ, for the undo log.

    Raises StoreError for labels that are too large.
    """
    changed = [(s, replace(new, edits=s.edits + 1)) for s, new in changed]
    for stored, new in changed:
        header.check_labels(stored.record.labelled(new))
        rows.relabel(work.connection, stored, new)
    labels.change(directory, {s.story: new for s, new in changed}, work)
    return [Step(s.story, s.labels, new) for s, new in changed if s.labels != new]


def relabel_one(work: Writing, directory: Path, stored: Stored, what: What, new: Labels) -> Record:
    """Change the labels of one vector, logged for undo; returns its record."""
    steps = relabel(work, directory, [(stored, new)])
    had, has = {*stored.labels.tags}, {*new.tags}
    told = [f" +{tag}" for tag in sorted(has - had)] + [f" -{tag}" for tag in sorted(had - has)]
    undo_log.record(work.connection, what, f"{what} {stored.qualified}{''.join(told)}", steps)
    return stored.record.labelled(new)


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags, each once, in order; raises BadOption for one that is empty or no text.

    A text is one tag.
    """
    found = {_text(tag, "a tag").strip() for tag in ([tags] if isinstance(tags, str) else tags)}
    if "" in found:
        raise BadOption("a tag can't be empty")
    return tuple(sorted(found))


def checked_note(note: str) -> str:
    """The note; raises BadOption for one that is no text: its label could not be read again."""
    return _text(note, "a note")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadOption(f"{what} is text, not {value!r:.60}")
    return value


def rename(work: Writing, directory: Path, stored: Stored, new: str) -> None:
    """Rename all versions of a vector; raises NameTaken."""
    connection, old = work.connection, stored.record.name
    check_free(connection, stored.model, new)
    ids = versions_of(connection, Ref(old))[stored.model].values()
    versions = rows.read(connection, list(ids)).values()
    steps = relabel(work, directory, [(s, replace(s.labels, name=new)) for s in versions])
    removals.copy(connection, stored.record.model, old, new)
    undo_log.record(connection, "rename", f"rename {stored.model}.{old} to {new}", steps)


def check_free(connection: Connection, model: str, name: str) -> None:
    """Raise NameTaken if a model has vectors of a name."""
    if versions_of(connection, Ref(name)).get(model):
        raise NameTaken(f"{model} already has a vector called {name}")
