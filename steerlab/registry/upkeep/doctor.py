"""What is wrong with a store, in plain words, and what to type."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from steerlab.core.display import size_text, some
from steerlab.errors import StoreError
from steerlab.files.location import finish_move, waiting
from steerlab.progress import Progress
from steerlab.registry.sqlite_errors import Damaged, Newer, one_line_errors
from steerlab.registry.upkeep.gc import Garbage
from steerlab.registry.upkeep.verify import Finding, Harm

SCARCE = 200_000_000
"""Free bytes of the disk under which a store is warned of."""


class Checked(Protocol):
    """The upkeep of a store, as far as a diagnosis needs it."""

    path: Path

    @property
    def writable(self) -> bool:
        """Whether anything can be saved."""

    def verify(
        self,
        progress: Progress | None = None,
        on_finding: Callable[[Finding], object] | None = None,
    ) -> Sequence[Finding]:
        """What is wrong with its vectors."""

    def gc(self, *, grace: timedelta = ...) -> Sequence[Garbage]:
        """Files that nothing refers to."""


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

    def named(self, most: int) -> str:
        """The vectors it is about, the first of them by name."""
        return some(self.refs, most)

    def of_store(self, path: Path) -> Ailment:
        """The same, with a store that is not found by itself named in what to type."""
        store = shlex.quote(str(path)).replace("\\", r"\\")
        cure = _VERB.sub(rf"steerlab \1 --store {store}", self.cure)
        return replace(self, cure=cure)


_VERB = re.compile(r"(?<![\w/'.-])steerlab (rebuild|restore|remove|compose|gc)\b")  # in no path

_UPGRADE = (
    "upgrade steerlab; if no newer one was ever used here, move {}/registry.db away, and it is "
    "made anew from the payloads"
)
_GIVE_UP = (
    "put the file back from a backup (`steerlab restore` brings back a whole one), or give the "
    "vector up: steerlab remove REF (--force, where others were made from it)"
)
_ADVICE = {  # in plain words, and what helps; the first that applies comes first
    Harm.REGISTRY: ("the registry's file is damaged", "steerlab rebuild"),
    Harm.ROW: ("the registry and the payload file do not tell the same of it", "steerlab rebuild"),
    Harm.MOVED: (
        "its numbers are whole, but in another file than the registry says",
        "steerlab rebuild",
    ),
    Harm.MISSING: (
        "the file with its numbers is gone; what is known of it is still there",
        _GIVE_UP,
    ),
    Harm.ALTERED: (
        "its payload file was altered or cut short, so its numbers can't be trusted",
        _GIVE_UP,
    ),
    Harm.LARGE: (
        "its payload file is larger than this steerlab reads; it may well be whole",
        "keep the file: upgrade steerlab, or read it with the version that wrote it",
    ),
    Harm.OPERAND: (
        "something that it was made from is gone or another; the vector itself is whole",
        "import what is missing again, or make it anew: steerlab compose … --as NAME",
    ),
    Harm.RECIPE: (
        "its recipe gives another vector than is stored, so one of the two was altered",
        "make it anew from its operands: steerlab compose … --as NAME",
    ),
}


def diagnose(
    store: Checked,
    progress: Progress | None = None,
    on_finding: Callable[[Finding], object] | None = None,
    *,
    quick: bool = False,
) -> Sequence[Ailment]:
    """Everything that is wrong with a store, or wants to be known, the worst first.

    progress, on_finding: as for `Store.verify`; `explained` has the plain words for findings.
    quick: verify nothing, so that it takes no time and what is wrong with vectors stays unseen.
    """
    finish_move(store.path)
    if not store.path.exists():
        none = "there is no store here yet"
        return [
            Ailment(False, none, "the first vector that is saved makes it"),
            *_beside(store.path),
        ]
    lost = not (store.path / "registry.db").exists() and (store.path / "payloads").is_dir()
    try:
        findings = () if quick else store.verify(progress, on_finding)
        with one_line_errors(store.path):
            notes = [*_lost(lost), *_space(store), *_waste(store), *_beside(store.path)]
    except Newer as error:
        return [Ailment(True, str(error).partition(":")[0], _UPGRADE.format(store.path))]
    except Damaged as error:
        return [Ailment(True, str(error).rpartition(":")[0], "steerlab rebuild")]
    except StoreError as error:
        what, _, cure = str(error).rpartition(": ")
        return [Ailment(True, what or str(error), cure)]
    return [*explained(findings), *sorted(notes, key=lambda ailment: not ailment.wrong)]


def explained(findings: Sequence[Finding]) -> Iterator[Ailment]:
    """One ailment for all vectors that suffer from the same, the worst first."""
    for harm, (what, cure) in _ADVICE.items():
        refs = dict.fromkeys(f.ref for f in findings if f.harm is harm)
        if refs:
            yield Ailment(True, what, cure, tuple(refs))


def _lost(lost: bool) -> Iterator[Ailment]:
    if lost:
        yield Ailment(
            False,
            "registry.db was missing: it has been made anew from the payload files",
            "nothing; runs, sweeps and measurements that only it knew are in a backup, if anywhere",
        )


def _space(store: Checked) -> Iterator[Ailment]:
    free = shutil.disk_usage(store.path).free
    if free < SCARCE:
        yield Ailment(
            True, f"its disk has {free / 1e6:.0f} MB left", "make room before saving anything"
        )
    if not store.writable:
        yield Ailment(False, "it is read-only: nothing can be saved here", "use --store DIR")


def _waste(store: Checked) -> Iterator[Ailment]:
    """Files that no row points at: to be taken in, mended or deleted."""
    loose = store.gc(grace=timedelta(0))
    unknown = [ref for file in loose for ref in file.holds]
    if unknown:
        yield Ailment(
            False,
            "payload files hold vectors that the registry does not know: it may have lost them, or "
            "they were never said to be stored",
            "steerlab rebuild takes them in; steerlab gc --delete deletes them",
            tuple(unknown),
        )
    damaged = [file.path for file in loose if file.unreadable]
    if damaged:
        yield Ailment(
            False,
            "payload files that can't be read, and that the registry does not know",
            "put them back from a backup, then steerlab rebuild; or steerlab gc --delete",
            tuple(damaged),
        )
    waste = [file for file in store.gc() if not file.holds and not file.unreadable]
    if waste:
        size = sum(file.size for file in waste)
        yield Ailment(
            False,
            f"files that no vector needs: {len(waste)}, which take {size_text(size)}",
            "steerlab gc --delete",
        )
    copies = sorted(store.path.glob("registry.db.before-*"))
    if copies:
        size = sum(copy.stat().st_size for copy in copies)
        yield Ailment(
            False,
            f"older copies of the registry: {len(copies)}, which take {size_text(size)}",
            f"delete them once all is well: rm {shlex.quote(str(store.path))}/registry.db.before-*",
        )


def _beside(path: Path) -> Iterator[Ailment]:
    """What a backup or a restore that was killed left beside a store, where `gc` does not look."""
    store = Path(os.path.realpath(path))
    theirs = re.compile(rf"\.tmp-({re.escape(store.name)}-)?[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        left = [p for p in sorted(store.parent.iterdir()) if theirs.fullmatch(p.name)]
        left += [p for p in [waiting(store)] if p.exists()]
        if left:
            inside = [file for place in left for file in (place, *place.rglob("*"))]
            size = sum(file.lstat().st_size for file in inside if file.is_file())
            yield Ailment(
                False,
                f"what a backup or restore left beside the store, {size_text(size)}: it goes on, "
                "or was killed",
                f"once none goes on: {shlex.join(['rm', '-r', *map(str, left)])}",
            )
