"""kill -9, a full disk and a dying one at every system call of every operation that writes.

    python -m tests.registry.crashing [--what kills|errors|cuts] [--every N] [--only WORD]

Each point is a process of its own that is stopped at one call: before it, or, where the call
writes, with half of the bytes written; between SQL statements too. An error is met by a process
that lives on: it must show one line, leave the old state or the new one, and work afterwards.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import itertools
import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlab.errors import StoreError
from steerlab.registry import Store
from tests.registry import patching, tracing
from tests.registry.operations import OPERATIONS, STORE, Operation
from tests.registry.power import WAYS, Disk
from tests.registry.samples import vector
from tests.registry.survival import Harm, State, harms, state, warm_up
from tests.registry.tracing import UNWATCHED, WRITES, Call, Fate, Kill, mark

Follow = Callable[..., int]

_GROWING = ("write", "pwrite64", "writev", "ftruncate", "fallocate", "mkdir", "link", "rename")
_SYNCING = ("fsync", "fdatasync")
ERRORS = {
    errno.ENOSPC: (*_GROWING, "openat", "fsync"),
    errno.EROFS: ("openat", "mkdir", "link", "rename", "unlink", "ftruncate", "write", "pwrite64"),
    errno.EIO: (*_GROWING, *_SYNCING, "unlink", "fcntl"),
    errno.ENOLCK: ("flock",),
}
"""What can go wrong with which calls."""


@dataclass
class Tally:
    """What a campaign found of one operation."""

    operation: str
    points: int = 0
    killed: int = 0
    refused: int = 0
    harms: list[tuple[str, Harm]] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        return sum(harm.kind in kinds for _, harm in self.harms)


class Scene:
    """An operation, where it starts, and the states that it goes through."""

    def __init__(self, operation: Operation, place: Path, follow: Follow) -> None:
        self.operation, self.place, self.follow = operation, place, follow
        self.seed = place / "seed"
        self.seed.mkdir(parents=True)
        operation.seed(self.seed)
        self.states = list(self._states())

    def _states(self) -> Iterator[State]:
        with self.copy() as root:
            yield self._now(root / STORE)
            for step in self.operation.steps:
                step(Store(root / STORE))
                yield self._now(root / STORE)

    def _now(self, path: Path) -> State:
        """Looked up in a copy, as looking may create or migrate a registry."""
        with tempfile.TemporaryDirectory(dir=self.place) as apart:
            if path.exists():
                shutil.copytree(path, Path(apart) / STORE)
            return state(Store(Path(apart) / STORE))

    @contextmanager
    def copy(self) -> Iterator[Path]:
        root = self.place / "run"
        shutil.copytree(self.seed, root)
        try:
            yield root
        finally:
            shutil.rmtree(root)

    def calls(self) -> list[Call]:
        """What the whole operation does, undisturbed."""
        seen: list[Call] = []
        with self.copy() as root:
            status = self.follow(lambda: self._work(root), root, lambda c: seen.append(c))
        assert status == 0
        return [call for call in seen if _is_point(call)]

    def killed(self, number: int, half: bool = False) -> tuple[str, bool, list[Harm]]:
        """Kill at the n-th point: where that was, whether it came to it, what harm was done."""
        at = _At(number, Kill(half))
        with self.copy() as root:
            status = self.follow(lambda: self._work(root), root, at)
            dead = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            assert dead or status == 0, status
            allowed = self.states[at.done : at.done + 2] if dead else self.states[-1:]
            return at.where, dead, harms(root, allowed)

    def failed(self, number: int, error: int, lasting: bool) -> tuple[str, bool, list[Harm]]:
        """Let the n-th call, and if lasting all that follow, fail; the process lives on."""
        at = _At(number, error, lasting)
        with self.copy() as root:
            try:
                status = self.follow(lambda: self._try(root), root, at)
            except AssertionError as traceback:
                return at.where, True, [Harm("traceback", str(traceback)[-600:])]
            assert status == 0, status
            after = self.states[at.done : at.done + (2 if at.refused else 1)]
            found = [Harm("words", at.refused)] if len(at.refused.splitlines()) > 1 else []
            found += harms(root, [_later(s) for s in after], self.states)
            return at.where, bool(at.refused), found

    def cuts(self, every: int = 1, first: int = 0) -> Iterator[tuple[str, list[Harm]]]:
        """Cut the power after every n-th change of the disk, and once all is acknowledged."""
        left = self.place / "left"
        at = _At(sys.maxsize, Kill())
        found: list[tuple[str, list[Harm]]] = []
        counter = itertools.count(-first)
        with self.copy() as root:
            disk = Disk(root)

            def look(where: str, states: Sequence[State]) -> None:
                for way in WAYS:
                    disk.after_a_cut(left, way, seed=len(found))
                    found.append((f"after {where}, {way}", harms(left, states)))
                    shutil.rmtree(left)

            def watch(call: Call, result: int) -> None:
                if disk.watch(call, result) and next(counter) % every == 0:
                    look(str(call), self.states[at.done : at.done + 2])

            assert self.follow(lambda: self._work(root), root, at, watch) == 0
            look("the end", self.states[-1:])
        yield from found

    def _work(self, root: Path) -> None:
        _trace_statements()
        store = Store(root / STORE)
        for step in self.operation.steps:
            step(store)
            mark("done")

    def _try(self, root: Path) -> None:
        """The operation as a program does it that shows an error and goes on."""
        _trace_statements()
        store = Store(root / STORE)
        try:
            for step in self.operation.steps:
                step(store)
                mark("done")
        except StoreError as error:
            mark(f"refused {error}")
        mark("calm")
        store.save("afterwards", vector(77))


class _At:
    """Decides the fate of calls: the n-th point is the one."""

    def __init__(self, number: int, fate: Kill | int, lasting: bool = False) -> None:
        self.number, self.fate, self.lasting = number, fate, lasting
        self.seen, self.done, self.where, self.refused, self.calm = 0, 0, "", "", False

    def __call__(self, call: Call) -> Fate:
        if call.name == "mark":
            self._hear(call.paths[0])
        if self.calm or not _is_point(call):
            return None
        self.seen += 1
        if self.seen <= self.number:
            return None
        if self.where and not (self.lasting and _may_fail(call, int(self.fate))):
            return None
        self.where = self.where or str(call)
        return self.fate

    def _hear(self, text: str) -> None:
        self.done += text == "done"
        self.calm |= text == "calm"
        if text.startswith("refused "):
            self.refused = text.removeprefix("refused ")


def _is_point(call: Call) -> bool:
    return call.name not in UNWATCHED and (call.name != "mark" or call.paths[0].startswith("SQL "))


def _may_fail(call: Call, error: int) -> bool:
    name = call.name.removesuffix("2").removesuffix("at") if call.name != "openat" else call.name
    if name in ("openat", "open") and not call.arguments[2] & (os.O_CREAT | os.O_RDWR | 1):
        return False
    if name == "flock" and call.arguments[1] & fcntl.LOCK_UN:
        return False
    return name in ERRORS[error]


def _later(one: State) -> State:
    """The state with the vector that is saved once the errors have ended."""
    saved = vector(77)
    return {**one, "tiny_1.afterwards.v1": (saved.digest, saved.recipe, (), "")}


def _trace_statements() -> None:
    """Tell of every SQL statement, in this process alone."""
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: mark(f"SQL {statement[:60]}"))
        return connection

    sqlite3.connect = traced


def driver() -> Follow:
    """ptrace where it is allowed; elsewhere, said aloud, patched functions of Python."""
    try:
        with tempfile.TemporaryDirectory() as nowhere:
            tracing.follow(lambda: None, Path(nowhere), lambda call: None)
    except tracing.Untraceable as why:
        print(f"!! {why}: calls of Python's own functions are intercepted instead", file=sys.stderr)
        return patching.follow
    return tracing.follow


def place() -> str | None:
    """Where scenes are played: in memory if there is a place, as no point needs a real disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def kill_everywhere(scene: Scene, every: int = 1, first: int = 0) -> Tally:
    """Kill at every n-th point, and at half of every n-th write."""
    tally = Tally(scene.operation.name)
    calls = scene.calls()
    halves = [i for i, call in enumerate(calls) if call.name in WRITES and call.arguments[2] > 1]
    halves = halves if scene.follow is tracing.follow and tracing.settable() else []
    points = [(i, False) for i in range(first, len(calls), every)]
    points += [(i, True) for i in halves[first % every :: every]]
    for number, half in points:
        where, dead, found = scene.killed(number, half)
        tally.points += 1
        tally.killed += dead
        tally.harms += [(f"point {number}{' half' * half}, {where}", harm) for harm in found]
    return tally


