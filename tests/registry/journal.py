"""What each process of a crowd wrote down of its work, and how the store compares with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from steerlab.registry import Store
from tests.registry.survival import vectors

SHARED, BASE = "love", "base"
"""The name that all make versions of, and the vector that all tag."""

Own = dict[str, list[Any]]
"""Ref -> digest, tags, note: what a process has in the store."""


@dataclass
class Journal:
    """What one process wrote down."""

    own: Own = field(default_factory=dict)
    perhaps: Own | None = None
    shared: dict[str, str] = field(default_factory=dict)
    sharing: str | None = None
    tags: set[str] = field(default_factory=set)
    tagging: str | None = None
    done: list[tuple[str, float, str]] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> Journal:
        """The last line may be cut."""
        journal = cls()
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                journal._take(*json.loads(line))
        return journal

    def _take(self, kind: str, *what: Any) -> None:
        match kind:
            case "about":
                self.perhaps = what[0]
            case "told":
                self.own, self.perhaps = what[0], None
            case "sharing":
                self.sharing = what[0]
            case "shared":
                self.shared[what[0]], self.sharing = what[1], None
            case "tagging":
                self.tagging = what[0]
            case "tagged":
                self.tags.add(what[0])
                self.tagging = None
            case _:
                self.done.append(what)


def found(number: int, store: Store) -> Own:
    """What the store has of a process."""
    return {
        ref.partition(".")[2]: [digest, list(tags), note]
        for ref, (digest, _, tags, note) in vectors(store).items()
        if ref.partition(".")[2].startswith(f"w{number}")
    }


def wrong(store: Store, journals: Sequence[Journal]) -> Iterator[str]:
    """Everything in which the store differs from what its users were told."""
    for number, journal in enumerate(journals):
        here = found(number, store)
        if here not in [journal.own, journal.perhaps]:
            keys = {k for k in {*here, *journal.own} if here.get(k) != journal.own.get(k)}
            yield f"process {number} was told another thing of {sorted(keys)[:5]}"
    shared = {
        ref.partition(".")[2]: what[0]
        for ref, what in vectors(store).items()
        if f".{SHARED}.v" in ref
    }
    told = {ref: digest for journal in journals for ref, digest in journal.shared.items()}
    if sum(len(j.shared) for j in journals) != len(told):
        yield "two processes were told the same version"
    if set(shared) != {f"{SHARED}.v{n}" for n in range(1, len(shared) + 1)}:
        yield f"the versions of {SHARED} have gaps"
    if any(shared.get(ref) != digest for ref, digest in told.items()):
        yield f"a version of {SHARED} is lost"
    if not {d for r, d in shared.items() if r not in told} <= {j.sharing for j in journals}:
        yield f"a version of {SHARED} that nobody made"
    tags = set(store.record(BASE).tags)
    certain = {tag for journal in journals for tag in journal.tags}
    if not certain <= tags <= certain | {j.tagging for j in journals}:
        yield f"tags of {BASE} are lost: {sorted(certain - tags)[:5]}"
    yield from (f"verify: {f.ref}: {f.problem}" for f in store.verify())


def wrong_later(store: Store) -> Iterator[str]:
    """What differs once garbage was collected and the registry rebuilt, or lost."""
    store.upkeep.gc(dry_run=False, grace=timedelta(0))
    before = vectors(store)
    store.upkeep.rebuild()
    if vectors(store) != before:
        yield "a rebuild gives another list"
    for file in store.path.glob("registry.db*"):
        file.unlink()
    if vectors(Store(store.path)) != before:
        yield "without its registry the store is another one"
