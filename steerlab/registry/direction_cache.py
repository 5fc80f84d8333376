"""Directions of stored vectors as memory-mapped matrices, one for each layer.

A cache of one store, model and scope, in the user's cache directory; it may be deleted or damaged
at any time. It knows vectors by digest, so labels and removals do not concern it.

    index.json       for each file below, how many records count, and their CRC-32
    <name>.digests   32 bytes per entry: the vectors, numbered from 0
    <name>.15.1      a record per vector with a direction of 1 row at layer 15, in order of entry

Files only grow and index.json is replaced last: a killed process leaves records that do not
count, and readers are not disturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.direction import Scope
from steerlab.core.recipe import ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.files.location import cache_directory

FORMAT = 3
_ALIGNED = 64  # bytes before a row: a product over rows that are not aligned takes 1.08x
_SMALLEST, _LARGEST = 1e-30, 1e30  # squared norms that float32 products neither lose nor overflow

Arrays = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class LayerMatrix:
    """Directions of one shape at one layer: row i, with its squared norm, is of `entries[i]`."""

    rows: NDArray[np.float32]  # (vectors, positions * d_model)
    entries: NDArray[np.intp]  # (vectors,), increasing
    squares: NDArray[np.float64]  # (vectors,)


class DirectionCache:
    """The cached directions of a store's vectors of one model and scope.

    entries: digest -> entry. Only `open` notices what other processes wrote.
    """

    def __init__(self, store: Path, model: ModelIdentity, scope: Scope) -> None:
        self._store, self._width = os.path.realpath(store), model.d_model
        owner = json.dumps([FORMAT, self._store, model.key, scope])
        self.directory = home() / hashlib.sha256(owner.encode()).hexdigest()[:32]
        self._clear()

    def _clear(self) -> None:
        self.entries: dict[str, int] = {}
        self._matrices: dict[tuple[int, int], LayerMatrix] = {}  # by layer and positions
        self._name = secrets.token_hex(4)
        self._files: dict[str, list[int]] = {}  # "digests", "15.1", … -> records, CRC-32

    # files

    def open(self) -> None:
        """Read the files; a damaged cache counts as an empty one."""
        try:
            self._read()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._clear()

    def _read(self) -> None:
        index = json.loads((self.directory / "index.json").read_text("utf-8"))
        if index["name"] != self._name:
            self._clear()
            self._name = index["name"]
        records = {end: self._records(end, *about) for end, about in index["files"].items()}
        digests = records.pop("digests").tobytes().hex()
        self.entries = {digests[i : i + 64]: i // 64 for i in range(0, len(digests), 64)}
        self._matrices = {
            (int(layer), int(positions)): LayerMatrix(
                found["row"], found["entry"].astype(np.intp), found["square"].copy()
            )
            for end, found in records.items()
            for layer, positions in [end.split(".")]
        }
        self._files = index["files"]

    def _records(self, end: str, count: int, checksum: int) -> NDArray[Any]:
        """The records of a file; those that are new are compared with its checksum."""
        path = self.directory / f"{self._name}.{end}"
        records = np.memmap(path, self._dtype(end), "r", shape=(count,)).view(np.ndarray)
        before, known = self._files.get(end, (0, 0))
        if zlib.crc32(records[before:].data, known) != checksum:
            raise ValueError(f"{path} is damaged")
        return records

    def _dtype(self, end: str) -> np.dtype[Any]:
        if end == "digests":
            return np.dtype("V32")
        row = ("<f4", (int(end.partition(".")[2]) * self._width,))
        names, formats, offsets = ["entry", "square", "row"], ["<u4", "<f8", row], [0, 8, _ALIGNED]
        return np.dtype({"names": names, "formats": formats, "offsets": offsets})

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Keep other processes from writing; raises OSError where nothing can be written."""
        from filelock import FileLock

        _forget_stores_that_are_gone()
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self.directory / ".lock", timeout=seconds):  # Timeout is an OSError
            yield

    def add(self, vectors: Mapping[str, Arrays]) -> None:
        """Append vectors by digest; the caller holds the lock, and opens the cache again."""
        if not vectors:
            return
        rows: dict[str, list[tuple[int, float, NDArray[np.float32]]]] = defaultdict(list)
        for entry, arrays in enumerate(vectors.values(), self._files.get("digests", [0])[0]):
            for layer, array in arrays.items():
                square = float(np.square(array, dtype=np.float64).sum())
                rows[f"{layer}.{len(array)}"].append((entry, square, array.ravel()))
        self._append("digests", [bytes.fromhex(digest) for digest in vectors])
        for end, owned in rows.items():
            self._append(end, owned)
        index = {"store": self._store, "name": self._name, "files": self._files}
        temporary = self.directory / f"index.json.{secrets.token_hex(4)}"
        temporary.write_text(json.dumps(index), "utf-8")
        os.replace(temporary, self.directory / "index.json")

    def _append(self, end: str, rows: list[Any]) -> None:
        """Write after the records that count: a killed process may have left others there."""
        dtype, (count, checksum) = self._dtype(end), self._files.get(end, (0, 0))
        records = np.zeros(len(rows), dtype)
        records[:] = rows
        data = records.tobytes()
        with open(self.directory / f"{self._name}.{end}", "ab") as file:
            file.truncate(count * dtype.itemsize)
            file.write(data)
        self._files[end] = [count + len(rows), zlib.crc32(data, checksum)]

    def discard(self) -> None:
        """Empty the cache; the caller holds the lock."""
        self._clear()
        for path in self.directory.iterdir():
            if path.name != ".lock":
                path.unlink(missing_ok=True)

    # vectors

    def cosines(self, vector: SteeringVector) -> NDArray[np.float64]:
        """Absolute cosine of each entry over the layers that it shares with a vector, (entries,).

        In float32's precision; -1 where no layer is shared, infinity where float32 can't tell.
        """
        mine, theirs, dots = np.full((3, len(self.entries)), [[-1.0], [0.0], [0.0]])
        scale = vector.norm or 1.0
        with np.errstate(all="ignore"):
            for (layer, positions), matrix in self._matrices.items():
                if layer not in vector.directions:
                    continue
                own = vector.directions[layer] / scale  # (positions, d_model)
                at = matrix.entries if len(matrix.entries) < len(mine) else slice(None)
                mine[at] = np.maximum(mine[at], 0.0) + np.square(own).sum()
                theirs[at] += matrix.squares
                part = own[:positions].astype(np.float32).ravel()
                dots[at] += matrix.rows[:, : len(part)] @ part
            sizes: NDArray[np.float64] = np.abs(dots) / np.sqrt(mine * theirs)
        sizes[(mine < _SMALLEST) | (theirs < _SMALLEST) | (theirs > _LARGEST)] = np.inf
        sizes[mine < 0] = -1.0
        return sizes

    def directions(self, entry: int) -> dict[int, NDArray[np.float32]]:
        """The arrays of an entry by layer, unchecked."""
        found = {}
        for layer, positions in sorted(self._matrices):
            matrix = self._matrices[layer, positions]
            at = int(np.searchsorted(matrix.entries, entry))
            if at < len(matrix.entries) and matrix.entries[at] == entry:
                found[layer] = matrix.rows[at].reshape(positions, -1)
        return found


def home() -> Path:
    """The directory with the caches of all stores."""
    return cache_directory() / "neighbours"


def _forget_stores_that_are_gone() -> None:
    for file in home().glob("*/index.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not Path(json.loads(file.read_text("utf-8"))["store"]).is_dir():
                shutil.rmtree(file.parent, ignore_errors=True)
