"""Payload files of a store: their paths, and loading vectors from them."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from steerlab.core.record import Record
from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload, SteerlabError, StoreError
from steerlab.files import durable, payload
from steerlab.registry.rows import Stored, check_trusted

if TYPE_CHECKING:
    from filelock import BaseFileLock

SUFFIX = ".safetensors"
LINKS = f"{durable.TEMPORARY_PREFIX}backup-"
"""How the directory begins in which a backup holds on to the files that it copies."""
MOST_VECTORS = 500
MOST_BYTES = 32_000_000
"""Bounds of a file with many vectors: a load reads its header."""

_PER_TEXT = 16  # records may take 2 MB of that: a file's header is read as a whole

Entry = tuple[Record, SteeringVector]


def free_path(digest: str, is_taken: Callable[[str], bool]) -> str:
    """payloads/ab/<digest>.safetensors, else <digest>.2.safetensors and so on."""
    beginning = f"payloads/{digest[:2]}/{digest}"
    paths = (f"{beginning}{f'.{n}' if n > 1 else ''}{SUFFIX}" for n in count(1))
    return next(path for path in paths if not is_taken(path))


def check_target(directory: Path, target: Path) -> None:
    """Raise StoreError for a file to write that would be one of the store's own."""
    with contextlib.suppress(ValueError):
        inside = Path(os.path.realpath(target)).relative_to(os.path.realpath(directory))
        if inside.parts and (inside.parts[0] in _OWN or inside.parts[0].startswith("registry.db")):
            raise StoreError(f"{target} is where the store keeps its files: choose another place")


_OWN = (".lock", "payloads", "labels", "results")


def holder(links: Path) -> BaseFileLock:
    """A lock on the links of a backup, held while its process lives."""
    from filelock import FileLock

    return FileLock(links / ".lock", timeout=0, fallback_to_soft=False)


def is_held(links: Path) -> bool:
    """Whether a backup still reads these links."""
    if not (links / ".lock").exists():  # it died before it held them; to look makes no file
        return False
    try:
        with holder(links):
            return False
    except OSError:  # a Timeout; or nobody may write there: whoever made them is another user
        return True


def payload_files(directory: Path) -> Iterator[Path]:
    """Every payload file of the store, in a fixed order.

    Hidden files are skipped: they are temporary, or belong to the operating system.
    """
    payloads = directory / "payloads"
    if payloads.is_dir():
        os.scandir(payloads).close()  # raises if it can't be read, which glob passes over
    yield from sorted(
        path
        for path in payloads.glob(f"**/*{SUFFIX}")
        if not any(part.startswith(".") for part in path.relative_to(payloads).parts)
    )


def batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Split entries into files: one model each, of bounded size."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        weight = 4 * sum(d.size for d in entry[1].directions.values())
        weight += _PER_TEXT * len(payload.spelt(entry[0]))
        full = len(batch) >= MOST_VECTORS or size + weight > MOST_BYTES
        if batch and (full or batch[0][0].model != entry[0].model):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += weight
    if batch:
        yield batch


def load(directory: Path, stored: Stored) -> SteeringVector:
    """The vector of a row, checked against the row's digest."""
    return next(load_all(directory, [stored]))


def numbers(directory: Path, stored: Stored) -> SteeringVector:
    """The vector of a row that may be altered, found by its digest."""
    path, digest = directory / stored.path, stored.record.digest
    (found,) = payload.read_known(path, [(stored.key, stored.record)])
    if found is not None:
        return found
    records = payload.read_records(path).items()
    return payload.read(path, next((k for k, r in records if r.digest == digest), stored.key))[1]


def load_all(directory: Path, rows: Iterable[Stored]) -> Iterator[SteeringVector]:
    """The vectors of rows, in order; consecutive rows of one file open it once."""
    for path, together in groupby(rows, key=lambda stored: stored.path):
        some = list(together)
        found = payload.read_known(directory / path, [(s.key, s.record) for s in some])
        for stored, vector in zip(some, found, strict=True):
            check_trusted(stored)
            yield vector or _slowly(directory, stored)


def _slowly(directory: Path, stored: Stored) -> SteeringVector:
    """Load a vector by parsing the file; raises CorruptPayload with the reason."""
    written, vector = payload.read(directory / stored.path, stored.key, stored.labels)
    if written.digest != stored.record.digest:
        raise CorruptPayload(
            f"{directory / stored.path} no longer holds {stored.qualified}: restore the file from "
            "a copy, or remove the vector"
        )
    return payload.from_arrays(vector.float32(), stored.record)


def arrays_of(
    directory: Path, rows: Iterable[Any], layers: Callable[[Any], Sequence[int]]
) -> Iterator[tuple[Any, Mapping[int, NDArray[Any]] | None]]:
    """Rows with their arrays, file by file, unchecked; None for arrays that can't be read.

    rows: with `path` and `key`. layers: gives the layers of a row.
    """
    by_path = defaultdict(list)
    for row in rows:
        by_path[row.path].append(row)
    for path, together in by_path.items():
        found: dict[str, dict[int, NDArray[Any]]] = {}
        with contextlib.suppress(SteerlabError):
            found |= payload.read_arrays(directory / path, {r.key: layers(r) for r in together})
        yield from ((row, found.get(row.key)) for row in together)
