"""Neighbours: the stored vectors that point the same way, or the opposite one.

Among many, an index says which few are near to float32's precision (`matrices`); what is told of
them is computed in float64 from arrays that have their digest. Among few, or where the index can't
be kept, each payload is read.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from steerlab.core.direction import padded
from steerlab.core.vector import SteeringVector, digest_of
from steerlab.errors import SteerlabError
from steerlab.registry import files
from steerlab.registry.matrices import Arrays, BrokenIndex, Matrices
from steerlab.registry.rows import chunks, find_model, read
from steerlab.registry.tables import DIRECTION, VECTOR

INDEXED = 1000
"""Vectors of a model and scope from which on an index is kept: fewer are read in a second."""

_BATCH = 2000  # vectors that go into the index at a time
_MARGIN = 1e-4  # more than float32 errs in a cosine
_SECONDS = 20.0  # to wait for another process that fills the index

ShouldStop = Callable[[], bool] | None
Progress = Callable[[int, int], object] | None


@dataclass(frozen=True)
class Neighbour:
    """A stored vector beside another: the cosine of what both have at the layers they share.

    cosines: that of each of the layers alone.
    """

    ref: str
    layers: tuple[int, ...]
    cosine: float
    cosines: tuple[float, ...] = ()


class Field:
    """The vectors of one model and scope, at one moment: the newest version of each name.

    entries: where each is in the index; -1 for those that are not.
    """

    def __init__(self, connection: Connection, directory: Path, of: SteeringVector) -> None:
        self.directory, self.model, self.scope = directory, of.model, of.scope
        v = VECTOR.c
        query = select(v.id, v.digest).where(v.newest.is_(True), v.scope == of.scope)
        query = query.where(v.model_id == find_model(connection, of.model)).order_by(v.id)
        rows = connection.execute(query).all()
        self.ids = np.array([row.id for row in rows], np.int64)
        self.digests = [row.digest for row in rows]
        self.entries = np.full(len(rows), -1)
        self.matrices = Matrices(directory, of.model, of.scope)
        self._complete, self._turn = False, threading.Lock()

    def indexed(
        self, connection: Connection, should_stop: ShouldStop = None, progress: Progress = None
    ) -> bool:
        """Bring the index up to date, as far as payloads can be read; False if there is none."""
        if len(self.ids) < INDEXED:
            return False
        with self._turn:
            if not self._complete:
                try:
                    self._complete = self._update(connection, should_stop, progress)
                except OSError:  # a cache that can't be written, or in which another is busy
                    return False
        return True

    def _update(self, connection: Connection, should_stop: ShouldStop, progress: Progress) -> bool:
        """Put into the index what it lacks, and say whether that came to an end."""
        self.matrices.open()
        if not self._missing():
            return True
        with self.matrices.locked(_SECONDS):
            self.matrices.open()  # another process may have been faster
            if not self.matrices.known or len(self.matrices.known) > 2 * len(self.ids):
                self.matrices.discard()
            missing = self._missing()
            done = len(self.ids) - len(missing)
            for start in range(0, len(missing), _BATCH):
                if should_stop is not None and should_stop():
                    break
                batch = missing[start : start + _BATCH]
                found = {digest: arrays for _, digest, arrays in self.read(connection, batch)}
                self.matrices.add(list(found.items()))
                done += len(batch)
                if progress is not None:
                    progress(done, len(self.ids))
            self.matrices.open()
        self._missing()
        return done == len(self.ids)

    def holds(self, vector: SteeringVector) -> bool:
        """Whether a vector is of this model and scope."""
        return (self.model.key, self.scope) == (vector.model.key, vector.scope)

    def vector(self, row: int) -> SteeringVector | None:
        """The vector of a row, where the index has it."""
        at = int(np.searchsorted(self.ids, row))
        if at == len(self.ids) or self.ids[at] != row or self.entries[at] < 0:
            return None
        arrays = self.matrices.directions(int(self.entries[at]))
        if not self.has_digest(arrays, self.digests[at]):
            return None
        return SteeringVector(arrays, model=self.model, scope=self.scope)

    def distrust(self) -> None:
        """Forget the index: the next question fills it anew."""
        self._complete = False
        with contextlib.suppress(OSError), self.matrices.locked(_SECONDS):
            self.matrices.discard()

    def _missing(self) -> list[int]:
        """A row for each digest that the index lacks; where the others are in it is known now."""
        known = self.matrices.known
        self.entries = np.array([known.get(digest, -1) for digest in self.digests])
        rows = zip(self.ids, self.digests, strict=True)
        return list({digest: int(row) for row, digest in rows if digest not in known}.values())

    def read(self, connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, str, Arrays]]:
        """Id, digest and arrays of these vectors, checked; damaged payloads are left out."""
        v, layers = VECTOR.c, _layers(connection, ids)
        query = select(v.id, v.digest, v.path, v.key)
        rows = [
            row for chunk in chunks(ids) for row in connection.execute(query.where(v.id.in_(chunk)))
        ]
        for row, arrays in files.arrays_of(self.directory, rows, lambda row: layers[row.id]):
            if arrays is None or not self.has_digest(arrays, row.digest):
                arrays = self._found_by_digest(connection, row.id)
            if arrays is not None:
                yield row.id, row.digest, arrays

    def has_digest(self, arrays: Arrays, digest: str) -> bool:
        """Whether arrays are the ones of a digest."""
        return (
            all(array.dtype == np.float32 for array in arrays.values())
            and digest_of(arrays, self.model, self.scope) == digest
        )

    def _found_by_digest(self, connection: Connection, row: int) -> Arrays | None:
        """A crash may leave a vector in its file under another name than in its row."""
        try:
            return files.load(self.directory, read(connection, [row])[row]).float32()
        except SteerlabError:
            return None


def _layers(connection: Connection, ids: Sequence[int]) -> Mapping[int, list[int]]:
    d = DIRECTION.c
    found: dict[int, list[int]] = defaultdict(list)
    for chunk in chunks(ids):
        query = select(d.vector_id, d.layer).where(d.vector_id.in_(chunk))
        for row, layer in connection.execute(query.order_by(d.vector_id, d.layer)):
            found[row].append(layer)
    return found


def similar(
    connection: Connection,
    field: Field,
    row: int | None,
    vector: SteeringVector,
    *,
    limit: int,
    should_stop: ShouldStop,
    progress: Progress,
) -> list[Neighbour]:
    """The largest cosines first, by size: an opposite is a neighbour too.

    Damaged payloads are left out.
    row: the vector's own, which is no neighbour; None for one that is not stored.
    """
    if field.indexed(connection, should_stop, progress):
        with contextlib.suppress(BrokenIndex):
            return _by_index(connection, field, row, vector, limit)
    return _by_reading(connection, field, row, vector, limit, should_stop, progress)


def _by_index(
    connection: Connection, field: Field, row: int | None, vector: SteeringVector, limit: int
) -> list[Neighbour]:
    sizes, indexed = np.full(len(field.ids), -1.0), field.entries >= 0
    sizes[indexed] = field.matrices.cosines(vector)[field.entries[indexed]]
    if row is not None:
        sizes[field.ids == row] = -1.0
    part = _largest(sizes, np.arange(0, len(sizes), 16), limit)  # few, and the largest of all
    chosen = _largest(sizes, part, limit)
    refs = _refs(connection, field.ids[chosen].tolist())
    found = []
    for at in chosen:
        arrays = field.matrices.directions(int(field.entries[at]))
        if not field.has_digest(arrays, field.digests[at]):
            field.distrust()
            raise BrokenIndex
        found += beside(vector, arrays, refs[int(field.ids[at])])
    return _nearest(found, limit)


def _largest(sizes: NDArray[np.float64], among: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """Where the `limit` largest sizes may be, by what some of them are; infinity may be any."""
    some = sizes[among]
    some = some[np.isfinite(some)]
    beyond = len(some) - limit
    least = float(np.partition(some, beyond)[beyond]) if beyond > 0 else 0.0
    return np.flatnonzero(sizes >= max(least - _MARGIN, 0.0))


def _by_reading(
    connection: Connection,
    field: Field,
    row: int | None,
    vector: SteeringVector,
    limit: int,
    should_stop: ShouldStop,
    progress: Progress,
) -> list[Neighbour]:
    rows = [int(i) for i in field.ids if i != row]
    found = list[Neighbour]()
    done = 0
    for chunk in chunks(rows):
        refs = _refs(connection, chunk)
        for other, _, arrays in field.read(connection, chunk):
            if should_stop is not None and should_stop():
                return _nearest(found, limit)
            found += beside(vector, arrays, refs[other])
        found, done = _nearest(found, limit), done + len(chunk)
        if progress is not None:
            progress(done, len(rows))
    return found


def _refs(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """The refs of rows, with their model."""
    return {
        row: f"{model}.{name}.v{version}"
        for chunk in chunks(ids)
        for row, model, name, version in connection.exec_driver_sql(
            _REFS.format(", ".join("?" * len(chunk))), tuple(chunk)
        )
    }


_REFS = (
    "SELECT vector.id, model.name, vector.name, vector.version FROM vector"
    " JOIN model ON model.id = model_id WHERE vector.id IN ({})"
)


def beside(
    vector: SteeringVector, other: Mapping[int, NDArray[np.floating]], ref: str
) -> list[Neighbour]:
    """The directions of another vector beside this one's; empty where they share no layer."""
    layers = tuple(b for b in vector.layers if b in other)
    if not layers:
        return []
    found = []
    for b in layers:
        arrays = padded(vector.directions[b], other[b].astype(np.float64))
        x, y = (part.ravel() for part in arrays)
        found.append((x @ y, x @ x, y @ y))
    products = np.array(found)  # (layers, 3)
    cosines = tuple(_cosine(row) for row in products)
    return [Neighbour(ref, layers, _cosine(products.sum(axis=0)), cosines)]


def _cosine(products: NDArray[np.float64]) -> float:
    """products: x·y, x·x, y·y."""
    size = np.sqrt(products[1] * products[2])
    return float(products[0] / size) if size else 0.0


def _nearest(found: Sequence[Neighbour], limit: int) -> list[Neighbour]:
    return sorted(found, key=lambda n: (-abs(n.cosine), n.ref))[:limit]
