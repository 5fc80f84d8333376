"""The jobs of the health screen; each runs in a thread and returns an Outcome."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.core.display import count, size_text
from steerlab.errors import BadOption, Cancelled, StoreError
from steerlab.files.location import discover, expanded
from steerlab.registry.schema_version import HEAD
from steerlab.registry.upkeep.doctor import Problem, problems_of
from steerlab.registry.upkeep.gc import Garbage
from steerlab.registry.upkeep.verify import Finding
from steerlab.tui.health.report import Entry, of_problems

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.upkeep.usage import Usage

FRAMES = 5
"""How often a second progress is reported."""

_LISTED = 200  # files that a garbage collection names


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    text: one line. entries: the report; None keeps the one shown. garbage: the files that
    `delete` would delete.
    """

    text: str
    entries: Sequence[Entry] | None = None
    problem: bool = False
    garbage: Sequence[Garbage] = ()


@dataclass
class JobProgress:
    """Progress callback of a job; raises Cancelled when it should stop.

    report: called FRAMES times a second with (done, total, problems so far). findings: so far.
    """

    store: Store
    should_stop: Callable[[], bool]
    report: Callable[[int, int, Sequence[Entry]], object]
    findings: list[Finding] = field(default_factory=list)
    total: int = 0
    _last: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Count; report now and then."""
        if self.should_stop():
            raise Cancelled(f"stopped at {done:,} of {total:,}")
        self.total = total
        now = time.monotonic()
        if done == total or now - self._last >= 1 / FRAMES:
            self._last = now
            self.report(done, total, self.found())

    def found(self) -> Sequence[Entry]:
        """The problems found so far."""
        return of_problems(named(self.store, problems_of(self.findings)))


def facts(store: Store) -> Sequence[Entry]:
    """Where the store is, what it holds, and how much disk it uses."""
    facts = [Entry("store", str(store.path.absolute()))]
    if not store.path.exists():
        return facts
    with contextlib.suppress(StoreError):  # `quick_check` reports the problem
        usage = store.upkeep.usage()
        facts += [Entry("holds", _held(usage)), Entry("size", _taken(usage))]
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
    """With `--store` in each command, unless commands find this store by themselves."""
    return problems if discover() == store.path else [p.with_store(store.path) for p in problems]


def quick_check(store: Store) -> Outcome:
    """Problems that show without verifying."""
    problems = named(store, store.upkeep.diagnose(quick=True))
    entries = of_problems(problems)
    if any(problem.wrong for problem in problems):
        text = "problems found: run the commands shown"
        return Outcome(text, entries, problem=True)
    well = Entry("well", "no problems at a quick check; v verifies every payload", "well")
    return Outcome("no problems at a quick check · v verifies", [well, *entries])


def verify(progress: JobProgress) -> Outcome:
    """Check every payload and recompute every composition."""
    store = progress.store
    try:
        problems = named(store, store.upkeep.diagnose(progress, progress.findings.append))
    except Cancelled as stopped:
        found = progress.found()
        so_far = "problems so far are shown" if found else "no problems so far"
        return Outcome(f"{stopped}: {so_far}", found, problem=bool(found))
    entries = of_problems(problems)
    if any(problem.wrong for problem in problems):
        refs = {ref for problem in problems if problem.wrong for ref in problem.refs}
        ill = len(refs - {"registry.db"})
        of = f" in {ill:,} of {count(progress.total, 'vector')}" if ill else ""
        return Outcome(f"problems found{of}: run the commands shown", entries, True)
    if not progress.total:
        none = "vector to verify" if store.path.exists() else "store to verify"
        return Outcome(f"no problems, but there is no {none}", entries)
    checked = count(progress.total, "vector")
    well = "every payload is unchanged, every composition is reproduced bit for bit"
    entries = [Entry("well", f"{checked} verified: {well}", "well"), *entries]
    return Outcome(f"no problems found: {checked} verified", entries)


def collect(progress: JobProgress) -> Outcome:
    """List the files that no vector needs."""
    try:
        found = progress.store.upkeep.gc(progress=progress)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: nothing was deleted")
    if not found:
        none = "nothing to delete: vectors need every file"
        return Outcome(none, [Entry("well", none, "well")])
    text = f"{totalled(found)} can be deleted · d deletes"
    head = Entry("garbage", f"{totalled(found)}; files younger than an hour are kept")
    return Outcome(text, [head, *_listed(found)], garbage=found)


def delete(listed: Sequence[Garbage], progress: JobProgress) -> Outcome:
    """Delete the listed files, except those that a vector has come to need."""
    paths = {file.path for file in listed}
    try:
        gone = progress.store.upkeep.gc(dry_run=False, progress=progress, only=paths)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: the other files were kept", ())
    head = Entry("deleted", totalled(gone), "well")
    return Outcome(f"{totalled(gone)} deleted", [head, *_listed(gone)])


def _listed(files: Sequence[Garbage]) -> list[Entry]:
    """One entry per file: its size, path and vectors."""
    entries = []
    for file in files[:_LISTED]:
        text = file.unreadable or file.path
        if file.path not in text:
            text = f"{file.path}: {text}"
        if inside := file.contents:
            text += f", with {inside}"
        entries.append(Entry(size_text(file.size), text))
    if len(files) > _LISTED:
        entries.append(Entry("", f"and {len(files) - _LISTED:,} more: `steerlab gc` lists all"))
    return entries


def backup_file(text: str) -> Path:
    """The file of a backup; raises if it exists or can't be written."""
    from steerlab.registry.transfer.archive import check_target

    if not text:
        raise BadOption("name a file for the backup")
    check_target(path := expanded(text))
    return path


def back_up(path: Path, progress: JobProgress) -> Outcome:
    """Back up the whole store to a new file."""
    try:
        made = progress.store.transfer.backup(path, progress=progress)
    except Cancelled as stopped:
        return Outcome(f"{stopped}: no backup was written", ())
    where = made.path.absolute()
    size = f"{count(made.payloads, 'payload file')}, {size_text(where.stat().st_size)}"
    entries = [
        Entry("backup", str(where), "well"),
        Entry("holds", f"the whole store: {size}"),
        Entry("restore", f"{made.way_back} --store DIR"),
        Entry("", "DIR is a new directory, or this store's with --force, which moves files aside"),
    ]
    entries += [Entry("damaged", problem, "wrong") for problem in made.damaged]
    if made.damaged:
        text = f"backed up to {where}, with damaged files: v shows how to fix them"
        return Outcome(text, entries, problem=True)
    return Outcome(f"backed up to {where}", entries)


def totalled(files: Sequence[Garbage]) -> str:
    """Number and total size: "3 files, 1.2 MB"."""
    return f"{count(len(files), 'file')}, {size_text(sum(file.size for file in files))}"
