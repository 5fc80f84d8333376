"""The array of one layer: checks, rounding, padding and exact norms."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlab.core.recipe import ModelIdentity
from steerlab.errors import BadVector, NotFound

Array = NDArray[np.float64]
Scope = Literal["broadcast", "front"]

SMALLEST = float(np.finfo(np.float32).tiny)
"""A direction with a smaller norm counts as zero where it would be a divisor."""

_SOME = 65536


def layer_of(layer: object, model: ModelIdentity) -> int:
    """`layer` as an int; raises BadVector if it is none, NotFound if the model lacks it."""
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise BadVector(f"a layer is an integer, not {layer!r}")
    if not 0 <= layer < model.n_layers:
        raise NotFound(
            f"{model.source} has no layer {layer}: its layers are 0 to {model.n_layers - 1}"
        )
    return int(layer)


def direction(value: ArrayLike, layer: int, d_model: int, scope: str, exact: bool) -> Array:
    """A read-only float64 copy of shape (positions, d_model), without -0.0.

    exact: keep float64's precision; otherwise round to float32 first.
    Raises BadVector for values that float32 can't hold, and for a wrong shape or scope.
    """
    try:
        source = np.asarray(_on_cpu(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadVector(f"layer {layer} can't be read as an array: {error}") from None
    if source.dtype.kind not in "fiu":
        raise BadVector(f"layer {layer} holds {source.dtype} values, not real numbers")
    if not np.isfinite(source).all():
        raise BadVector(f"layer {layer} holds NaN or infinity")
    if scope not in ("broadcast", "front"):
        raise BadVector(f"scope {scope!r} is neither broadcast nor front")
    array = np.atleast_2d(source)
    if array.ndim != 2 or array.shape[1] != d_model or not len(array):
        raise BadVector(f"layer {layer} has shape {source.shape}: expected (positions, {d_model})")
    if scope == "broadcast" and len(array) != 1:
        raise BadVector(f"layer {layer} has {len(array)} positions: a broadcast vector has one")
    rounded = to_float32(array, layer).astype(np.float64)
    frozen = np.array(array, dtype=np.float64, order="C") + 0.0 if exact else rounded
    frozen.flags.writeable = False
    return frozen


def _on_cpu(value: Any) -> Any:
    """A tensor of torch as one that numpy reads: detached, and bfloat16 as float32."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def to_float32(array: NDArray[np.generic], layer: int) -> NDArray[np.float32]:
    """A contiguous little-endian float32 copy, -0.0 folded to 0.0; BadVector if it overflows.

    The one place where a vector is rounded; safetensors needs it contiguous.
    """
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.array(array, dtype="<f4", order="C")
    rounded += np.float32(0.0)
    if not np.isfinite(rounded).all():
        raise BadVector(f"layer {layer} holds values beyond float32: scale the vector down")
    return rounded


def padded(x: Array, y: Array) -> tuple[Array, Array]:
    """Both with as many rows as the longer one; zero rows are added at the end."""
    rows = max(len(x), len(y))
    grown = [np.pad(a, ((0, rows - len(a)), (0, 0))) if len(a) < rows else a for a in (x, y)]
    return grown[0], grown[1]


def dot(x: Array, y: Array) -> float:
    """Inner product over all entries, summed exactly, so the same on every machine."""
    return math.fsum(chain.from_iterable(_products(x, y)))


def _products(x: Array, y: Array) -> Iterator[list[float]]:
    """Products of entries in pieces: as Python floats they take four times the memory."""
    x, y = x.ravel(), y.ravel()
    for start in range(0, x.size, _SOME):
        yield (x[start : start + _SOME] * y[start : start + _SOME]).tolist()


def total_norm(arrays: Iterable[Array]) -> float:
    """Frobenius norm over several arrays, summed exactly."""
    products = chain.from_iterable(_products(x, x) for x in arrays)
    return math.sqrt(math.fsum(chain.from_iterable(products)))


def norm_of(x: Array) -> float:
    """Frobenius norm, summed exactly."""
    return math.sqrt(dot(x, x))


def measured(value: object, what: str, layer: int) -> float:
    """A measurement as a finite float; raises BadVector for NaN and infinity."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadVector(f"layer {layer}: the {what} is {value!r}, not a finite number")
    return number


def digest_of(
    arrays: Mapping[int, NDArray[np.floating]], model: ModelIdentity, scope: Scope
) -> str:
    """The digest of a vector with these arrays, the layers in order."""
    shapes = tuple((b, *array.shape) for b, array in arrays.items())
    sha = hashlib.sha256(_digest_header(model.key, scope, shapes))
    for b, array in arrays.items():  # rounded one at a time: together they are half as much
        sha.update(to_float32(array, b).tobytes())
    return sha.hexdigest()


@lru_cache(maxsize=64)
def _digest_header(
    model: tuple[object, ...], scope: Scope, shapes: tuple[tuple[int, ...], ...]
) -> bytes:
    """What a digest covers besides the numbers; shapes: layer, positions, width."""
    header = {
        "format": "steerlab.digest.1",
        "model": list(model),
        "scope": scope,
        "layers": [layer for layer, *_ in shapes],
        "shapes": [shape for _, *shape in shapes],
    }
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
