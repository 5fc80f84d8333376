"""Duplicates: stored vectors with the same bytes as another, or nearly its direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from steerlab.core.recipe import Expression
from steerlab.core.vector import SteeringVector
from steerlab.registry.neighbours import compared, read_arrays
from steerlab.registry.rows import find_model, refs_of
from steerlab.registry.tables import DIRECTION, VECTOR

NEAR = 0.98
"""The smallest absolute cosine that is reported."""

CANDIDATES = 200
"""The newest vectors of the same model and layers that are compared: what was saved lately is
what gets saved twice, and saving stays as fast in a store of 100,000."""

_MOST = 3


@dataclass(frozen=True)
class Duplicate:
    """A stored vector that another one repeats; cosine None where their digests are equal."""

    ref: str
    cosine: float | None

    def __str__(self) -> str:
        if self.cosine is None:
            return f"equals {self.ref}"
        return f"{self.cosine:.3f} cosine to {self.ref}"


def duplicates(
    connection: Connection, directory: Path, vector: SteeringVector, *, near: bool
) -> list[Duplicate]:
    """The first with an equal digest; if there are none and `near` is set, the nearest.

    Leaves out the vector itself, where it is stored, and the operands that it was made from.
    """
    model = find_model(connection, vector.model)
    if model is None:
        return []
    refs = refs_of(connection, vector.digest, model, VECTOR.c.id, limit=_MOST + 1)
    equal = [Duplicate(ref, None) for ref in refs if ref != vector.ref][:_MOST]
    if equal or not near:
        return equal
    return _near(connection, directory, vector, model)


def _near(
    connection: Connection, directory: Path, vector: SteeringVector, model: int
) -> list[Duplicate]:
    recipe = vector.recipe
    operands = {o.digest for o in recipe.operands} if isinstance(recipe, Expression) else set()
    ids = _candidates(connection, vector, model)
    found = [
        Duplicate(n.ref, n.cosine)
        for row, arrays in read_arrays(connection, directory, ids, vector)
        if row.digest not in operands and set(arrays) == set(vector.layers)
        for n in compared(vector, arrays, f"{row.name}.v{row.version}")
        if n.ref != vector.ref and abs(n.cosine) >= NEAR
    ]
    return sorted(found, key=lambda found: -abs(found.cosine or 0))[:_MOST]


def _candidates(connection: Connection, vector: SteeringVector, model: int) -> list[int]:
    """The newest vectors at the first of these layers and at no others."""
    v, d = VECTOR.c, DIRECTION.c
    layers = select(d.layer).where(d.vector_id == v.id)
    here = layers.where(d.layer == vector.layers[0]).exists()
    others = layers.where(d.layer.not_in(vector.layers)).exists()
    query = select(v.id).where(v.model_id == model, v.scope == vector.scope, here, ~others)
    newest = query.order_by(v.created.desc(), v.id.desc()).limit(CANDIDATES)
    return list(connection.execute(newest).scalars())
