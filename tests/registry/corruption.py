"""Damage done to a store, one byte or file at a time: `python -m tests.registry.corruption`.

Each case damages a copy of one small store and asks four questions. Does any verb crash, hang or
load another vector than was stored? Is the damage noticed, and are just those vectors named that
it hurt? Does what `doctor` says to type bring back every vector whose payload is whole, with its
tags, notes and lineage? Does the store verify then? Prints a table; takes a while, since every
byte of every payload and bytes of every page of the registry get their turn. `--every N` takes
one case in N.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from steerlab.cli import ExitCode, run
from steerlab.core.record import Record
from steerlab.errors import SteerlabError
from steerlab.files import payload
from steerlab.registry import Store
from steerlab.registry.files import payload_files
from steerlab.registry.labels import label_files
from steerlab.registry.tables import METADATA
from steerlab.registry.upkeep.verify import Damage
from tests.registry import test_runs, test_sweeps
from tests.registry.samples import OTHER, vector

SECONDS = 60
CURED = 16  # the advice is followed for one payload in so many: it is the same for each
PAGE = 4096
NAMES = (("model", "name"), ("vector", "name"))  # hurt vectors are named as their rows have it
LOST = (Damage.ALTERED, Damage.MISSING)

Hurt = Callable[[Path], object]


@dataclass
class Tally:
    """What came of the cases of one kind of damage."""

    results: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def failed(self, number: int, why: str) -> None:
        """Keep what went wrong, and say so at once: the table comes late."""
        self.results["wrong"] += 1
        self.failures.append(f"case {number}: {why}")
        print(self.failures[-1], file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Known:
    """What a store held before the damage."""

    records: dict[str, Record]
    lineage: dict[str, object]
    rest: object


def sample(path: Path) -> Path:
    """A store with every kind of vector and of result; part of it is still in the log."""
    store = Store(path)
    love = store.save("love", vector(1), tags=["feeling", "été"], note="the first")
    anger = store.save("anger", vector(2, 1, 2, 3))
    warm = store.save("warm", love - 0.5 * anger)
    store.save("deep", 2 * warm)
    store.save("love", vector(3))
    store.save_many([(f"n{i}", vector(10 + i, model=OTHER)) for i in range(4)], tags=["many"])
    store.tag("love.v1", add=["later"])
    store.note("n2", "of a shared file")
    store.rename("deep", "deeper")
    store.runs.save(test_runs.run())
    test_sweeps.fill(store)
    return path


def sample_with_log(path: Path, place: Path) -> Path:
    """The same, with its last changes in registry.db-wal, as a kill leaves it."""
    sample(path)
    store = Store(path)
    with closing(sqlite3.connect(path / "registry.db")) as held:
        held.execute("SELECT * FROM vector").fetchone()
        store.save("late", 3 * store.load("love.v1"))
        store.tag("anger", add=["late"])
        store.save("warm", vector(7), note="another")
        shutil.copytree(path, place, ignore=shutil.ignore_patterns("*-shm", ".lock"))
    return place


def known(path: Path) -> Known:
    """What a whole store says of itself."""
    store = Store(path)
    refs = [s.qualified for s in store.list(every_version=True, sort="name")]
    rest = [list(store.runs.list()), test_sweeps.kept(store), store.list(every_version=True)]
    lineage = {ref: store.lineage(ref) for ref in refs}
    return Known({ref: store.record(ref) for ref in refs}, lineage, rest)


# damage


def flip(file: str, at: int, bits: int) -> Hurt:
    """Turn over bits of one byte."""

    def hurt(path: Path) -> None:
        with open(path / file, "r+b") as opened:
            opened.seek(at)
            (old,) = opened.read(1)
            opened.seek(at)
            opened.write(bytes([old ^ bits]))

    return hurt


def zero(file: str, page: int) -> Hurt:
    """Fill a page with zeros, as a disk that lost it does."""

    def hurt(path: Path) -> None:
        with open(path / file, "r+b") as opened:
            opened.seek(page * PAGE)
            opened.write(bytes(min(PAGE, (path / file).stat().st_size - page * PAGE)))

    return hurt


def cut(file: str, length: int) -> Hurt:
    """Cut a file off."""
    return lambda path: os.truncate(path / file, length)


def put(table: str, column: str, value: str) -> Hurt:
    """Put another value into one row, whatever the schema allows."""

    def hurt(path: Path) -> None:
        with closing(sqlite3.connect(path / "registry.db")) as opened, opened:
            opened.execute("PRAGMA ignore_check_constraints = 1")
            found = opened.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk > 0")
            keys = [name for (name,) in found] or ["rowid"]
            key, order = ", ".join(keys), ", ".join(f"{name} DESC" for name in keys)
            last = f"SELECT {key} FROM {table} ORDER BY {order} LIMIT 1"
            with contextlib.suppress(sqlite3.IntegrityError):  # what can't be, is no case
                opened.execute(f'UPDATE {table} SET "{column}" = {value} WHERE ({key}) = ({last})')

    return hurt


def swap(one: str, other: str) -> Hurt:
    """Give two files each other's names."""

    def hurt(path: Path) -> None:
        (path / one).rename(path / "aside")
        (path / other).rename(path / one)
        (path / "aside").rename(path / other)

    return hurt


