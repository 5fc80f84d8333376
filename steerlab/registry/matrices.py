"""The directions of many vectors as matrices, kept as files that a product runs over.

A derived index, in the user's cache: what is known of a store's vectors by digest, so names, tags
and removals do not touch it. One matrix a layer (a front tensor has one for each of its rows):

    index.json           whose it is, and how much of the files below counts
    <name>.digests       32 bytes an entry
    <name>.15.0.rows     float32, one row an entry that has layer 15; .0: its first position
    <name>.15.0.entries  which entry each row belongs to, and the square of its length

Files only grow, and index.json is replaced last: a process that is killed leaves rows that do
not count, and one that reads is not disturbed. Nothing here is believed for more than a ranking:
what is told of a vector is computed from `directions`, once these have the digest they should.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.direction import Scope
from steerlab.core.recipe import ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.files.location import cache_directory

FORMAT = 1
_ENTRY = np.dtype([("entry", "<u4"), ("square", "<f8")])
_CHUNK = 4096  # rows whose lengths are computed at a time
_SAFE = (1e-30, 1e30)
"""Squares of lengths between which float32 products neither overflow nor vanish."""

Arrays = Mapping[int, NDArray[np.float32]]


class BrokenIndex(Exception):
    """The files are not what they should be; they are made anew."""


@dataclass(frozen=True)
class Slot:
    """One matrix: row i belongs to entry `entries[i]`, and `squares[i]` is its length squared."""

    rows: NDArray[np.float32]
    entries: NDArray[np.intp]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """Entry -> length; the entries whose length float32 can't hold, and those that have none."""

    of: NDArray[np.float64]
    unsafe: NDArray[np.intp]
    absent: NDArray[np.intp]


