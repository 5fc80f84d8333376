"""A map of the store: the directions of one model at one layer, projected on a plane by PCA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.errors import Cancelled, NotFound, SteerlabError
from steerlab.progress import Progress, ShouldStop, followed

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.queries import Summary

Array = NDArray[np.float64]

MOST = 2000
"""The largest number of vectors on a map; the newest are kept."""


@dataclass(frozen=True)
class MapPoint:
    """A vector's coordinates. ref: without its model ("love.v2"); kind: of its recipe."""

    ref: str
    x: float
    y: float
    kind: str = "contrast"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreMap:
    """The vectors of a model at a layer; nearby points tend to have similar directions.

    variance: the shares of the variance on the two axes, in [0, 1]. left_out: reason -> number
        of vectors that are not on the map.
    """

    model: str
    layer: int
    points: tuple[MapPoint, ...]
    variance: tuple[float, float]
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The map as JSON values."""
        return asdict(self)


def principal_plane(directions: Array) -> tuple[Array, tuple[float, float]]:
    """Project directions on the two axes of their largest variance (centred PCA).

    directions: (n, d_model), no zero rows; each is scaled to length 1. Returns coordinates
    (n, 2), signed so that the largest of each axis is positive, and each axis' share of the
    variance. Distances are at most those of the unit vectors, sqrt(2 - 2 cos).
    """
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    centred = units - units.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = np.zeros((len(units), 2))
    coordinates[:, : s[:2].size] = u[:, :2] * s[:2]
    for axis in range(2):
        column = coordinates[:, axis]
        if column[np.abs(column).argmax()] < 0:
            coordinates[:, axis] = -column
    total = float((s**2).sum())
    if total < 1e-20:  # all directions are the same
        return np.zeros_like(coordinates), (0.0, 0.0)
    shares = [*(s[:2] ** 2 / total), 0.0][:2]
    return coordinates, (float(shares[0]), float(shares[1]))


def store_map(
    store: Store,
    model: str | None = None,
    layer: int | None = None,
    *,
    tag: str | None = None,
    every_version: bool = False,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> StoreMap:
    """Map the stored vectors of a model at a layer.

    model: its name in the store; None takes the model with the most vectors. layer: None takes
    the layer where most of them have a direction.
    Raises NotFound for fewer than two directions, Cancelled.
    """
    name = _model(store, model)
    listed = store.list(model=name, tag=tag, every_version=every_version, sort="created")
    if layer is None:
        layer = _commonest_layer(listed)
    left_out: Counter[str] = Counter()
    taken = _taken(listed, layer, left_out)
    found: list[tuple[Summary, Array]] = []
    for done, summary in enumerate(followed(taken, progress)):
        if should_stop is not None and should_stop():
            raise Cancelled(f"cancelled after {done} of {len(taken)} vectors")
        direction = _direction(store, summary, layer)
        if direction is None:
            left_out["damaged or zero"] += 1
        else:
            found.append((summary, direction))
    if len(found) < 2:
        raise NotFound(
            f"{'1 vector' if found else 'no vectors'} of {name} at layer {layer}: a map takes at "
            "least two, so choose another layer or model"
        )
    coordinates, variance = principal_plane(np.stack([direction for _, direction in found]))
    points = tuple(
        MapPoint(_label(s, every_version), float(x), float(y), s.kind, s.tags)
        for (s, _), (x, y) in zip(found, coordinates, strict=True)
    )
    return StoreMap(name, layer, points, variance, dict(left_out))


def _model(store: Store, wanted: str | None) -> str:
    models = store.models()
    if not models:
        raise NotFound(f"nothing to map: {store.path} has no vectors yet")
    if wanted is None:
        return max(models, key=lambda m: m.vectors).name
    found = [m.name for m in models if wanted in (m.name, m.identity.source)]
    if not found:
        known = ", ".join(m.name for m in models)
        raise NotFound(f"no vectors of a model {wanted!r}: the store has {known}")
    return found[0]


def _commonest_layer(listed: Sequence[Summary]) -> int:
    counts = Counter(b for s in listed if s.scope == "broadcast" for b in s.layers)
    if not counts:
        raise NotFound("nothing to map: all vectors here are front vectors")
    most = max(counts.values())
    return min(b for b, count in counts.items() if count == most)


def _taken(listed: Sequence[Summary], layer: int, left_out: Counter[str]) -> list[Summary]:
    """Vectors with a direction at the layer; the newest if there are more than `MOST`."""
    found = []
    for summary in listed:
        if summary.scope != "broadcast":
            left_out["of scope front"] += 1
        elif layer not in summary.layers:
            left_out[f"without layer {layer}"] += 1
        else:
            found.append(summary)
    if len(found) > MOST:
        left_out["older"] += len(found) - MOST
        found = sorted(found, key=lambda s: s.created)[-MOST:]
    return sorted(found, key=lambda s: (s.name, s.version))


def _direction(store: Store, summary: Summary, layer: int) -> Array | None:
    try:
        direction = store.load(summary.qualified).directions[layer][0]
    except SteerlabError:
        return None
    return direction if np.linalg.norm(direction) > 0 else None


def _label(summary: Summary, every_version: bool) -> str:
    return summary.ref if every_version or summary.version > 1 else summary.name