def delete(file: str) -> Hurt:
    """Delete a file."""
    return lambda path: (path / file).unlink()


def cases(path: Path, log: Path, every: int) -> Iterator[tuple[str, Path, Hurt]]:
    """(kind of damage, the store it is done to, how), one in `every` of what there is."""
    dice = random.Random(every)
    files = [f.relative_to(path).as_posix() for f in payload_files(path)]
    files = files[:: min(len(files) // 2, 1 + every // 1000)]

    def spread(count: int, step: int = every) -> range:
        return range(dice.randrange(min(step, count)), count, step)

    for file in files:
        size = (path / file).stat().st_size
        for at in spread(size):
            yield "payload, byte flipped", path, flip(file, at, 1 << dice.randrange(8))
        for length in [0, size - 1, *spread(size, 16 * every)]:
            yield "payload, cut", path, cut(file, length)
        yield "payload, deleted", path, delete(file)
    for one, other in zip(files, [*files[1:], files[0]], strict=True):
        yield "payloads, swapped", path, swap(one, other)
    for file in (f.relative_to(path).as_posix() for f in label_files(path)):
        size = (path / file).stat().st_size
        for at in spread(size, max(1, every // 4)):
            yield "label, byte flipped", path, flip(file, at, 1 << dice.randrange(8))
        for length in [0, size - 1, *spread(size, 4 * every)]:
            yield "label, cut", path, cut(file, length)
        yield "label, deleted", path, delete(file)
    registry = (path / "registry.db").read_bytes()
    pages = len(registry) // PAGE
    for page in spread(pages, max(1, every // 100)):
        used = [at for at in range(page * PAGE, page * PAGE + PAGE) if registry[at]]
        for at in sorted(dice.sample(used, min(len(used), max(1, 64 // every)))):
            yield "registry, byte flipped", path, flip("registry.db", at, 1 << dice.randrange(8))
    for page in spread(pages, max(1, every // 20)):
        yield "registry, page zeroed", path, zero("registry.db", page)
    for length in [0, *spread(pages * PAGE, 40 * every)]:
        yield "registry, cut", path, cut("registry.db", length)
    yield "registry, deleted", path, delete("registry.db")
    values = [
        (table.name, column.name, value)
        for table in METADATA.sorted_tables
        for column in table.c
        if (table.name, column.name) not in NAMES
        for value in (f'CAST("{column.name}" AS BLOB)', "'zz'", "''", "-1", "NULL", "1e300")
    ]
    for at in spread(len(values), max(1, every // 10)):
        yield "registry, value replaced", path, put(*values[at])
    size = (log / "registry.db-wal").stat().st_size
    for at in spread(size, 12 * every):
        yield "log, byte flipped", log, flip("registry.db-wal", at, 1 << dice.randrange(8))
    for length in spread(size, 20 * every):
        yield "log, cut", log, cut("registry.db-wal", length)
    yield "log, deleted", log, delete("registry.db-wal")
    yield "log's registry, deleted", log, delete("registry.db")


# what comes of it


class Wrong(Exception):
    """What must not happen."""


def verb(path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a verb in this process: code, stdout, stderr; a crash of it is Wrong."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([*arguments, "--store", str(path)])
    if code == ExitCode.INTERNAL:
        raise Wrong(f"{arguments[0]} crashed: {err.getvalue().strip()}")
    return code, out.getvalue(), err.getvalue()


def loaded(path: Path, expected: Known, bare: bool) -> set[str]:
    """The refs that load, as bare names too if asked; another vector than was stored is Wrong."""
    store = Store(path)
    newest = {r.rpartition(".")[0]: r for r in sorted(expected.records)} if bare else {}
    found = set()
    for ref, meant in {**{r: r for r in expected.records}, **newest}.items():
        try:
            digest = store.load(ref).digest
        except SteerlabError:
            continue
        if digest != expected.records[meant].digest:
            raise Wrong(f"{ref} loads as another vector")
        found.add(ref)
    return found & expected.records.keys()


def whole(path: Path) -> set[str]:
    """The stories of what can be read in any payload file."""
    found = set()
    for file in payload_files(path):
        with contextlib.suppress(SteerlabError):
            for key in payload.read_records(file):
                with contextlib.suppress(SteerlabError):
                    record, _ = payload.read(file, key)
                    found.add(record.story)
    return found


def follow(path: Path) -> bool:
    """Do what doctor says until it says nothing new; whether it said anything."""
    said = False
    for _ in range(4):
        out = verb(path, "doctor", "--json")[1]
        typed = False
        for problem in json.loads(out):
            fix, refs = problem["fix"], problem["refs"]
            if "registry.db away" in fix:
                (path / "registry.db").unlink()
            elif "steerlab remove" in fix:
                for ref in refs:
                    verb(path, "remove", ref, "--force")
            elif fix.startswith("steerlab rebuild"):
                verb(path, "rebuild")
            else:
                said = said or problem["wrong"]
                continue
            typed = said = True
            break  # the store has changed: ask again
        if not typed:
            return said
    raise Wrong("doctor goes on saying the same")


def examine(path: Path, expected: Known, log: bool, cured: bool) -> str:
    """What came of one case: "harmless", "noticed" or "unseen"; raises Wrong.

    log: SQLite drops what it can't trust in a log, so that an older version is the newest again
    until a rebuild finds the payload of the other. cured: whether doctor's advice is followed.
    """
    there = whole(path)
    alive = {ref for ref, r in expected.records.items() if r.story in there}
    noticed = "had no registry.db" in verb(path, "list", "--all-versions")[2]
    verb(path, "search", "love")
    fine = loaded(path, expected, bare=not log)
    noticed = noticed or verb(path, "verify")[0] != ExitCode.OK
    check_names(path, expected, alive, fine, log)
    if cured:
        noticed = follow(path) or noticed
        check_cure(path, expected, alive)
    if noticed:
        return "noticed"
    return "harmless" if known(path) == expected else "unseen"


def check_names(path: Path, expected: Known, alive: set[str], fine: set[str], log: bool) -> None:
    """Just the vectors that were hurt are named, unless the whole registry is."""
    hurt = expected.records.keys() - alive
    try:
        findings = Store(path).verify()
    except SteerlabError:
        return
    if any(f.damage is Damage.REGISTRY for f in findings):
        return
    lost, named = {f.ref for f in findings if f.damage in LOST}, {f.ref for f in findings}
    if lost != hurt:
        raise Wrong(f"named {sorted(lost)}, hurt {sorted(hurt)}")
    if not log and not expected.records.keys() - fine <= named:
        raise Wrong(f"not named: {sorted(expected.records.keys() - fine - named)}")


def check_cure(path: Path, expected: Known, alive: set[str]) -> None:
    """All is back but the vectors whose payload is lost, and the store verifies."""
    everything = alive == expected.records.keys()
    back = loaded(path, expected, bare=everything)
    if back != alive:
        raise Wrong(f"brought back {sorted(back)}, whole {sorted(alive)}")
    store = Store(path)
    for ref in alive:
        if store.record(ref) != expected.records[ref]:
            raise Wrong(f"{ref} came back otherwise")
    bad = [f for f in store.verify() if everything or f.damage is not Damage.OPERAND]
    if bad:
        raise Wrong(f"still not whole: {bad[0]}")
    if everything and known(path).lineage != expected.lineage:
        raise Wrong("the lineage came back otherwise")


@contextlib.contextmanager
def hasty() -> Iterator[None]:
    """Something that takes a minute hangs."""

    def late(signum: int, frame: object) -> None:
        raise Wrong("hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def campaign(every: int, place: Path, only: str = "") -> dict[str, Tally]:
    """Every case whose kind has `only` in it, each on a fresh copy."""
    path = sample(place / "sample")
    log = sample_with_log(place / "second", place / "log")
    shutil.copytree(log, place / "read")
    expected = {path: known(path), log: known(place / "read")}
    tallies: dict[str, Tally] = {}
    for number, (kind, store, hurt) in enumerate(cases(path, log, every)):
        if only not in kind:
            continue
        copy = shutil.copytree(store, place / f"copy{number}")
        hurt(copy)
        tally = tallies.setdefault(kind, Tally())
        try:
            with hasty():
                cured = number % CURED == 0 or "payload," not in kind or every > CURED
                tally.results[examine(copy, expected[store], store == log, cured)] += 1
        except Wrong as error:
            tally.failed(number, str(error).replace(str(copy), "STORE"))
        except Exception as error:  # a crash, which no damage may bring about
            tally.failed(number, f"{type(error).__name__}: {error}")
        shutil.rmtree(copy)
    return tallies


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one case in N")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds with this in them")
    options = parser.parse_args()
    os.environ["STEERLAB_STORE"] = os.devnull
    columns = ("harmless", "noticed", "unseen", "wrong")
    print(f"{'damage':26} {'cases':>7}" + "".join(f"{c:>10}" for c in columns))
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        for kind, tally in campaign(options.every, Path(place), options.only).items():
            numbers = "".join(f"{tally.results[c]:>10}" for c in columns)
            print(f"{kind:26} {tally.results.total():>7}{numbers}")
            wrong += tally.results["wrong"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
