"""Directions of stored vectors as memory-mapped matrices.

A cache of one store, model and scope, in the user's cache directory; it may be deleted or damaged
at any time. It knows vectors by digest, so labels and removals do not concern it.

    store           the path of the store
    <CRC-32>.npy    a part: vectors with the same layers and positions, a record each

Parts are moved into place whole and never changed, so that processes need no lock: at worst they
do the same work twice. Where nothing can be written, parts stay in memory.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.direction import Scope
from steerlab.core.recipe import ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.files.location import cache_directory

FORMAT = 4
_FULL = 2**24  # bytes of a part that is not merged with others
_MEMORY = "memory "  # begins the name of a part that is not in a file
_SMALLEST, _LARGEST = 1e-30, 1e30  # squared norms that float32 products neither lose nor overflow

Arrays = Mapping[int, NDArray[np.float32]]
Part = NDArray[Any]
"""Records with the fields digest, squares (the squared norm of each layer), and one a layer."""


class DirectionCache:
    """The cached directions of a store's vectors of one model and scope.

    entries: digest -> entry, counted over all parts. Only `open` notices what was added.
    """

    def __init__(self, store: Path, model: ModelIdentity, scope: Scope) -> None:
        self._store, self._width = os.path.realpath(store), model.d_model
        owner = json.dumps([FORMAT, self._store, model.key, scope])
        self.directory = home() / hashlib.sha256(owner.encode()).hexdigest()[:32]
        self.entries: dict[str, int] = {}
        self._parts: dict[str, Part] = {}  # by file name

    def open(self) -> None:
        """Map the parts that are there; damaged ones are deleted."""
        known = {name: part for name, part in self._parts.items() if name.startswith(_MEMORY)}
        for path in sorted(self.directory.glob("*.npy")):
            part = self._parts[path.name] if path.name in self._parts else _mapped(path)
            if part is not None:
                known[path.name] = part
        self._parts = known
        digests = b"".join(part["digest"].tobytes() for part in self._parts.values()).decode()
        self.entries = {digests[i : i + 64]: i // 64 for i in range(0, len(digests), 64)}

    def add(self, vectors: Mapping[str, Arrays]) -> None:
        """Add vectors by digest."""
        shapes = defaultdict(list)
        for digest, arrays in vectors.items():
            shapes[tuple((b, len(array)) for b, array in arrays.items())].append(digest)
        for shape, digests in shapes.items():
            records = np.zeros(len(digests), self._record(shape))
            records["digest"] = digests
            for at, (layer, _) in enumerate(shape):
                rows = records[str(layer)]
                rows[:] = [vectors[digest][layer] for digest in digests]
                records["squares"][:, at] = np.square(rows, dtype=np.float64).sum(axis=(1, 2))
            try:
                self._write(records)
            except OSError:
                self._parts[f"{_MEMORY}{secrets.token_hex(4)}"] = records

    def _record(self, shape: tuple[tuple[int, int], ...]) -> np.dtype[Any]:
        """The record of vectors with these (layer, positions)."""
        squares = -(-len(shape) // 8) * 8  # rows begin at 64 bytes: else a product takes 1.08x
        layers = [(str(layer), "<f4", (rows, self._width)) for layer, rows in shape]
        return np.dtype([("digest", "S64"), ("squares", "<f8", (squares,)), *layers])

    def _write(self, records: Part) -> None:
        """Write a part, in place of those that it can be merged with."""
        if not self.directory.is_dir():
            _forget_stores_that_are_gone()
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "store").write_text(self._store, "utf-8")
        small = {
            name: part
            for name, part in self._parts.items()
            if part.dtype == records.dtype and part.nbytes < _FULL and name.endswith(".npy")
        }
        temporary = self.directory / f"{secrets.token_hex(4)}.tmp"
        try:
            with open(temporary, "xb") as file:
                np.save(file, np.concatenate([*small.values(), records]))
            path = self.directory / f"{_checksum(temporary):08x}.npy"
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for name in small.keys() - {path.name}:
            del self._parts[name]
            (self.directory / name).unlink(missing_ok=True)
        if (part := _mapped(path)) is not None:
            self._parts[path.name] = part

    def discard(self) -> None:
        """Empty the cache."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.entries, self._parts = {}, {}

    def cosines(self, vector: SteeringVector) -> NDArray[np.float64]:
        """Absolute cosine of each entry over the layers that it shares with a vector, (entries,).

        In float32's precision; -1 where no layer is shared, infinity where float32 can't tell.
        """
        each = (_cosines(part, vector) for part in self._parts.values())
        return np.concatenate([np.empty(0), *each])

    def directions(self, entry: int) -> dict[int, NDArray[np.float32]]:
        """The arrays of an entry by layer, unchecked."""
        for part in self._parts.values():
            if entry < len(part):
                return {layer: part[str(layer)][entry] for layer in _layers(part)}
            entry -= len(part)
        raise IndexError(entry)


def _layers(part: Part) -> list[int]:
    return [int(name) for name in (part.dtype.names or ())[2:]]


def _cosines(part: Part, vector: SteeringVector) -> NDArray[np.float64]:
    theirs, dots = np.zeros((2, len(part)))
    mine, scale, shared = 0.0, vector.norm or 1.0, False
    with np.errstate(all="ignore"):
        for at, layer in enumerate(_layers(part)):
            if layer not in vector.directions:
                continue
            shared = True
            own = vector.directions[layer] / scale  # (positions, d_model)
            rows = part[str(layer)]  # (vectors, positions, d_model)
            own32 = own[: rows.shape[1]].astype(np.float32).ravel()
            dots += rows.reshape(len(part), -1)[:, : len(own32)] @ own32
            theirs += part["squares"][:, at]
            mine += float(np.square(own).sum())
        sizes: NDArray[np.float64] = np.abs(dots) / np.sqrt(mine * theirs)
    sizes[(theirs < _SMALLEST) | (theirs > _LARGEST) | (mine < _SMALLEST)] = np.inf
    return sizes if shared else np.full(len(part), -1.0)


def _mapped(path: Path) -> Part | None:
    """The part in a file; a damaged file is deleted, and gives None."""
    try:
        if _checksum(path) == int(path.stem, 16):
            part: Part = np.load(path, mmap_mode="r").view(np.ndarray)
            return part
    except (OSError, ValueError):
        pass
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return None


def _checksum(path: Path) -> int:
    return zlib.crc32(np.memmap(path, np.uint8, "r").data)


def home() -> Path:
    """The directory with the caches of all stores."""
    return cache_directory() / "neighbours"


def _forget_stores_that_are_gone() -> None:
    for file in home().glob("*/store"):
        with contextlib.suppress(OSError, ValueError):
            if not Path(file.read_text("utf-8")).is_dir():
                shutil.rmtree(file.parent, ignore_errors=True)
