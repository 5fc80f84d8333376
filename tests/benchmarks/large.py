"""A store of 100,000 vectors of shape (1, 576): `python -m tests.benchmarks large`.

Two such stores are made first, of 11 layers and of one (so that all vectors are compared), which
takes minutes; STEERLAB_LARGE names a directory where they are kept from one run to the next.
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

from steerlab import Store
from steerlab.core.vector import SteeringVector
from steerlab.files import durable
from steerlab.registry import SORTS
from tests.benchmarks.crowd import large_store, model_of, vector_of
from tests.benchmarks.timing import Ratio, limited, paired

COUNT, WIDTH = 100_000, 576
FILTERS = {
    "no filter": {},
    "model": {"model": "smollm2"},
    "layer": {"layer": 15},
    "tag": {"tag": "batch_3"},
    "a tag that all have": {"tag": "many"},
    "kind": {"kind": "expression"},
    "name": {"name": "vector_4242"},
    "text": {"text": "angry customer"},
    "text that none has": {"text": "zebra"},
    "layer, kind": {"layer": 15, "kind": "contrast"},
    "tag, text": {"tag": "batch_3", "text": "customer 77"},
    "all of them": {
        "model": "smollm2",
        "layer": 15,
        "tag": "batch_3",
        "kind": "contrast",
        "text": "pirate",
    },
}
SEARCHES = ("angry customer", "customer 4242", "pirate", "zebra", "customer", "do")
KEYS = ("v", "vec", "vctr9", "do", "zebra", "angry", "customer", "customer 77")


def run() -> Iterator[Ratio]:
    """Every figure that is asked of a large store; the index of neighbours is made anew."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(os.environ.get("STEERLAB_LARGE") or scratch)
        os.environ["STEERLAB_CACHE"] = str(Path(scratch) / "cache")
        many, flat = _store(folder / "many", 11), _store(folder / "flat", 1)
        yield from _finding(Store(many))
        yield from _loading(Store(many))
        yield from _similar(flat, Path(scratch))
        yield from _saving(Path(scratch))
        yield from _opening(many, Path(scratch))
        yield from _upkeep(many, Path(scratch))
        yield from _size(Path(scratch), many)


