"""What is wrong with a store, in plain words, and what to type."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.errors import StoreError
from steerlab.registry.database import Newer

if TYPE_CHECKING:
    from steerlab.registry.audit import Finding
    from steerlab.registry.store import Store

SCARCE = 200_000_000
"""Free bytes of the disk under which a store is warned of."""


@dataclass(frozen=True)
class Ailment:
    """Something about a store.

    wrong: False for what only wants to be known. what: in plain words. cure: what to type or
    do. refs: the vectors it is about.
    """

    wrong: bool
    what: str
    cure: str
    refs: tuple[str, ...] = ()


_BACKUP = "put the file back from a backup (`steerlab restore` brings back a whole one), or "
_CAUSES = (  # what a finding says -> in plain words, what helps
    (
        "is missing",
        "the file with its numbers is gone; what is known of it is still there",
        f"{_BACKUP}give the vector up: steerlab remove REF",
    ),
    (
        "rebuild",
        "the registry and the payload file do not tell the same of it",
        "steerlab rebuild",
    ),
    (
        "registry and payload differ",
        "the registry and the payload file do not tell the same of it",
        "steerlab rebuild",
    ),
    (
        "can't be re-evaluated",
        "something that it was made from is gone or another; the vector itself is whole",
        "import what is missing again, or make it anew: steerlab compose … --as NAME",
    ),
    (
        "gives other bytes",
        "its recipe gives another vector than is stored, so one of the two was altered",
        "make it anew from its operands: steerlab compose … --as NAME",
    ),
    (
        "points at a row",
        "rows of the registry are gone that others need",
        "steerlab rebuild",
    ),
)
_ALTERED = (
    "its payload file was altered or cut short, so its numbers can't be trusted",
    f"{_BACKUP}give the vector up: steerlab remove REF",
)


def diagnose(
    store: Store, progress: Callable[[int, int], object] | None = None
) -> Sequence[Ailment]:
    """Everything that is wrong with a store, or wants to be known, the worst first.

    progress: called with (vectors checked, vectors).
    """
    if not store.path.exists():
        return [
            Ailment(False, "there is no store here yet", "the first vector that is saved makes it")
        ]
    lost = not (store.path / "registry.db").exists() and (store.path / "payloads").is_dir()
    try:
        findings = store.verify(progress)
    except Newer as error:
        return [Ailment(True, str(error).partition(":")[0], "upgrade steerlab")]
    except StoreError as error:
        return [_unreadable(str(error))]
    notes = [*_lost(lost), *_space(store), *_waste(store)]
    return [*_explained(findings), *sorted(notes, key=lambda ailment: not ailment.wrong)]


def _unreadable(message: str) -> Ailment:
    what, _, cure = message.rpartition(": ")
    damaged = "damaged" in message
    return Ailment(True, what or message, "steerlab rebuild" if damaged else cure)


def _explained(findings: Sequence[Finding]) -> Iterator[Ailment]:
    """One ailment for all vectors that suffer from the same."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in findings:
        causes = (c[1:] for c in _CAUSES if c[0] in finding.problem)
        if finding.ref == "registry.db":
            groups["the registry's file is damaged", "steerlab rebuild"].append(finding.ref)
        else:
            groups[next(causes, _ALTERED)].append(finding.ref)
    for (what, cure), refs in groups.items():
        yield Ailment(True, what, cure, tuple(refs))


def _lost(lost: bool) -> Iterator[Ailment]:
    if lost:
        yield Ailment(
            False,
            "registry.db was missing: it has been made anew from the payload files",
            "nothing; runs, sweeps and measurements that only it knew are in a backup, if anywhere",
        )


def _space(store: Store) -> Iterator[Ailment]:
    free = shutil.disk_usage(store.path).free
    if free < SCARCE:
        yield Ailment(
            True, f"its disk has {free / 1e6:.0f} MB left", "make room before saving anything"
        )
    if not store.writable:
        yield Ailment(False, "it is read-only: nothing can be saved here", "use --store DIR")


def _waste(store: Store) -> Iterator[Ailment]:
    garbage = store.gc()
    if garbage:
        size = sum(file.size for file in garbage) / 1e6
        yield Ailment(
            False,
            f"files that no vector needs: {len(garbage)}, which take {size:.1f} MB",
            "steerlab gc --delete",
        )
    copies = sorted(store.path.glob("registry.db.before-*"))
    if copies:
        size = sum(copy.stat().st_size for copy in copies) / 1e6
        yield Ailment(
            False,
            f"older copies of the registry: {len(copies)}, which take {size:.1f} MB",
            f"delete them once all is well: rm {store.path}/registry.db.before-*",
        )