def fail_everywhere(scene: Scene, every: int = 1, first: int = 0) -> Tally:
    """Let every n-th thing that can fail do so: once, and until the operation ends."""
    tally = Tally(scene.operation.name)
    ways = [
        (number, error, lasting)
        for number, call in enumerate(scene.calls())
        for error in ERRORS
        if call.name != "mark" and _may_fail(call, error)
        for lasting in (False, True)
    ]
    for number, error, lasting in ways[first::every]:
        where, refused, found = scene.failed(number, error, lasting)
        tally.points += 1
        tally.refused += refused
        name = f"{errno.errorcode[error]}{' from there on' * lasting}"
        tally.harms += [(f"point {number}, {where}, {name}", harm) for harm in found]
    return tally


def cut_everywhere(scene: Scene, every: int = 1, first: int = 0) -> Tally:
    """Cut the power, in every way, after every n-th change."""
    tally = Tally(scene.operation.name)
    for where, found in scene.cuts(every, first):
        tally.points += 1
        tally.killed += 1
        tally.harms += [(where, harm) for harm in found]
    return tally


_COLUMNS = ("operation", "points", "killed", "lost", "dangling", "half files", "manual repairs")


def _row(tally: Tally) -> tuple[object, ...]:
    lost, repairs = tally.count("lost"), tally.count("repair", "traceback", "words")
    counts = tally.count("dangling"), tally.count("half file")
    return tally.operation, tally.points, tally.killed or tally.refused, lost, *counts, repairs