class Matrices:
    """The index of a store's vectors of one model and scope; `known`: digest -> entry."""

    def __init__(self, store: Path, model: ModelIdentity, scope: Scope) -> None:
        self.model, self.scope = model, scope
        whose = {"store": os.path.realpath(store), "model": list(model.key), "scope": scope}
        self._whose = {"format": FORMAT, **whose}
        name = hashlib.sha256(json.dumps(self._whose).encode()).hexdigest()[:32]
        self.directory = home() / name
        self._clear()

    def _clear(self) -> None:
        self.known: dict[str, int] = {}
        self.slots: dict[tuple[int, int], Slot] = {}
        self._counts: dict[str, Any] = {"name": secrets.token_hex(4), "entries": 0, "slots": {}}
        self._sound: dict[str, int] = {}
        self._measured: dict[object, Lengths] = {}

    # reading

    def open(self) -> None:
        """Read what there is; nothing is known if it is damaged or another's."""
        for _ in range(3):  # another process may replace the files between two looks
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BrokenIndex):
                self._read()
                return
            self._clear()

    def _read(self) -> None:
        try:
            said = json.loads((self.directory / "index.json").read_text("utf-8"))
        except FileNotFoundError:
            self._clear()
            return
        if {key: said.get(key) for key in self._whose} != self._whose:
            raise BrokenIndex
        counts = {key: said[key] for key in self._counts}
        if counts["name"] != self._counts["name"]:
            self._clear()
        digests = self._file(counts, "digests", np.dtype("V32"), counts["entries"])
        slots = {}
        for place, count in counts["slots"].items():
            layer, position = map(int, place.split("."))
            rows = self._file(counts, f"{place}.rows", np.dtype("<f4"), count * self.model.d_model)
            about = self._file(counts, f"{place}.entries", _ENTRY, count)
            entries, squares = about["entry"].astype(np.intp), about["square"].copy()
            slots[layer, position] = Slot(rows.reshape(count, -1), entries, squares)
            self._check(place, slots[layer, position], counts["entries"])
        text = digests.tobytes().hex()
        known = {text[i : i + 64]: i // 64 for i in range(0, len(text), 64)}
        if len(known) < counts["entries"]:
            raise BrokenIndex
        self.known, self.slots, self._counts = known, slots, counts

    def _file(
        self, counts: Mapping[str, Any], end: str, dtype: np.dtype[Any], count: int
    ) -> NDArray[Any]:
        path = self.directory / f"{counts['name']}.{end}"
        if count == 0:
            return np.empty(0, dtype)
        return np.memmap(path, dtype, "r", shape=(count,)).view(np.ndarray)

    def _check(self, place: str, slot: Slot, entries: int) -> None:
        """Each row once: a bit that turned makes it longer or shorter than was noted."""
        new = slice(self._sound.get(place, 0), None)
        if not np.allclose(_squares(slot.rows[new]), slot.squares[new], rtol=1e-9, atol=0):
            raise BrokenIndex
        if np.any(slot.entries[new] >= entries) or np.any(np.diff(slot.entries) < 1):
            raise BrokenIndex
        self._sound[place] = len(slot.entries)

    # writing

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """One process at a time adds; raises OSError where nothing can be written here."""
        from filelock import FileLock

        _forget_stores_that_are_gone()
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self.directory / ".lock", timeout=seconds):  # Timeout is an OSError
            yield

    def add(self, found: Sequence[tuple[str, Arrays]]) -> None:
        """Append vectors by digest and publish them; the caller holds the lock."""
        entries, rows = self._counts["entries"], defaultdict[str, list[Any]](list)
        for entry, (_, arrays) in enumerate(found, entries):
            for layer, array in arrays.items():
                for position, row in enumerate(array):
                    rows[f"{layer}.{position}"].append((entry, row))
        counts = {**self._counts, "entries": entries + len(found)}
        counts["slots"] = dict(counts["slots"])
        self._append("digests", 32 * entries, bytes.fromhex("".join(d for d, _ in found)))
        for place, owned in rows.items():
            matrix = np.stack([row for _, row in owned])
            about = np.empty(len(owned), _ENTRY)
            about["entry"], about["square"] = [entry for entry, _ in owned], _squares(matrix)
            before = counts["slots"].get(place, 0)
            self._append(f"{place}.rows", 4 * self.model.d_model * before, matrix.tobytes())
            self._append(f"{place}.entries", _ENTRY.itemsize * before, about.tobytes())
            counts["slots"][place] = before + len(owned)
        temporary = self.directory / f"index.json.{secrets.token_hex(4)}"
        temporary.write_text(json.dumps({**self._whose, **counts}), "utf-8")
        os.replace(temporary, self.directory / "index.json")
        self._counts = counts

    def _append(self, end: str, size: int, data: bytes) -> None:
        """Write behind the first `size` bytes: what a killed process left there does not count."""
        with open(self.directory / f"{self._counts['name']}.{end}", "ab") as file:
            file.truncate(size)
            file.write(data)

    def discard(self) -> None:
        """Forget all of it: the next vectors go into new files. The caller holds the lock."""
        self._clear()
        for path in self.directory.iterdir():
            if path.name != ".lock":
                path.unlink(missing_ok=True)

    # ranking

    def cosines(self, vector: SteeringVector) -> NDArray[np.float64]:
        """Entry -> size of the cosine over the layers shared with a vector, in float32's precision.

        -1 where no layer is shared; infinity where float32 can't tell.
        """
        own = {b: array / (vector.norm or 1.0) for b, array in vector.directions.items()}
        places = [place for place in self.slots if place[0] in own]
        with np.errstate(all="ignore"):
            dot = self._sum(
                (self.slots[b, i], self.slots[b, i].rows @ own[b][i].astype(np.float32))
                for b, i in places
                if i < len(own[b])
            )
            mine = self._sum((self.slots[b, i], (own[b] ** 2).sum()) for b, i in places if i == 0)
            lengths = self._lengths(tuple(places))
            found: NDArray[np.float64] = np.abs(dot) / (lengths.of * np.sqrt(mine))
        found[lengths.unsafe] = np.inf
        found[np.broadcast_to(mine < _SAFE[0], found.shape)] = np.inf
        found[lengths.absent] = -1.0
        return found

    def _lengths(self, places: tuple[tuple[int, int], ...]) -> Lengths:
        """How long the entries are in some matrices; the last answer is kept."""
        key = (self._counts["name"], len(self.known), places)
        measured = self._measured
        if key not in measured:
            slots, none = [self.slots[place] for place in places], np.zeros(len(self.known))
            squares = none + self._sum((slot, slot.squares) for slot in slots)
            here = none + self._sum((slot, 1.0) for slot in slots)
            unsafe = np.flatnonzero((squares < _SAFE[0]) | (squares > _SAFE[1]))
            measured = {key: Lengths(np.sqrt(squares), unsafe, np.flatnonzero(here == 0))}
            self._measured = measured
        return measured[key]

    def _sum(self, parts: Iterable[tuple[Slot, Any]]) -> Any:
        """The sum of what slots say of their rows, entry by entry; one number if all have it."""
        total: Any = 0.0
        for slot, part in parts:
            if len(slot.entries) == len(self.known):
                total = total + part
                continue
            if np.ndim(total) == 0:
                total = np.full(len(self.known), float(total))
            total[slot.entries] += part
        return total

    def directions(self, entry: int) -> dict[int, NDArray[np.float32]]:
        """The arrays of an entry, layer by layer."""
        rows: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
        for layer, position in sorted(self.slots):
            slot = self.slots[layer, position]
            row = int(np.searchsorted(slot.entries, entry))
            if row < len(slot.entries) and slot.entries[row] == entry:
                rows[layer].append(slot.rows[row])
        return {layer: np.stack(found) for layer, found in rows.items()}


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The square of the length of each row, the same on every call."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].astype(np.float64)
        found[start : start + _CHUNK] = np.einsum("ij,ij->i", part, part)
    return found


def home() -> Path:
    """Where the indices of all stores are."""
    return cache_directory() / "neighbours"


def _forget_stores_that_are_gone() -> None:
    for file in home().glob("*/index.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not Path(json.loads(file.read_text("utf-8"))["store"]).is_dir():
                shutil.rmtree(file.parent, ignore_errors=True)
