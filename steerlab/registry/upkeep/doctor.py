"""Problems of a store and how to fix them."""

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

from steerlab.core.display import count, size_text
from steerlab.errors import StoreError
from steerlab.files.location import finish_move, waiting
from steerlab.registry.result_files import Result
from steerlab.registry.sqlite_errors import Damaged, Newer, one_line_errors
from steerlab.registry.upkeep.gc import Garbage
from steerlab.registry.upkeep.verify import Damage, Finding

SCARCE = 200_000_000
"""Free bytes of the disk below which a store is warned about."""

_VERBS = "rebuild|restore|remove|undo|compose|gc"
_VERB = re.compile(rf"(?<![\w/'.-])steerlab ({_VERBS})\b")  # in no path


@dataclass(frozen=True)
class Problem:
    """A problem of a store and its fix: what to type or do.

    refs: the vectors concerned. wrong: False for what is only worth knowing.
    """

    what: str
    fix: str
    refs: tuple[str, ...] = ()
    wrong: bool = True

    def with_store(self, path: Path) -> Problem:
        """The same, with `--store PATH` in the commands of its fix."""
        store = shlex.quote(str(path)).replace("\\", r"\\")
        return replace(self, fix=_VERB.sub(rf"steerlab \1 --store {store}", self.fix))


def diagnose(
    path: Path,
    writable: bool,
    verify: Callable[[], Sequence[Finding]],
    gc: Callable[..., Sequence[Garbage]],
    unlisted: Callable[[], Sequence[Result]],
) -> Sequence[Problem]:
    """The problems of a store, then what is worth knowing; each part the most urgent first.

    verify, gc, unlisted: of its upkeep; gc takes `grace`.
    """
    finish_move(path)
    if not path.exists():
        none = _note("there is no store here yet", "save a vector: that creates it")
        return [none, *_beside(path)]
    lost = not (path / "registry.db").exists() and (path / "payloads").is_dir()
    try:
        found = problems_of(verify())
        with one_line_errors(path):
            notes = [*_space(path, writable), *_news(unlisted()), *_waste(path, gc)]
            notes += _beside(path)
    except Newer as error:
        fix = (
            f"upgrade steerlab; if no newer one was ever used here, move {path}/registry.db away: "
            "it is restored from the payloads"
        )
        return [Problem(str(error).partition(":")[0], fix)]
    except Damaged as error:
        return [Problem(str(error).rpartition(":")[0], Damage.REGISTRY.fix)]
    except StoreError as error:
        what, _, fix = str(error).rpartition(": ")
        return [Problem(what or str(error), fix)]
    restored = _note(
        "registry.db was missing and has been restored from the other files",
        "nothing; a backup may have the runs and sweeps that it held",
    )
    notes = [restored, *notes] if lost else notes
    return [*found, *sorted(notes, key=lambda problem: not problem.wrong)]


def problems_of(findings: Sequence[Finding]) -> Sequence[Problem]:
    """A problem for each kind of damage, with all vectors that have it."""
    refs = {d: tuple(dict.fromkeys(f.ref for f in findings if f.damage is d)) for d in Damage}
    return [Problem(damage.what, damage.fix, refs[damage]) for damage in Damage if refs[damage]]


def _note(what: str, fix: str, refs: Sequence[str] = ()) -> Problem:
    return Problem(what, fix, tuple(refs), wrong=False)


def _space(path: Path, writable: bool) -> Iterator[Problem]:
    free = shutil.disk_usage(path).free
    if free < SCARCE:
        yield Problem(f"the disk has {free / 1e6:.0f} MB left", "make room before saving anything")
    if not writable:
        yield _note("the store is read-only: nothing can be saved", "use --store DIR")


def _news(unlisted: Sequence[Result]) -> Iterator[Problem]:
    if unlisted:
        yield _note(
            f"{count(len(unlisted), 'result file')} that the registry does not know, such as git "
            "brings",
            "steerlab rebuild takes them in",
        )


def _waste(path: Path, gc: Callable[..., Sequence[Garbage]]) -> Iterator[Problem]:
    """Files without a row in the registry: to be restored or deleted."""
    loose = gc(grace=timedelta(0))
    if unknown := [ref for file in loose for ref in file.holds]:
        yield _note(
            "payload files hold vectors that the registry does not know: it lost them, or a save "
            "was interrupted",
            "steerlab rebuild restores them, or says why it leaves one out; steerlab gc --delete "
            "deletes them",
            unknown,
        )
    if damaged := [file.path for file in loose if file.unreadable]:
        yield _note(
            "payload files can't be read, and the registry does not know them",
            "bring them back from a backup, then steerlab rebuild; or steerlab gc --delete",
            damaged,
        )
    due = [file for file in gc() if not file.holds and not file.unreadable]
    if removed := [ref for file in due for ref in file.removed]:
        size = size_text(sum(file.size for file in due if file.removed))
        yield _note(
            f"payloads of removed vectors, {size}",
            "steerlab gc --delete deletes them; until then steerlab undo may bring them back",
            removed,
        )
    if waste := [file for file in due if not file.removed]:
        size = size_text(sum(file.size for file in waste))
        yield _note(
            f"{count(len(waste), 'file')} that no vector needs, {size}", "steerlab gc --delete"
        )
    if copies := sorted(path.glob("registry.db.before-*")):
        size = size_text(sum(copy.stat().st_size for copy in copies))
        yield _note(
            f"{count(len(copies), 'old registry file')}, {size}",
            f"delete once all is well: rm {shlex.quote(str(path))}/registry.db.before-*",
        )


def _beside(path: Path) -> Iterator[Problem]:
    """Files that killed backups and restores left beside a store, where `gc` does not look."""
    store = Path(os.path.realpath(path))
    theirs = re.compile(rf"\.tmp-({re.escape(store.name)}-)?[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        left = [p for p in sorted(store.parent.iterdir()) if theirs.fullmatch(p.name)]
        left += [p for p in [waiting(store)] if p.exists()]
        if left:
            inside = [file for place in left for file in (place, *place.rglob("*"))]
            size = size_text(sum(file.lstat().st_size for file in inside if file.is_file()))
            yield _note(
                f"files of a backup or restore beside the store, {size}: it is still running, or "
                "was killed",
                f"unless one is running: {shlex.join(['rm', '-r', *map(str, left)])}",
            )
