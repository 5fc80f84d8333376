"""Neighbours: the stored vectors that point the same way, or the opposite one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from steerlab.direction import padded
from steerlab.errors import SteerlabError
from steerlab.registry.files import Shelf
from steerlab.registry.queries import Filters, ids
from steerlab.registry.rows import Stored, read
from steerlab.registry.tables import VECTOR
from steerlab.vector import SteeringVector

_CHUNK = 400  # records that are in memory at a time


@dataclass(frozen=True)
class Neighbour:
    """A stored vector beside another: the cosine of what both have at the layers they share.

    cosines: that of each of the layers alone.
    """

    ref: str
    layers: tuple[int, ...]
    cosine: float
    cosines: tuple[float, ...] = ()


def similar(
    connection: Connection,
    directory: Path,
    row: int | None,
    vector: SteeringVector,
    *,
    limit: int,
    should_stop: Callable[[], bool] | None,
    progress: Callable[[int, int], object] | None,
) -> list[Neighbour]:
    """The largest cosines first, by size: an opposite is a neighbour too.

    Compared are the newest versions of its model and scope; damaged payloads are left out.
    row: the vector's own, which is no neighbour; None for one that is not stored.
    """
    rows = _candidates(connection, row, vector)
    shelf, found = Shelf(directory), list[Neighbour]()
    for start in range(0, len(rows), _CHUNK):
        for stored in _in_file_order(connection, rows[start : start + _CHUNK]):
            if should_stop is not None and should_stop():
                return _nearest(found, limit)
            try:
                found += beside(vector, shelf.load(stored), stored.qualified)
            except SteerlabError:
                continue
        found = _nearest(found, limit)
        if progress is not None:
            progress(min(start + _CHUNK, len(rows)), len(rows))
    return found


def _candidates(connection: Connection, row: int | None, vector: SteeringVector) -> list[int]:
    newest = ids(connection, Filters(model=vector.model), sort="created", reverse=False)
    scope = select(VECTOR.c.id).where(VECTOR.c.scope == vector.scope)
    fitting = set(connection.execute(scope).scalars())
    return [i for i in newest if i in fitting and i != row]


def _in_file_order(connection: Connection, rows: Sequence[int]) -> list[Stored]:
    return sorted(read(connection, rows).values(), key=lambda stored: stored.path)


def beside(vector: SteeringVector, other: SteeringVector, ref: str) -> list[Neighbour]:
    """The other vector beside this one; empty where they share no layer."""
    layers = tuple(b for b in vector.layers if b in other.directions)
    if not layers:
        return []
    found = []
    for b in layers:
        x, y = (part.ravel() for part in padded(vector.directions[b], other.directions[b]))
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
