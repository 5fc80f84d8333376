"""Arrays without a format of their own: what their shapes and keys say about layers.

Used by every container of plain arrays: numpy's, torch's and safetensors'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from steerlab.core.display import some
from steerlab.errors import CorruptPayload
from steerlab.interop.foreign import Array, Foreign, Site, fact, foreign

_MOST = 10_000  # rows in one file

_KEYS: tuple[tuple[str, Site | None], ...] = (
    (r"blocks\.(\d+)\.hook_resid_pre", "input"),
    (r"blocks\.(\d+)\.hook_resid_post", "output"),
    (r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)", "output"),
    (r"base_model\.model\.model\.layers\.(\d+)\.mlp\.down_proj\.beft_bias", "output"),
    (r"(?:layer|l|direction|vector|steering_vector)?[ _.]?(\d+)", None),
)
"""Spelling of a key -> what its number means: TransformerLens, modules, PEFT, others."""


def vectors_of(format: str, arrays: Mapping[str, Array], what: str) -> list[Foreign]:
    """The vectors of named arrays.

    Keys that name layers make one vector of 1-d arrays; any other array is a vector of its own,
    named by its key: (d_model,), (layers, d_model) or (positions, layers, d_model). The key of an
    array alone is empty.
    Raises CorruptPayload for arrays that are no numbers, or of other shapes.
    """
    if not arrays:
        raise CorruptPayload(f"{what} holds no array")
    for key, array in arrays.items():
        if array.dtype.kind != "f":
            raise CorruptPayload(f"{what}: {_called(key)} holds {array.dtype}, not real numbers")
        if ".lora_" in key:
            raise CorruptPayload(f"{what} is a LoRA of PEFT, which changes weights: no vector")
    if sum(array.size // max((1, *array.shape[-1:])) for array in arrays.values()) > _MOST:
        raise CorruptPayload(f"{what} holds more than {_MOST} directions")
    placed = {key: place_of(key) for key in arrays}
    if all(found is not None for found in placed.values()):
        return [_of_layers(format, arrays, what)]
    if any(found is not None for found in placed.values()):
        strange = some([repr(key[:40]) for key, found in placed.items() if found is None])
        raise CorruptPayload(f"{what}: some keys name layers and others do not: {strange}")
    return [one for key, array in arrays.items() for one in _of_array(format, array, what, key)]


def place_of(key: str) -> tuple[int, Site | None] | None:
    """The layer number in a key, and what it means; None for a key that names no layer."""
    for pattern, site in _KEYS:
        if (found := re.fullmatch(pattern, key, re.ASCII | re.IGNORECASE)) and len(found[1]) < 6:
            return int(found[1]), site
    return None


def _of_layers(format: str, arrays: Mapping[str, Array], what: str) -> Foreign:
    places = {key: place_of(key) for key in arrays}
    sites = {place[1] for place in places.values() if place is not None}
    rows: dict[int | None, Array] = {
        place[0]: _flat(arrays[key]) for key, place in places.items() if place is not None
    }
    if len(rows) < len(arrays) or len(sites) > 1:
        raise CorruptPayload(f"{what} names a layer twice, or in two ways")
    return foreign(format, rows, what, site=sites.pop())


def _of_array(format: str, array: Array, what: str, name: str) -> list[Foreign]:
    """The vectors of one array, by its shape; name: of the vector, or empty."""
    shape = array.shape
    if not 1 <= array.ndim <= 3 or not array.size or array.size // shape[-1] > _MOST:
        raise CorruptPayload(f"{what}: {_called(name)} has shape {shape[:8]}, which no vector has")
    if array.ndim == 3 and shape[0] > 1:
        parts = [_of_array(format, part, what, "") for part in array]
        return [
            replace(one, name=f"{name}_position_{n}".strip("_"), facts=(fact("position", n),))
            for n, part in enumerate(parts)
            for one in part
        ]
    if array.size == shape[-1]:
        return [foreign(format, {None: array.reshape(-1)}, what, name=name)]
    rows: dict[int | None, Array] = dict(enumerate(array.reshape(-1, shape[-1])))
    return [foreign(format, rows, what, stacked=True, name=name)]


def _flat(array: Array) -> Array:
    """A (1, d_model) array as (d_model,), any other as it is."""
    return array[0] if array.ndim == 2 and len(array) == 1 else array


def _called(name: str) -> str:
    return f"the array {name[:60]!r}" if name else "the array"
