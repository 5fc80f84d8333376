"""The extraction methods on activations that come window by window, in constant memory.

Each gives what its namesake in `methods` gives on all of them at once, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from steerlab.core.contrast import Contrast
from steerlab.extraction import methods
from steerlab.extraction.methods import Array, Undecided
from steerlab.extraction.spool import Spool


def direction(recipe: Contrast, spool: Spool, layer: int) -> Array:
    """The method's direction at a layer, (d_model,)."""
    if recipe.method == "mean_centred":
        others = (2,) if spool.sizes[2] else (0, 1)
        return _mean(spool, layer, 0) - _mean(spool, layer, *others)
    if recipe.method == "pca":
        return _pca(spool, layer)
    if recipe.method == "probe":
        return _probe(spool, layer)
    made = _mean(spool, layer, 0) - _mean(spool, layer, 1)
    if recipe.method == "random":
        size = float(np.linalg.norm(made))
        return methods.random_direction(size, spool.d_model, recipe.seed or 0, layer)
    return made


def largest_difference(spool: Spool, layer: int) -> float:
    """The largest norm of a pair's difference."""
    return max(float(np.linalg.norm(d, axis=1).max()) for d in _differences(spool, layer))


def diagnose(recipe: Contrast, spool: Spool, layer: int) -> dict[str, float]:
    """The figures of `methods.diagnose`, or of `methods.diagnose_sets` for unpaired sets."""
    n, m, _ = spool.sizes
    up, down = (_sum(spool.rows(layer, side)) for side in (0, 1))
    if recipe.is_paired:
        return methods.diagnosed(n, up - down, spool.pairs(layer))
    sides = spool.rows(layer, 0), spool.rows(layer, 1)
    return methods.diagnosed_sets((n, m), (up, down), sides)


def _sum(chunks: Iterable[Array]) -> Array:
    return np.asarray(sum(chunk.sum(axis=0) for chunk in chunks))


def _mean(spool: Spool, layer: int, *sides: int) -> Array:
    total = sum(_sum(spool.rows(layer, side)) for side in sides)
    return np.asarray(total / sum(spool.sizes[side] for side in sides))


def _differences(spool: Spool, layer: int) -> Iterator[Array]:
    return (x - y for x, y in spool.pairs(layer))


def _pca(spool: Spool, layer: int) -> Array:
    """The top eigenvector of the differences' uncentred scatter, (d_model, d_model)."""
    scatter = np.zeros((spool.d_model, spool.d_model))
    for d in _differences(spool, layer):
        scatter += d.T @ d
    found = np.linalg.eigh(scatter)[1][:, -1]
    margins = np.concatenate([d @ found for d in _differences(spool, layer)])
    return np.asarray(found * methods.sign_of(margins))


def _probe(spool: Spool, layer: int) -> Array:
    """Newton's method on the weights: the same steps as `methods.probe` takes on the pairs."""
    total = sum(float((d**2).sum()) for d in _differences(spool, layer))
    scale = np.sqrt(total / spool.sizes[0])
    if not scale:
        raise Undecided(methods.SAME)
    w = np.zeros(spool.d_model)
    for _ in range(50):
        slope, curve = w.copy(), np.eye(spool.d_model)
        for d in _differences(spool, layer):
            x = d / scale
            p = 1 / (1 + np.exp(x @ w))  # 1 - probability of the right label
            slope -= x.T @ p
            curve += (x * (p * (1 - p))[:, None]).T @ x
        step = np.linalg.solve(curve, slope)
        w -= step
        if np.abs(step).max() < 1e-12 * max(1.0, np.abs(w).max()):
            break
    return np.asarray(w / np.linalg.norm(w))