def table(tallies: Sequence[Tally], columns: Sequence[str] = _COLUMNS) -> str:
    """Aligned, with a line of sums."""
    rows = [_row(tally) for tally in tallies]
    sums = ("all", *(sum(int(str(row[i])) for row in rows) for i in range(1, len(columns))))
    widths = [max(len(str(r[i])) for r in (columns, *rows, sums)) for i in range(len(columns))]
    return "\n".join(
        "  ".join(f"{v!s:{'<' if i == 0 else '>'}{widths[i]}}" for i, v in enumerate(row))
        for row in (columns, *rows, sums)
    )


def main() -> None:
    """The whole campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th point")
    parser.add_argument("--only", default="", help="only operations with this in their name")
    parser.add_argument("--what", choices=("kills", "errors", "cuts"), default="kills")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)  # a registry is taken away after every point
    follow, tallies, begun = driver(), list[Tally](), time.perf_counter()
    warm_up()
    everywhere = {"kills": kill_everywhere, "errors": fail_everywhere, "cuts": cut_everywhere}
    for operation in OPERATIONS:
        if chosen.only in operation.name:
            with tempfile.TemporaryDirectory(dir=place()) as apart:
                tallies.append(
                    everywhere[chosen.what](Scene(operation, Path(apart), follow), chosen.every)
                )
            tally = tallies[-1]
            print(f"{operation.name}: {tally.points} points", file=sys.stderr)
            for where, harm in tally.harms:
                print(f"  {where}: {harm.kind}: {harm.what[:300]}", file=sys.stderr)
    middle = {"kills": "killed", "errors": "refused", "cuts": "cut"}[chosen.what]
    print(table(tallies, [middle if c == "killed" else c for c in _COLUMNS]))
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
