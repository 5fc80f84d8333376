"""Changing what people may change of stored vectors: in rows, and in label files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steerlab.core.record import Labels
from steerlab.errors import NameTaken
from steerlab.files import header
from steerlab.registry import labels, removals, rows
from steerlab.registry.ports import Writing
from steerlab.registry.refs import Ref, versions_of
from steerlab.registry.rows import Stored


def relabel(work: Writing, directory: Path, changed: Sequence[tuple[Stored, Labels]]) -> None:
    """Change the labels of vectors; raises StoreError for labels that are too large."""
    changed = [(s, replace(new, edits=s.edits + 1)) for s, new in changed]
    for stored, new in changed:
        header.check_labels(stored.record.labelled(new))
        rows.relabel(work.connection, stored, new)
    labels.change(directory, {s.story: new for s, new in changed}, work)


def rename(work: Writing, directory: Path, stored: Stored, new: str) -> None:
    """Rename all versions of a vector; raises NameTaken."""
    connection, old = work.connection, stored.record.name
    if versions_of(connection, Ref(new)).get(stored.model):
        raise NameTaken(f"{stored.model} already has a vector called {new}")
    ids = versions_of(connection, Ref(old))[stored.model].values()
    versions = rows.read(connection, list(ids)).values()
    relabel(work, directory, [(s, replace(s.labels, name=new)) for s in versions])
    removals.copy(connection, stored.record.model, old, new)
