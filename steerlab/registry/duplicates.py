"""What a new vector repeats: stored vectors with the same bytes, or nearly the same direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from steerlab.core.recipe import Expression
from steerlab.core.vector import Array, SteeringVector
from steerlab.errors import SteerlabError
from steerlab.registry import files
from steerlab.registry.neighbours import beside
from steerlab.registry.rows import find_model
from steerlab.registry.tables import DIRECTION, MODEL, VECTOR

NEAR = 0.98
"""The least cosine, of either sign, that is worth telling."""

CANDIDATES = 200
"""How many of the newest vectors of the same model and layer are compared: what was saved lately
is what gets saved twice, and saving stays as fast in a store of 100,000."""

_MOST = 3


@dataclass(frozen=True)
class Twin:
    """A stored vector that another one repeats; cosine None where they are equal by digest."""

    ref: str
    cosine: float | None

    def __str__(self) -> str:
        if self.cosine is None:
            return f"equals {self.ref}"
        return f"{self.cosine:.3f} cosine to {self.ref}"


def twins(
    connection: Connection, directory: Path, vector: SteeringVector, *, near: bool
) -> list[Twin]:
    """All that are equal; if there are none and `near` is set, the few that are closest.

    The vector itself, where it is stored, and the operands it was made from are left out.
    """
    model = find_model(connection, vector.model)
    if model is None:
        return []
    equal = select(VECTOR.c.name, VECTOR.c.version, VECTOR.c.model_id, MODEL.c.name)
    equal = equal.join(MODEL).where(VECTOR.c.digest == vector.digest).order_by(VECTOR.c.id)
    found = [
        f"{name}.v{version}" if owner == model else f"{other}.{name}.v{version}"
        for name, version, owner, other in connection.execute(equal.limit(_MOST + 1))
    ]
    same = [Twin(ref, None) for ref in found if ref != vector.ref][:_MOST]
    if same or not near:
        return same
    close = sorted(_near(connection, directory, vector, model), key=lambda t: -abs(t.cosine or 0))
    return close[:_MOST]


def _near(
    connection: Connection, directory: Path, vector: SteeringVector, model: int
) -> Iterator[Twin]:
    recipe = vector.recipe
    known = {o.digest for o in recipe.operands} if isinstance(recipe, Expression) else set()
    for name, version, digest, arrays in _candidates(connection, directory, vector, model):
        ref = f"{name}.v{version}"
        if ref == vector.ref or digest in known:
            continue
        try:
            other = SteeringVector(arrays, model=vector.model, scope=vector.scope)
        except SteerlabError:  # a damaged payload is for verify to tell
            continue
        neighbours = beside(vector, other.directions, ref)
        yield from (Twin(n.ref, n.cosine) for n in neighbours if abs(n.cosine) >= NEAR)


def _candidates(
    connection: Connection, directory: Path, vector: SteeringVector, model: int
) -> Iterator[tuple[str, int, str, Mapping[int, Array]]]:
    """Name, version, digest and arrays of the newest vectors that have exactly these layers."""
    v, d = VECTOR.c, DIRECTION.c
    layers = select(d.layer).where(d.vector_id == v.id)
    here = layers.where(d.layer == vector.layers[0]).exists()
    others = layers.where(d.layer.not_in(vector.layers)).exists()
    query = select(v.name, v.version, v.digest, v.path, v.key)
    query = query.where(v.model_id == model, v.scope == vector.scope, here, ~others)
    newest = connection.execute(query.order_by(v.created.desc(), v.id.desc()).limit(CANDIDATES))
    for row, arrays in files.arrays_of(directory, newest, lambda row: vector.layers):
        if arrays is not None:
            yield row.name, row.version, row.digest, arrays
