"""Functions of steering vectors; sums, differences and weights are operators of the vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steerlab.core.direction import SMALLEST, Array, dot, norm_of, padded
from steerlab.core.notation import span
from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector, best_known, derived, layerwise
from steerlab.errors import BadExpression, BadOption, Incompatible

CONTROL_STREAM = 2**31
"""Ends the seeds of controls; those of vectors end with a layer, which is smaller."""


def unit(vector: SteeringVector) -> SteeringVector:
    """Rescale each layer to norm 1 (front tensors: Frobenius norm)."""
    norms = vector.norms()
    for b, norm in norms.items():
        if norm < SMALLEST:
            raise BadExpression(f"unit({vector}) is undefined: layer {b} is zero")
    arrays = {b: x / norms[b] for b, x in vector.directions.items()}
    return derived("unit({})", [vector], arrays)


def project(a: SteeringVector, b: SteeringVector) -> SteeringVector:
    """The part of `a` along `b`, layer by layer; zero where `b` is zero or missing."""
    return _projected("project", a, b, lambda _, along: along)


def reject(a: SteeringVector, b: SteeringVector) -> SteeringVector:
    """`a` without its part along `b`, layer by layer."""
    return _projected("reject", a, b, lambda x, along: x - along)


def _projected(
    name: str, a: SteeringVector, b: SteeringVector, keep: Callable[[Array, Array], Array]
) -> SteeringVector:
    a.check_compatible(b)
    if not set(a.directions) & set(b.directions):
        raise Incompatible(
            f"{name}({a}, {b}): they share no layer ({span(a.layers)} and {span(b.layers)})"
        )
    directions = {}
    for layer, x in a.directions.items():
        x, y = padded(x, b.directions.get(layer, np.zeros((1, a.model.d_model))))
        size = dot(y, y)
        along = y * (dot(x, y) / size) if size >= SMALLEST**2 else np.zeros_like(x)
        directions[layer] = keep(x, along)
    return derived(f"{name}({{}}, {{}})", [a, b], directions)


def mean(*vectors: SteeringVector) -> SteeringVector:
    """The layerwise mean; a layer missing in one of them counts as zero there."""
    if not vectors:
        raise BadExpression("mean() needs at least one vector")
    total = vectors[0].directions
    for vector in vectors[1:]:
        best_known(vectors).check_compatible(vector)
        total = layerwise(lambda x, y: x + y, total, vector.directions)
    template = f"mean({', '.join(['{}'] * len(vectors))})"
    return derived(template, vectors, {b: x / len(vectors) for b, x in total.items()})


def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A random direction with the norm of `vector` at every layer.

    Each layer is N(0, I) rescaled to the vector's norm there; rows of a front tensor that
    are zero stay zero. Seeded by (seed, layer), so one layer never depends on the others.
    Raises BadOption for a negative seed.
    """
    return _random(vector, seed, "random_like")


def control_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A random direction as `random_like` makes them, but never one that it makes.

    Controls have seeds of their own, so that a random vector is not among its own controls.
    """
    return _random(vector, seed, "control_like", CONTROL_STREAM)


def _random(vector: SteeringVector, seed: int, name: str, *stream: int) -> SteeringVector:
    if seed < 0:
        raise BadOption(f"a seed is a whole number from 0, not {seed}")
    arrays = {}
    for b, rows in vector.directions.items():
        noise = np.random.default_rng([seed, b, *stream]).standard_normal(rows.shape)
        noise[~rows.any(axis=1)] = 0.0
        size = norm_of(noise)
        arrays[b] = noise * (norm_of(rows) / size) if size else noise
    return SteeringVector(
        arrays,
        model=vector.model,
        scope=vector.scope,
        recipe=Imported(f"{name}({vector}, seed={seed})", "random"),
        residual_norms=vector.residual_norms,
    )


def is_raw_mean(vector: SteeringVector) -> bool:
    """Whether a vector is known to be a raw mean activation rather than a difference."""
    return isinstance(vector.recipe, Imported) and vector.recipe.quantity == "mean"
