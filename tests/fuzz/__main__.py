"""python -m tests.fuzz: many hostile files for every reader, and a table of what became of them."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.campaign import Tally, case, run
from tests.fuzz.readers import ACCEPTED, ARCHIVES, FOREIGN, READERS, TEXTS

_CHUNK = 500
_COLUMNS = ("reader", "cases", "accepted", "refused", "crashes", "hangs", "outside")
_COLUMNS += ("too large", "slowest ms", "MB beyond file", "refused with")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; the exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--payloads", type=int, default=100_000, help="mutated payload files")
    parser.add_argument("--imports", type=int, default=2_000, help="of them, into stores")
    parser.add_argument("--archives", type=int, default=5_000, help="mutated archives")
    parser.add_argument("--pairs", type=int, default=20_000, help="mutated texts")
    parser.add_argument("--foreign", type=int, default=20_000, help="of each foreign format")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", nargs=2, metavar=("READER", "NUMBER"), help="write one case")
    options = parser.parse_args(arguments)
    if options.case:
        name, number = options.case
        sys.stdout.buffer.write(case(options.seed, READERS[name], int(number)))
        return 0
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    print(f"seed {options.seed}")
    tallies = _campaign(_shares(options), directory, options.seed, options.workers)
    _print_table(tallies)
    for tally in tallies:
        for number, kind, what in tally.failures[:20]:
            print(f"{tally.reader} {number}: {kind}: {what}")
    shutil.rmtree(directory, ignore_errors=True)
    return int(any(tally.failures for tally in tallies))


def _shares(options: argparse.Namespace) -> dict[str, int]:
    shares = {"payload": options.payloads - options.imports}
    shares |= {"known": options.payloads // 10}
    shares |= dict.fromkeys(("import", "rebuild"), options.imports // 2)
    shares |= dict.fromkeys((r.name for r in ARCHIVES), options.archives // 2)
    shares |= dict.fromkeys((r.name for r in FOREIGN), options.foreign)
    return shares | dict.fromkeys((r.name for r in TEXTS), -(-options.pairs // len(TEXTS)))


def _campaign(shares: dict[str, int], directory: Path, seed: int, workers: int) -> list[Tally]:
    tallies = {reader.name: Tally(reader.name) for reader in READERS.values()}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs: dict[Future[Tally], tuple[str, range]] = {}
        for name, numbers in _chunks(shares):
            place = directory / f"{name.replace(' ', '-')}-{numbers.start}"
            place.mkdir()
            jobs[pool.submit(run, name, numbers, place, seed)] = name, numbers
        for done, job in enumerate(as_completed(jobs), 1):
            name, numbers = jobs[job]
            try:
                tallies[name].add(job.result())
            except BrokenProcessPool:  # the process itself died
                tallies[name].failures.append((numbers.start, "crash", f"it died in {numbers}"))
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)}", end="\r", file=sys.stderr)
    return list(tallies.values())


def _chunks(shares: dict[str, int]) -> Iterator[tuple[str, range]]:
    for name, count in shares.items():
        for start in range(0, count, _CHUNK):
            yield name, range(start, min(start + _CHUNK, count))


def _print_table(tallies: Sequence[Tally]) -> None:
    total = Tally("all")
    for tally in tallies:
        total.add(tally)
    rows = [_COLUMNS, *(_row(tally) for tally in (*tallies, total))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        first, *numbers, last = (
            text.ljust(w) if i in (0, len(row) - 1) else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join((first, *numbers, last)).rstrip())


def _row(tally: Tally) -> tuple[str, ...]:
    refused = {k: n for k, n in tally.outcomes.items() if k not in (ACCEPTED, "crash", "hang")}
    kinds = (tally.count(kind) for kind in ("crash", "hang", "outside", "memory"))
    return (
        tally.reader,
        f"{tally.cases}",
        f"{tally.outcomes[ACCEPTED]}",
        f"{sum(refused.values())}",
        *map(str, kinds),
        f"{tally.slowest * 1e3:.0f}",
        f"{max(tally.memory, 0) / 1e6:.0f}",
        ", ".join(f"{k} {n}" for k, n in sorted(refused.items(), key=lambda kn: -kn[1])),
    )


if __name__ == "__main__":
    sys.exit(main())
