"""The upkeep of a store, as the health screen shows it: each runs in a thread of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.core.display import count, size_text
from steerlab.errors import Cancelled, StoreError
from steerlab.files.location import discover
from steerlab.registry.database import HEAD
from steerlab.registry.upkeep.doctor import Problem, problems_of
from steerlab.registry.upkeep.gc import Garbage
from steerlab.registry.upkeep.verify import Finding
from steerlab.tui.health.report import Entry, of_problems

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.upkeep.usage import Usage

FRAMES = 5
"""Times a second that progress is told."""

_LISTED = 200  # files that a garbage collection names


@dataclass(frozen=True)
class Outcome:
    """What a piece of work came to.

    text: one line. entries: what to show in full; None leaves what is shown. garbage: what
    a collection would delete.
    """

    text: str
    entries: Sequence[Entry] | None = None
    problem: bool = False
    garbage: Sequence[Garbage] = ()


@dataclass
class JobProgress:
    """What the core calls as it goes; raises Cancelled once it is to stop.

    tell: called now and then with (done, all, what was found so far). findings: all so far.
    """

    store: Store
    should_stop: Callable[[], bool]
    tell: Callable[[int, int, Sequence[Entry]], object]
    findings: list[Finding] = field(default_factory=list)
    total: int = 0
    _last: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        """So many are done."""
        if self.should_stop():
            raise Cancelled(f"stopped at {done:,} of {total:,}")
        self.total = total
        now = time.monotonic()
        if done == total or now - self._last >= 1 / FRAMES:
            self._last = now
            self.tell(done, total, self.found())

    def found(self) -> Sequence[Entry]:
        """What was found so far, in plain words."""
        return of_problems(named(self.store, problems_of(self.findings)))


def facts(store: Store) -> Sequence[Entry]:
    """Where the store is, what it holds, and what takes how much of the disk."""
    facts = [Entry("store", str(store.path.absolute()))]
    if not store.path.exists():
        return facts
    with contextlib.suppress(StoreError):  # doctor says what is wrong, and what to type
        usage = store.upkeep.usage()
        facts += [Entry("holds", _held(usage)), Entry("takes", _taken(usage))]
    return facts


def _held(usage: Usage) -> str:
    names = len({(share.model, share.name) for share in usage.vectors})
    versions = len(usage.vectors)
    held = count(names, "vector") + (f" in {versions:,} versions" if versions != names else "")
    models = len({share.model for share in usage.vectors})
    return f"{held} of {count(models, 'model')} · schema {HEAD}"


def _taken(usage: Usage) -> str:
    parts = {
        "payloads": sum(share.size for share in usage.vectors),
        "registry": usage.registry,
        "older registries": usage.copies,
        "other files": usage.loose,
    }
    named = ", ".join(f"{what} {size_text(size)}" for what, size in parts.items() if size)
    return f"{size_text(usage.total)} on disk" + (f": {named}" if named else "")


def named(store: Store, problems: Sequence[Problem]) -> Sequence[Problem]:
    """With the store in what to type, unless every verb finds it by itself."""
    return problems if discover() == store.path else [p.with_store(store.path) for p in problems]


def glance(store: Store) -> Outcome:
    """What is wrong that can be known without verifying."""
    problems = named(store, store.upkeep.diagnose(quick=True))
    entries = of_problems(problems)
    if any(problem.wrong for problem in problems):
        text = "something is wrong: what to type stands with it"
        return Outcome(text, entries, problem=True)
    well = Entry("well", "nothing is wrong at a glance; v reads every payload", "well")
    return Outcome("nothing is wrong at a glance · v verifies", [well, *entries])


def verify(progress: JobProgress) -> Outcome:
    """Check every payload and recompute every composition."""
    store = progress.store
    try:
        problems = named(store, store.upkeep.diagnose(progress, progress.findings.append))
    except Cancelled as stopped:
        found = progress.found()
        so_far = "what was found so far is shown" if found else "nothing was wrong so far"
        return Outcome(f"{stopped}: {so_far}", found, problem=bool(found))
    entries = of_problems(problems)
    if any(problem.wrong for problem in problems):
        refs = {ref for problem in problems if problem.wrong for ref in problem.refs}
        ill = len(refs - {"registry.db"})
        of = f" with {count(ill, 'vector')} of {progress.total:,}" if ill else ""
        return Outcome(f"something is wrong{of}: what to type stands with it", entries, True)
    if not progress.total:
        none = "vector to verify" if store.path.exists() else "store to verify"
        return Outcome(f"nothing is wrong, but there is no {none}", entries)
    checked = count(progress.total, "vector")
    well = "every payload is as it was written, every composition comes out bit for bit"
    entries = [Entry("well", f"{checked} verified: {well}", "well"), *entries]
    return Outcome(f"all is well: {checked} verified, nothing is wrong", entries)


def collect(progress: JobProgress) -> Outcome:
    """List the files that no vector needs."""
    try:
        found = progress.store.upkeep.gc(progress=progress)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: nothing was deleted")
    if not found:
        none = "nothing to delete: there is no file that no vector needs"
        return Outcome(none, [Entry("well", none, "well")])
    text = f"{totalled(found)} would go; nothing is deleted yet · d deletes"
    head = Entry("would go", f"{totalled(found)}; what is younger than an hour stays")
    return Outcome(text, [head, *_listed(found)], garbage=found)


def delete(listed: Sequence[Garbage], progress: JobProgress) -> Outcome:
    """Delete the files that were listed, unless a vector needs them by now."""
    paths = {file.path for file in listed}
    try:
        gone = progress.store.upkeep.gc(dry_run=False, progress=progress, only=paths)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: what was not deleted yet stays", ())
    head = Entry("deleted", totalled(gone), "well")
    return Outcome(f"{totalled(gone)} deleted", [head, *_listed(gone)])


def _listed(files: Sequence[Garbage]) -> list[Entry]:
    """A line a file: its size, where it is, and what is in it."""
    entries = []
    for file in files[:_LISTED]:
        text = file.unreadable or file.path
        if file.path not in text:
            text = f"{file.path}: {text}"
        if file.holds:
            text += f", with {' '.join(file.holds)}"
        entries.append(Entry(size_text(file.size), text))
    if len(files) > _LISTED:
        entries.append(Entry("", f"and {len(files) - _LISTED:,} more: `steerlab gc` lists them"))
    return entries


def back_up(path: Path, progress: JobProgress) -> Outcome:
    """Write the whole store to a new file."""
    try:
        made = progress.store.transfer.backup(path, progress=progress)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: no backup was written", ())
    where = made.path.absolute()
    size = f"{count(made.payloads, 'payload file')}, {size_text(where.stat().st_size)}"
    entries = [
        Entry("backup", str(where), "well"),
        Entry("holds", f"all of the store as it was: {size}"),
        Entry("restore", f"{made.way_back} --store DIR"),
        Entry("", "DIR: a new one, or this store's with --force, which moves aside what is there"),
    ]
    entries += [Entry("not whole", problem, "wrong") for problem in made.damaged]
    if made.damaged:
        text = f"backed up to {where}, but not all was whole: v says what to type"
        return Outcome(text, entries, problem=True)
    return Outcome(f"backed up to {where}", entries)


def totalled(files: Sequence[Garbage]) -> str:
    """How many, and how large together: "3 files, 1.2 MB"."""
    return f"{count(len(files), 'file')}, {size_text(sum(file.size for file in files))}"
