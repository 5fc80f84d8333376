"""Several processes at one store: what each of them was told must be so, and nobody sees an error.

    python -m tests.registry.crowd [--processes N] [--seconds S]     all go on to the end
    python -m tests.registry.crowd --kills N                         some are killed at random

Every process saves, composes, tags, annotates, renames and removes vectors of its own, and all
of them make versions of one name and tag one vector; they list, search, load, back up, verify
and collect garbage without any grace. Each keeps a journal of what it was about to do and what it
was told; the journals are compared with the store at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

from steerlab.errors import NotFound, SteerlabError
from steerlab.registry import Store
from tests.registry.journal import BASE, SHARED, Journal, Own, wrong, wrong_later
from tests.registry.samples import vector

NOTHING = timedelta(0)


class Worker:
    """One process of the crowd."""

    def __init__(self, number: int, path: Path, journal: Path, seed: int) -> None:
        self.number, self.store = number, Store(path)
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.random = random.Random(f"{seed} {number}")
        self.own: Own = {}
        self.versions: dict[str, int] = {}  # the newest that a name ever had
        self.parents: dict[str, set[str]] = {}
        self.count = 0

    def run(self, until: Callable[[int], bool]) -> None:
        """Do one thing after another, until enough are done."""
        names, weights = zip(*WEIGHTS.items(), strict=True)
        done = 0
        while not until(done):
            name = self.random.choices(names, weights)[0]
            begun, error, idle = time.perf_counter(), "", False
            try:
                idle = getattr(self, f"_{name}")() is False
            except Exception as problem:
                shown = isinstance(problem, SteerlabError)
                error = str(problem) if shown else traceback.format_exc()
            if not idle:
                done += 1
                self._say("op", name, time.perf_counter() - begun, error)

    def _say(self, *what: object) -> None:
        os.write(self.journal, f"{json.dumps(what)}\n".encode())

    def _change(self, own: Own, work: Callable[[], object]) -> None:
        """Do something that leaves this process with `own`: said before and after."""
        self._say("about", own)
        work()
        self.own = own
        self._say("told", own)

    def _fresh(self):
        self.count += 1
        return vector(self.number * 1_000_000 + self.count, 2)

    def _pick(self) -> str | None:
        return self.random.choice(sorted(self.own)) if self.own else None

    # what changes the store

    def _save(self) -> None:
        known = sorted({ref.partition(".")[0] for ref in self.own})
        again = known and self.random.random() < 0.3
        name = self.random.choice(known) if again else f"w{self.number}n{self.count}"
        self._store(name, self._fresh())

    def _store(self, name: str, made: Any) -> None:
        version = self.versions.get(name, 0) + 1
        own = {**self.own, f"{name}.v{version}": [made.digest, ["mine"], ""]}
        self._change(own, lambda: self.store.save(name, made, tags=["mine"]))
        self.versions[name] = version

    def _compose(self) -> bool | None:
        first, second = self._pick(), self._pick()
        if first is None or second is None:
            return False
        made = self.store.evaluate(f"{first} - 0.5*{second} + 0*{BASE}")
        self.count += 1
        name = f"w{self.number}c{self.count}"
        self._store(name, made)
        self.parents[f"{name}.v1"] = {first, second}
        return None

    def _save_shared(self) -> None:
        made = self._fresh()
        self._say("sharing", made.digest)
        saved = self.store.save(SHARED, made)
        self._say("shared", saved.ref, saved.digest)

    def _tag_shared(self) -> None:
        self.count += 1
        tag = f"t{self.number}x{self.count}"
        self._say("tagging", tag)
        self.store.tag(BASE, add=[tag])
        self._say("tagged", tag)

    def _tag(self) -> bool | None:
        if (ref := self._pick()) is None:
            return False
        self.count += 1
        digest, tags, note = self.own[ref]
        tag = f"t{self.count}"
        own = {**self.own, ref: [digest, sorted([*tags, tag]), note]}
        return self._change(own, lambda: self.store.tag(ref, add=[tag]))

    def _note(self) -> bool | None:
        if (ref := self._pick()) is None:
            return False
        self.count += 1
        digest, tags, _ = self.own[ref]
        text = f"note {self.count}"
        return self._change(
            {**self.own, ref: [digest, tags, text]}, lambda: self.store.note(ref, text)
        )

    def _rename(self) -> bool | None:
        if (ref := self._pick()) is None:
            return False
        self.count += 1
        old, new = ref.partition(".")[0], f"w{self.number}r{self.count}"

        def now(one: str) -> str:
            name, _, version = one.partition(".")
            return f"{new}.{version}" if name == old else one

        self._change(
            {now(one): what for one, what in self.own.items()}, lambda: self.store.rename(old, new)
        )
        self.parents = {now(c): {now(p) for p in ps} for c, ps in self.parents.items()}
        self.versions[new] = self.versions.pop(old)
        return None

    def _remove(self) -> bool | None:
        needed = {parent for parents in self.parents.values() for parent in parents}
        free = sorted(set(self.own) - needed)
        if len(free) < 2:
            return False
        ref = self.random.choice(free)
        own = {one: what for one, what in self.own.items() if one != ref}
        self._change(own, lambda: self.store.remove(ref))
        self.parents.pop(ref, None)
        return None

    def _gc(self) -> None:
        self.store.upkeep.gc(dry_run=False, grace=NOTHING)

    def _backup(self) -> None:
        self.count += 1
        target = self.store.path.parent / f"backup{self.number}x{self.count}.tar"
        self.store.transfer.backup(target)
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    # what only looks

    def _list(self) -> None:
        self.store.list(limit=20)

    def _search(self) -> None:
        self.store.search("love", limit=5)

    def _load(self) -> None:
        found = self.store.list(limit=20)
        if not found:
            return
        one = self.random.choice(found)
        try:
            assert self.store.load(one.qualified).digest == one.digest
        except NotFound as error:  # its owner has renamed or removed it
            if one.ref in self.own or not re.search("no vector|no version", str(error)):
                raise

    def _load_own(self) -> bool | None:
        if (ref := self._pick()) is None:
            return False
        assert self.store.load(ref).digest == self.own[ref][0]
        return None

    def _verify(self) -> None:
        found = self.store.verify()
        assert not found, found[:3]


WEIGHTS = {
    "save": 20,
    "compose": 10,
    "save_shared": 8,
    "tag_shared": 5,
    "tag": 8,
    "note": 5,
    "rename": 3,
    "remove": 14,
    "gc": 3,
    "backup": 0.1,
    "verify": 0.1,
    "list": 12,
    "search": 3,
    "load": 12,
    "load_own": 8,
}


@dataclass
class Crowd:
    """What came of it."""

    journals: list[Journal]
    problems: list[str]
    seconds: float
    killed: int = 0

    @property
    def errors(self) -> list[str]:
        """What was shown to users."""
        return [f"{name}: {error}" for j in self.journals for name, _, error in j.done if error]


def gather(
    directory: Path,
    processes: int,
    *,
    steps: int = sys.maxsize,
    seconds: float = math.inf,
    seed: int = 0,
    kill: Callable[[Sequence[int]], int] | None = None,
) -> Crowd:
    """Let processes work on one store, each for some steps or seconds.

    kill: given the process ids while they work; kills some and returns how many.
    """
    store = Store(directory / "store")
    store.save(BASE, vector(1, 2))
    begun = time.perf_counter()
    files = [directory / f"journal{number}" for number in range(processes)]
    children = []
    for number, file in enumerate(files):
        if (child := os.fork()) == 0:
            code = 7
            try:
                worker = Worker(number, store.path, file, seed)
                worker.run(lambda done: done >= steps or time.perf_counter() - begun > seconds)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    killed = kill(children) if kill else 0
    codes = [os.waitpid(child, 0)[1] for child in children]
    seconds = time.perf_counter() - begun
    assert sum(code != 0 for code in codes) <= killed, codes
    journals = [Journal.read(file) if file.exists() else Journal() for file in files]
    problems = [*wrong(store, journals), *wrong_later(store)]
    return Crowd(journals, problems, seconds, killed)


def table(crowd: Crowd) -> str:
    """By operation: how many, how fast, how many errors."""
    times, errors = defaultdict[str, list[float]](list), defaultdict[str, int](int)
    for journal in crowd.journals:
        for name, seconds, error in journal.done:
            times[name].append(1000 * seconds)
            errors[name] += bool(error)
    times["all"] = [t for name in list(times) for t in times[name]]
    errors["all"] = sum(errors.values())
    lines = [
        f"{'operation':12} {'count':>6} {'per s':>7} {'p50 ms':>7} {'p95 ms':>7} {'max ms':>7}"
    ]
    lines[0] += f" {'errors':>6}"
    for name, taken in times.items():
        cuts = quantiles(taken, n=20) if len(taken) > 1 else taken * 19
        rate = len(taken) / crowd.seconds
        line = f"{name:12} {len(taken):6} {rate:7.1f} {cuts[9]:7.1f} {cuts[18]:7.1f}"
        lines.append(f"{line} {max(taken):7.0f} {errors[name]:6}")
    return "\n".join(lines)


def kill_at_random(directory: Path, seed: int, processes: int = 3) -> Crowd:
    """Kill all but one of a crowd after random delays; the last one goes on for a while."""
    luck = random.Random(seed)
    delays = sorted(luck.uniform(0.05, 1.5) for _ in range(processes - 1))

    def kill(children: Sequence[int]) -> int:
        begun = time.perf_counter()
        for delay, child in zip(delays, children, strict=False):
            time.sleep(max(0.0, delay - (time.perf_counter() - begun)))
            os.kill(child, signal.SIGKILL)
        return len(delays)

    return gather(directory, processes, seconds=delays[-1] + 0.1, seed=seed, kill=kill)


def main() -> int:
    """A crowd that is left in peace, or many that are not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in", dest="place", help="a directory for the store; default: a new one")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)  # at the end the registry is taken away
    killed, acknowledged, problems, errors = 0, 0, list[str](), list[str]()
    while True:
        with tempfile.TemporaryDirectory(dir=chosen.place) as directory:
            place = Path(directory)
            if chosen.kills:
                crowd = kill_at_random(place, chosen.seed + killed)
            else:
                crowd = gather(place, chosen.processes, seconds=chosen.seconds, seed=chosen.seed)
                print(table(crowd))
        killed += crowd.killed
        acknowledged += sum(len(journal.done) for journal in crowd.journals)
        problems += crowd.problems
        errors += crowd.errors
        if killed >= chosen.kills:
            break
    print(
        f"{killed} killed, {acknowledged} operations acknowledged, {len(errors)} errors shown, "
        f"{len(problems)} things lost, dangling or to be repaired"
    )
    for line in [*errors, *problems][:20]:
        print(f"  {line[-700:]}", file=sys.stderr)
    return bool(errors or problems)


if __name__ == "__main__":
    sys.exit(main())