def _store(directory: Path, layers: int) -> Path:
    if not directory.exists():
        part = directory.with_name(f"{directory.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        large_store(part, COUNT, width=WIDTH, layers=layers)
        part.rename(directory)
    return directory


def _finding(store: Store) -> Iterator[Ratio]:
    """First pages under each filter, of the slowest order; full-text search; keys of a filter."""
    for what, filters in FILTERS.items():
        pages = [
            limited(
                f"list, {what}, by {sort}",
                lambda sort=sort, filters=filters: store.list(sort=sort, limit=20, **filters),
                0.05,
                runs=5,
            )
            for sort in SORTS
        ]
        yield max(pages, key=lambda page: page.seconds)
    for text in SEARCHES:
        yield limited(f"search {text!r}", lambda text=text: store.search(text), 0.05)
    for text in KEYS:
        yield limited(f"filter {text!r}", lambda text=text: store.listing.matching(text), 0.07)


def _loading(store: Store) -> Iterator[Ratio]:
    numbers = itertools.count(0, 7919)
    yield limited(
        "load by name, another each time",
        lambda: store.load(f"vector_{next(numbers) % COUNT}"),
        0.005,
        runs=51,
    )
    os.environ["STEERLAB_STORE"] = str(store.path)
    import steerlab.vectors

    for name in ("vector_4242", "vector_99"):
        yield limited(
            f"from steerlab.vectors import {name}",
            lambda name=name: getattr(steerlab.vectors, name),
            0.005,
            runs=51,
        )
    del os.environ["STEERLAB_STORE"]


def _similar(directory: Path, scratch: Path) -> Iterator[Ratio]:
    """Against one product over a matrix of the same size, which is a file in memory too."""
    file = scratch / "matrix"
    np.random.default_rng(0).standard_normal((COUNT, WIDTH), np.float32).tofile(file)
    matrix = np.memmap(file, np.float32, "r", shape=(COUNT, WIDTH))
    row = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    store = Store(directory)
    yield limited("similar, the index being made", lambda: store.similar("vector_1"), 30.0, runs=1)
    yield limited(
        "similar, the first of a process",
        lambda: Store(directory).similar("vector_1"),
        1.0,
    )
    yield paired(
        "similar over all  vs  one matrix product",
        lambda: store.similar("vector_4242"),
        lambda: matrix @ row,
        runs=31,
        asked="<= 1.3",
    )
    made = store.load("vector_4242") - store.load("vector_7")
    yield paired(
        "similar to what is not stored  vs  one product",
        lambda: store.similar(made),
        lambda: matrix @ row,
        runs=31,
        asked="<= 1.3",
    )
    yield paired(
        "both with their files out of memory",
        lambda: (_forget(Path(os.environ["STEERLAB_CACHE"])), store.similar("vector_4242")),
        lambda: (_forget(scratch / "matrix"), matrix @ row),
        runs=3,
        asked="(told)",
        warm_up=False,
    )


def _forget(path: Path) -> None:
    """Ask the operating system to keep none of these files in memory."""
    for file in [path] if path.is_file() else path.rglob("*.*.1"):
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Bare:
    """The write protocol without a registry: lock, file, fsync, rename, fsync, one row, COMMIT.

    With `rows`, the row goes into an SQLite file of one table that is opened and closed as the
    store's is, so that the file system is asked for the same fsyncs; without, into a log, which
    takes one fsync.
    """

    def __init__(self, directory: Path, data: bytes, *, rows: bool) -> None:
        self.directory, self.data, self.numbers = directory, data, itertools.count()
        for prefix in range(256):
            (directory / f"{prefix:02x}").mkdir(parents=True)
        self.lock = FileLock(directory / ".lock")
        self.commit = self._row if rows else self._line
        with contextlib.closing(self._opened()) as opened:
            opened.execute("CREATE TABLE vector (id INTEGER PRIMARY KEY, digest, path)")

    def save(self) -> None:
        number = next(self.numbers)
        path = self.directory / f"{number % 256:02x}" / str(number)
        with self.lock:
            self.commit(path)

    def _row(self, path: Path) -> None:
        with contextlib.closing(self._opened()) as opened:
            opened.execute("BEGIN IMMEDIATE")
            durable.write(path, self.data)
            opened.execute("INSERT INTO vector (digest, path) VALUES (?, ?)", ("d" * 64, str(path)))
            opened.execute("COMMIT")

    def _line(self, path: Path) -> None:
        durable.write(path, self.data)
        with open(self.directory / "log", "ab") as log:
            log.write(f"{'d' * 64} {path}\n".encode())
            log.flush()
            os.fsync(log.fileno())

    def _opened(self) -> sqlite3.Connection:
        opened = sqlite3.connect(self.directory / "rows.db", isolation_level=None)
        opened.execute("PRAGMA synchronous = FULL")
        opened.execute("PRAGMA journal_mode = WAL")
        return opened


def _saving(scratch: Path) -> Iterator[Ratio]:
    """Rates: the bare protocol's seconds over ours. Prefix directories are there beforehand."""
    random, model = np.random.default_rng(0), model_of(WIDTH)
    store = Store(scratch / "saving")
    for prefix in range(256):
        (store.path / "payloads" / f"{prefix:02x}").mkdir(parents=True)
    made = (vector_of(i, random, model) for i in itertools.count())
    names = (f"vector_{i}" for i in itertools.count())
    store.save(next(names), next(made))
    (one,) = store.path.glob("payloads/*/*.safetensors")
    for rows, asked in ((True, ">= 0.60"), (False, "(told)")):
        yield paired(
            f"save  vs  bare protocol, {'same fsyncs' if rows else 'one fsync for the row'}",
            lambda: store.save(next(names), next(made)),
            Bare(scratch / f"bare-{rows}", one.read_bytes(), rows=rows).save,
            runs=101,
            asked=asked,
            inverse=True,
        )
    batches = [[(next(names), next(made)) for _ in range(500)] for _ in range(6)]
    store.save_many(batches.pop())
    file = max(store.path.glob("payloads/*/*.safetensors"), key=lambda path: path.stat().st_size)
    numbers = itertools.count()
    many = store.save_many([(f"many_{i}", next(made)) for i in range(500)])
    yield paired(
        "tag one of a file of 500  vs  tag one alone",
        lambda: store.tag(str(many[next(numbers)].ref), add=["x"]),
        lambda: store.tag(f"vector_{next(numbers)}", add=["x"]),
        runs=31,
        asked="<= 1.5",
    )
    yield paired(
        "save_many, 500 in a file  vs  bare protocol",
        lambda: store.save_many(batches.pop()),
        Bare(scratch / "bare-many", file.read_bytes(), rows=True).save,
        runs=4,
        asked="(told)",
        inverse=True,
    )


def _opening(many: Path, scratch: Path) -> Iterator[Ratio]:
    """In fresh processes, against a store of ten."""
    few = large_store(scratch / "few", 10, width=WIDTH).path
    code = "from steerlab import Store; s = Store({!r}); s.list(limit=20); s.record('vector_4')"
    commands = {
        "opened, a page listed, one described": [sys.executable, "-c", code],
        "steerlab list --limit 20": ["list", "--limit", "20"],
        "steerlab show vector_4": ["show", "vector_4"],
        "steerlab log vector_4": ["log", "vector_4"],
        "steerlab tree vector_4": ["tree", "vector_4"],
        "steerlab search 'angry customer'": ["search", "angry customer"],
        "steerlab similar vector_4": ["similar", "vector_4"],
    }
    for what, command in commands.items():
        asked = "<= 1.2" if "similar" not in what else "(told)"
        calls = [_process(command, store) for store in (many, few)]
        yield paired(f"{what}: of 100,000  vs  of 10", *calls, runs=7, asked=asked)
    searched = _process(["search", "customer"], many)
    listed = _process(["list", "--limit", "20"], many)
    yield paired("steerlab search  vs  list", searched, listed, runs=7, asked="<= 1.3")


def _process(command: list[str], store: Path) -> Callable[[], object]:
    if command[0] == sys.executable:
        whole = [*command[:-1], command[-1].format(str(store))]
    else:
        whole = [sys.executable, "-m", "steerlab", *command, "--store", str(store)]
    return lambda: subprocess.run(whole, check=True, capture_output=True)


def _upkeep(many: Path, scratch: Path) -> Iterator[Ratio]:
    """What goes through the whole store; the limits are what a person waits for."""
    store = Store(many)
    for what, call, limit in (
        ("names of all", store.names, 1.0),
        ("usage (du)", store.upkeep.usage, 5.0),
        ("garbage (gc, dry run)", store.upkeep.gc, 5.0),
        ("log", lambda: store.log("vector_77"), 0.1),
        ("lineage (tree)", lambda: store.lineage("vector_99"), 0.1),
        ("all vectors listed", store.list, 10.0),
        ("verify", store.verify, 300.0),
    ):
        yield limited(what, call, limit, runs=1 if what == "verify" else 3)
    copy = scratch / "copy"
    shutil.copytree(many, copy)
    yield limited("rebuild", Store(copy).upkeep.rebuild, 300.0, runs=1)
    shutil.rmtree(copy)


def _size(scratch: Path, many: Path) -> Iterator[Ratio]:
    """Bytes a vector, against 1.25 of the raw float32 bytes and 4 KB."""
    yield _bytes("bytes on disk, 1 layer (bytes, not ms)", many, COUNT, 1)
    random, model = np.random.default_rng(0), model_of(WIDTH)
    thick = Store(scratch / "thick")
    vectors = []
    for i in range(500):
        one = vector_of(i, random, model)
        arrays = dict(enumerate(random.standard_normal((30, 1, WIDTH))))
        norms = dict.fromkeys(arrays, 10.0)
        made = SteeringVector(arrays, model=model, recipe=one.recipe, residual_norms=norms)
        vectors.append((f"vector_{i}", made))
    thick.save_many(vectors)
    yield _bytes("bytes on disk, 30 layers (bytes, not ms)", thick.path, len(vectors), 30)


def _bytes(what: str, directory: Path, count: int, layers: int) -> Ratio:
    used = sum(path.stat().st_blocks * 512 for path in directory.rglob("*")) / count
    limit = 1.25 * layers * WIDTH * 4 + 4096
    return Ratio(what, used / 1e3, limit / 1e3, used / limit, used / limit, used / limit, "<= 1.0")
