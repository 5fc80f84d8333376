"""Vectors in JSON: .svec of IBM and AISteer360, Neuronpedia's requests, vllm-lens's requests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, CorruptPayload, Incompatible
from steerlab.files.limits import from_json
from steerlab.interop.foreign import (
    Array,
    Foreign,
    Site,
    UnknownFile,
    fact,
    foreign,
    outputs_of,
    shortened,
    single_row,
)

_MOST = 1000  # vectors of one request
_LONGEST_WIDE = 4_000_000  # bytes of text that may take four bytes a character
_HOOKS: dict[str, Site] = {"residpre": "input", "residpost": "output"}


def read(data: bytes, what: str) -> list[Foreign]:
    """The vectors of a JSON file; raises UnknownFile for JSON of no layout that is read."""
    try:
        if len(data) > _LONGEST_WIDE and not data.isascii():
            raise ValueError(f"{len(data)} bytes that are not ASCII, where numbers are expected")
        value = from_json(data.decode("utf-8"), unique=True)
    except ValueError as error:
        # JSON lines, or a text or a template that begins like JSON
        other = str(error).startswith("Extra data") or getattr(error, "pos", 2) < 2
        kind = UnknownFile if other else CorruptPayload
        raise kind(f"{what} is not whole JSON: {shortened(error)}") from None
    if isinstance(value, dict) and "directions" in value:
        return [_of_svec(value, what)]
    if isinstance(value, dict) and "hookType" in value:
        return [_of_neuronpedia(value, what)]
    lens = {"activations", "layer_indices"}
    several = isinstance(value, list) and 0 < len(value) <= _MOST
    if several and all(isinstance(one, dict) and lens <= one.keys() for one in value):
        return [_of_lens(entry, what) for entry in value]
    raise UnknownFile(f"{what} is JSON, but of no layout of vectors that steerlab knows")


def _of_svec(value: Mapping[str, Any], what: str) -> Foreign:
    """Directions by block, which both programs take from its output."""
    directions = value["directions"]
    if not isinstance(directions, dict):
        raise CorruptPayload(f"{what} has directions that are no object of layers")
    rows: dict[int | None, Array] = {}
    for key, entry in directions.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 6) or int(key) in rows:
            raise CorruptPayload(f"{what} has directions of layer {key[:40]!r}")
        rows[int(key)] = _numbers(entry, f"{what}: layer {key}")
    architecture = value.get("model_type")
    return foreign(
        "svec",
        rows,
        what,
        site="output",
        architecture=architecture[:60] if isinstance(architecture, str) else "",
    )


def _of_neuronpedia(value: Mapping[str, Any], what: str) -> Foreign:
    """A request to /api/vector/new: one direction at one hook."""
    hook, layer = value["hookType"], value.get("layerNumber")
    spelled = hook.lower().removeprefix("hook") if isinstance(hook, str) else ""
    site = _HOOKS.get(spelled.replace("_", "").replace("-", ""))
    if site is None:
        raise Incompatible(f"{what} acts at {str(hook)[:40]!r}, where steerlab does not steer")
    if type(layer) is not int or not 0 <= layer < 10_000:
        raise CorruptPayload(f"{what} has the layer {str(layer)[:40]!r}")
    label, model = value.get("vectorLabel"), value.get("modelId")
    return foreign(
        "neuronpedia",
        {layer: _numbers(value.get("vector"), what)},
        what,
        site=site,
        name=label if isinstance(label, str) else "",
        model=model if isinstance(model, str) else "",
        facts=_stated(value, {"coefficient": "vectorDefaultSteerStrength"}),
    )


def _of_lens(entry: Mapping[str, Any], what: str) -> Foreign:
    """A request of vllm-lens: a row of activations for each of some blocks."""
    if entry.get("norm_match") or entry.get("position_indices") is not None:
        raise Incompatible(
            f"{what} matches norms or names positions, which a vector of steerlab can't hold"
        )
    layers, rows = entry["layer_indices"], entry["activations"]
    if not isinstance(layers, list) or not isinstance(rows, list) or len(layers) != len(rows):
        raise CorruptPayload(f"{what} has not one row of activations for each layer")
    if not all(type(n) is int and 0 <= n < 10_000 for n in layers) or len({*layers}) < len(layers):
        raise CorruptPayload(f"{what} has layers that are no numbers, or one twice")
    found = {n: _numbers(row, what) for n, row in zip(layers, rows, strict=True)}
    facts = _stated(entry, {"coefficient": "scale"})
    return foreign("vllm-lens", found, what, site="output", facts=facts)


def _numbers(value: Any, where: str) -> Array:
    """A list of numbers, or a list of one such list, as float64."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        raise CorruptPayload(f"{where} is no list of numbers, one for each entry of a direction")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        raise CorruptPayload(f"{where} holds a number beyond all floats") from None


def _stated(value: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[str, ...]:
    found = {name: value.get(key) for name, key in keys.items()}
    return tuple(fact(name, x) for name, x in found.items() if type(x) in (int, float))


# writing


def write_neuronpedia(vector: SteeringVector, coefficient: float) -> bytes:
    """The body of a request to Neuronpedia's /api/vector/new."""
    layer, row = single_row(vector, "a request to Neuronpedia")
    return _json(
        {
            "modelId": vector.model.source,
            "layerNumber": layer,
            "hookType": "hook_resid_pre",
            "vector": row.tolist(),
            "vectorDefaultSteerStrength": _finite(coefficient),
            "vectorLabel": str(vector),
        }
    )


def write_lens(vector: SteeringVector, coefficient: float) -> bytes:
    """The steering vectors of a request to vllm-lens."""
    rows = outputs_of(vector, "a request to vllm-lens")
    return _json(
        [
            {
                "activations": [row.tolist() for row in rows.values()],
                "layer_indices": list(rows),
                "scale": _finite(coefficient),
                "norm_match": False,
                "position_indices": None,
            }
        ]
    )


def _finite(coefficient: float) -> float:
    if not math.isfinite(coefficient):
        raise BadOption(f"a coefficient of {coefficient} is no number")
    return float(coefficient)


def _json(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"
