"""Neighbours: the stored vectors with the largest cosines to one, opposites included.

A cache ranks them in float32's precision, and only the nearest are computed in float64, from arrays
that have their digest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, String, func, select

from steerlab.core.direction import digest_of, padded
from steerlab.core.vector import SteeringVector
from steerlab.errors import StoreError
from steerlab.progress import Progress, ShouldStop
from steerlab.registry import files
from steerlab.registry.database import Database
from steerlab.registry.direction_cache import Arrays, DirectionCache
from steerlab.registry.queries import Model
from steerlab.registry.refs import resolve
from steerlab.registry.rows import Stored, find_model, read
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import DIRECTION, MODEL, VECTOR

_BATCH = 2000  # vectors cached at a time
_TRIES = 3  # to fill a cache that turns out to be damaged
_MARGIN = 1e-4  # more than the error of a float32 cosine


@dataclass(frozen=True)
class Neighbour:
    """A stored vector and its cosine to another, over the layers that both have.

    cosines: layer by layer.
    """

    ref: str
    layers: tuple[int, ...]
    cosine: float
    cosines: tuple[float, ...] = ()


class Neighbours:
    """Searches in one store; the index of the last one is kept while nothing is written."""

    def __init__(
        self, database: Database, directory: Path, load: Callable[[Stored], SteeringVector]
    ) -> None:
        self._database, self._directory, self._load = database, directory, load
        self._known: tuple[Hashable, NeighbourIndex | None] = (None, None)

    def of(
        self,
        of: str | SteeringVector,
        model: Model,
        limit: int,
        should_stop: ShouldStop,
        progress: Progress,
    ) -> list[Neighbour]:
        """The nearest to a ref or a vector; see `Store.similar`."""
        row: int | None = None
        stamp = self._database.stamp()  # before the snapshot: a later commit must be noticed
        with self._database.reading() as connection:
            if isinstance(of, str):
                row = resolve(connection, of, model)
                vector = self._load(read(connection, [row])[row])
            else:
                vector = of
            known, index = self._known
            if index is None or known != stamp or not index.covers(vector):
                index = NeighbourIndex(connection, self._directory, vector)
                self._known = (stamp, index)
            return index.nearest(connection, vector, limit, row, should_stop, progress)


class NeighbourIndex:
    """The vectors of one model and scope at one moment: the newest version of each name."""

    def __init__(self, connection: Connection, directory: Path, of: SteeringVector) -> None:
        self._directory, self._key = directory, (of.model.key, of.scope)
        v = VECTOR.c
        query = select(v.id, v.digest).where(v.newest.is_(True), v.scope == of.scope)
        query = query.where(v.model_id == find_model(connection, of.model)).order_by(v.id)
        rows = connection.execute(query).all()
        self._ids = np.array([row.id for row in rows], np.int64)
        self._digests = [row.digest for row in rows]
        self._cache = DirectionCache(directory, of.model, of.scope)
        self._entries = np.full(len(rows), -1)  # in the cache; -1: not there
        self._complete, self._lock = False, threading.Lock()

    def covers(self, vector: SteeringVector) -> bool:
        """Whether a vector has the model and scope of this index."""
        return self._key == (vector.model.key, vector.scope)

    def nearest(
        self,
        connection: Connection,
        vector: SteeringVector,
        limit: int,
        exclude: int | None,
        should_stop: ShouldStop,
        progress: Progress,
    ) -> list[Neighbour]:
        """The largest absolute cosines first; vectors whose payloads are damaged are left out.

        exclude: the id of a vector that is no neighbour.
        """
        for _ in range(_TRIES):
            with self._lock:
                known = self._complete or self._fill(connection, vector, should_stop, progress)
                self._complete = known
            found = self._ranked(connection, vector, limit, exclude)
            if found is not None:
                return found
            self._complete = False
            self._cache.discard()
        raise StoreError(f"{self._cache.directory} is damaged again and again: delete it")

    def _fill(
        self, connection: Connection, of: SteeringVector, should_stop: ShouldStop, tell: Progress
    ) -> bool:
        """Cache what is missing, unless told to stop; returns whether that came to an end."""
        self._cache.open()
        missing = self._missing()
        if missing and len(self._cache.entries) > 2 * len(self._ids):
            self._cache.discard()
            missing = self._missing()
        done = len(self._ids) - len(missing)
        for start in range(0, len(missing), _BATCH):
            if should_stop():
                break
            batch = missing[start : start + _BATCH]
            read = read_arrays(connection, self._directory, batch, of)
            self._cache.add({row.digest: arrays for row, arrays in read})
            done += len(batch)
            tell(done, len(self._ids))
        if missing:
            self._cache.open()
            self._missing()
        return done == len(self._ids)

    def _missing(self) -> list[int]:
        """Look the vectors up in the cache; returns an id for each digest that it lacks."""
        known = self._cache.entries
        self._entries = np.array([known.get(digest, -1) for digest in self._digests], np.intp)
        rows = zip(self._ids.tolist(), self._digests, strict=True)
        return list({digest: row for row, digest in rows if digest not in known}.values())

    def _ranked(
        self, connection: Connection, vector: SteeringVector, limit: int, exclude: int | None
    ) -> list[Neighbour] | None:
        """The nearest of those that are cached; None if one of them is damaged."""
        sizes = np.append(self._cache.cosines(vector), -1.0)[self._entries]
        if exclude is not None:
            sizes[self._ids == exclude] = -1.0
        chosen = np.flatnonzero(sizes >= _bound(sizes, limit))
        refs, found = _refs(connection, self._ids[chosen].tolist()), []
        for at in chosen.tolist():
            arrays = self._cache.directions(int(self._entries[at]))
            if not _intact(arrays, self._digests[at], vector):
                return None
            found += compared(vector, arrays, refs[int(self._ids[at])])
        return sorted(found, key=lambda n: (-abs(n.cosine), n.ref))[:limit]


def _bound(sizes: NDArray[np.float64], limit: int) -> float:
    """The least float32 size that one of the `limit` largest may have; infinity stands for any."""
    finite = sizes[np.isfinite(sizes)]
    least = np.partition(finite, -limit)[-limit] if len(finite) > limit > 0 else 0.0
    return max(float(least) - _MARGIN, 0.0)


def read_arrays(
    connection: Connection, directory: Path, ids: Sequence[int], of: SteeringVector
) -> Iterator[tuple[Row[Any], Arrays]]:
    """Rows (id, name, version, digest) with arrays, of vectors with the model and scope of `of`.

    Damaged payloads are left out.
    """
    v, layer = VECTOR.c, DIRECTION.c.layer.cast(String)
    columns = (v.id, v.name, v.version, v.digest, v.path, v.key)
    query = select(*columns, func.aggregate_strings(layer, ",").label("layers"))
    query = query.join_from(VECTOR, DIRECTION).group_by(v.id)
    rows = connection.execute(query.where(v.id.in_(GIVEN)), given(ids))
    for row, arrays in files.arrays_of(directory, rows, _layers):
        if arrays is not None and _intact(arrays, row.digest, of):
            yield row, arrays


def _layers(row: Row[Any]) -> list[int]:
    return sorted(map(int, row.layers.split(",")))


def _intact(arrays: Arrays, digest: str, of: SteeringVector) -> bool:
    floats = all(array.dtype == np.float32 for array in arrays.values())
    return floats and digest_of(arrays, of.model, of.scope) == digest


def _refs(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Id -> ref with its model."""
    v = VECTOR.c
    query = select(v.id, MODEL.c.name, v.name, v.version).join_from(VECTOR, MODEL)
    found = connection.execute(query.where(v.id.in_(GIVEN)), given(ids))
    return {row: f"{model}.{name}.v{version}" for row, model, name, version in found}


def compared(
    vector: SteeringVector, other: Mapping[int, NDArray[np.floating]], ref: str
) -> list[Neighbour]:
    """A vector's neighbour of these arrays and ref; empty where they share no layer."""
    layers = tuple(b for b in vector.layers if b in other)
    if not layers:
        return []
    products = np.empty((len(layers), 3))  # x·y, x·x, y·y
    for i, b in enumerate(layers):
        arrays = padded(vector.directions[b], other[b].astype(np.float64))
        x, y = (array.ravel() for array in arrays)
        products[i] = x @ y, x @ x, y @ y
    cosines = tuple(map(_cosine, products))
    return [Neighbour(ref, layers, _cosine(products.sum(axis=0)), cosines)]


def _cosine(products: NDArray[np.float64]) -> float:
    size = np.sqrt(products[1] * products[2])
    return float(products[0] / size) if size else 0.0
