"""Payload files as a stranger would forge them: every layer of the format, mended or not.

A forgery that is caught by a checksum says little about what comes after it: most of these have
their digests, norms and checksum computed anew, so that they reach as far as they can.
"""

from __future__ import annotations

import hashlib
import json
import struct
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np

from steerlab.core.recipe import Imported, ModelIdentity
from steerlab.core.record import Record, canonical_json, record_of
from steerlab.core.vector import SteeringVector
from steerlab.files.header import METADATA_KEY
from steerlab.files.payload import FORMAT, encode
from steerlab.registry.saving import rounded
from tests.fuzz import hostile
from tests.registry.samples import OTHER, vector

Tensors = dict[str, tuple[str, list[Any], bytes]]


@dataclass
class Parts:
    """A payload taken apart. tensors: name -> (dtype, shape, bytes)."""

    records: list[dict[str, Any]]
    tensors: Tensors
    metadata: dict[str, Any] = field(default_factory=lambda: {"format": FORMAT})


def parts_of(*vectors: tuple[str, SteeringVector]) -> Parts:
    """What `payload.encode` would put together."""
    records, tensors = [], {}
    for name, found in vectors:
        record = record_of(found, name, 1, tags=("feeling",), note="the first")
        records.append({"key": record.qualified, **json.loads(json.dumps(record.to_json()))})
        for b, array in found.float32().items():
            tensors[f"{record.qualified}/{b}"] = ("F32", list(array.shape), array.tobytes())
    return Parts(records, tensors)


@cache
def bases() -> tuple[Parts, ...]:
    """One vector; a family with expressions; a front vector; two models; nothing."""

    def named(ref: str, seed: int) -> SteeringVector:
        return vector(seed, ref=f"{ref}.v1")

    love, anger = named("love", 1), named("anger", 2)
    warm = love - 0.5 * anger
    front = SteeringVector(
        {1: np.arange(24.0).reshape(3, 8)}, model=OTHER, scope="front", recipe=Imported("a.pt")
    )
    return (
        parts_of(("love", love)),
        parts_of(("love", love), ("anger", anger), ("warm", warm), ("half", warm / 2)),
        parts_of(("warm", warm)),
        parts_of(("front", front)),
        parts_of(("love", love), ("front", front)),
        Parts([], {}),
    )


def whole(parts: Parts) -> bytes:
    """The file, with its checksum."""
    metadata = {**parts.metadata, "vectors": parts.records}
    metadata.setdefault("sha256", _checksum(parts.records))
    return file_of(_header(parts.tensors, json.dumps(metadata)), _data(parts.tensors))


def forged(random: Random) -> tuple[bytes, str]:
    """A payload that was tampered with, and in which way."""
    parts = deepcopy(random.choice(bases()))
    kind = random.choice(("record", "record", "text", "text", "tensors", "header", "json", "bytes"))
    metadata: str | None = None
    if kind == "record":
        hostile.change_tree(random, parts.records, random.choice((1, 1, 2, 4)))
        _mend(random, parts)
    elif kind == "text":
        _change_texts(random, parts)
        _mend(random, parts)
    elif kind == "tensors":
        for _ in range(random.choice((1, 1, 2))):
            _change_tensors(random, parts)
        _mend(random, parts)
    elif kind == "json":
        metadata = hostile.change_json(random, _metadata(random, parts))
    header = _header(parts.tensors, metadata or _metadata(random, parts))
    data = _data(parts.tensors)
    if kind == "header":
        _change_header(random, header)
    made = file_of(header, data, random if kind == "header" else None)
    if kind == "bytes" or random.random() < 0.05:
        made = hostile.change_bytes(random, made, whole(random.choice(bases())))
    return made, kind


@cache
def entries() -> tuple[tuple[Record, SteeringVector], ...]:
    """Vectors as they are stored: a contrast, an expression, a front tensor, many layers."""
    love, anger = (vector(seed, ref=f"{name}.v1") for seed, name in ((1, "love"), (2, "anger")))
    found = {
        "love": love,
        "warm": rounded(love - 0.5 * anger, "warm.v1"),
        "front": vector(scope="front", ref="front.v1"),
        "wide": vector(3, *range(6), ref="wide.v1"),
    }
    return tuple((record_of(v, name, 1, note="the first"), v) for name, v in found.items())


def tampered(random: Random) -> bytes:
    """A file as `payload.encode` writes it, but for some bytes, or for what its header says."""
    made = encode(entries())
    if random.random() < 0.5:
        return hostile.change_bytes(random, made, made)
    end = 8 + int.from_bytes(made[:8], "little")
    header = json.loads(made[8:end])
    _change_header(random, header)
    return file_of(json.dumps(header, separators=(",", ":")).encode(), made[end:], random)


def friendly(random: Random) -> bytes:
    """A payload that nothing is wrong with but its texts, which say anything at all."""
    parts = deepcopy(random.choice(bases()))
    _change_texts(random, parts)
    for record in parts.records:
        _mend_record(parts, record)
    return file_of(
        _header(parts.tensors, _metadata(random, parts, sure=True)), _data(parts.tensors)
    )


def file_of(header: Any, data: bytes, random: Random | None = None) -> bytes:
    """Length, header and data; with `random`, the length may lie."""
    text = header if isinstance(header, bytes) else hostile.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    length = len(text)
    if random is not None and random.random() < 0.3:
        length = random.choice((0, 1, length - 1, length + 1, 2**31, 2**60, 2**63, 2**64 - 1))
    return struct.pack("<Q", max(length, 0)) + text + data


def _header(tensors: Tensors, metadata: str) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: metadata}}
    start = 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [start, start + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        start += len(data)
    return header


def _data(tensors: Tensors) -> bytes:
    return b"".join(data for _, _, data in tensors.values())


def _metadata(random: Random, parts: Parts, sure: bool = False) -> str:
    metadata = {**parts.metadata, "vectors": parts.records}
    if sure or random.random() < 0.9:
        metadata["sha256"] = _checksum(parts.records)
    else:
        hostile.change_tree(random, metadata)
    return hostile.dumps(metadata)


def _checksum(records: Any) -> str:
    try:
        return hashlib.sha256(canonical_json(records).encode()).hexdigest()
    except (ValueError, TypeError, RecursionError):
        return "0" * 64


def _change_texts(random: Random, parts: Parts) -> None:
    """Hostile strings and numbers where the format expects strings and numbers."""
    for record in parts.records:
        found = list(hostile.places(record))
        for container, key in random.sample(found, min(len(found), random.choice((1, 3, 8)))):
            if isinstance(container[key], str) and key not in ("scope", "kind", "digest", "key"):
                container[key] = hostile.text(random)
            elif type(container[key]) is int and random.random() < 0.2:
                container[key] = random.choice([n for n in hostile.NUMBERS if type(n) is int])
        recipe = record["recipe"]
        if recipe.get("kind") == "expression" and random.random() < 0.5:
            recipe["text"] = random.choice(hostile.EXPRESSIONS)
        if recipe.get("negative") and random.random() < 0.2:
            lists = ("positive", "negative", "positive_ids", "prompt_ids", "baseline")
            recipe[random.choice([name for name in lists if recipe.get(name)])].pop()
        if random.random() < 0.2:
            record["created"] = random.choice(hostile.TIMES)
        if random.random() < 0.5:
            record["tags"] = [hostile.text(random) for _ in range(random.choice((1, 3, 50)))]


_DTYPES = ("F64", "F16", "BF16", "I32", "U8", "X", "")
_SHAPES: tuple[list[Any], ...] = (
    *([2**60], [0, 2**60], [2**32, 2**32], [-1], [], [8], [0], [1] * 70),
)


def _change_tensors(random: Random, parts: Parts) -> None:
    tensors = parts.tensors
    if not tensors:
        tensors["x"] = ("F32", [1], bytes(4))
    name = random.choice(list(tensors))
    dtype, shape, data = tensors[name]
    match random.randrange(8):
        case 0:
            tensors[name] = (
                random.choice(("F64", "F16", "BF16", "I32", "U8", "X", "")),
                shape,
                data,
            )
        case 1:
            shape = random.choice(
                ([2**60], [0, 2**60], [2**32, 2**32], [-1], [], [8], [0], [1] * 70)
            )
            tensors[name] = (dtype, shape, data)
        case 2:
            del tensors[name]
        case 3:
            tensors[f"{name}{hostile.text(random)}"] = tensors[name]
        case 4:
            array = np.frombuffer(data[: len(data) // 4 * 4], "<f4").copy()
            if array.size:
                array[random.randrange(array.size)] = random.choice(
                    (np.nan, np.inf, -np.inf, 3.4e38, 1e-45, -0.0, 1e20)
                )
            tensors[name] = (dtype, shape, array.tobytes())
        case 5:
            tensors[name] = (dtype, shape, data[: random.randrange(len(data) + 1)])
        case 6:
            tensors[name] = (dtype, shape, bytes(len(data)))
        case 7:
            tensors[name] = (dtype, [1, *shape], data)


def _change_header(random: Random, header: dict[str, Any]) -> None:
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    if not entries or random.random() < 0.2:
        hostile.change_tree(random, header)
        return
    entry = random.choice(entries)
    far = random.choice((-1, 0, 1, 4, 2**31, 2**60, 2**63, 2**64, 1.5))
    match random.randrange(5):
        case 0:
            entry["data_offsets"] = [0, far]
        case 1:
            entry["data_offsets"] = [far, entry["data_offsets"][1]]
        case 2:
            entry["data_offsets"] = random.choice(entries)["data_offsets"]
        case 3:
            entry["shape"] = random.choice(([2**60, 2**60], [2**61], [0] * 5, [2**64], [-4], "x"))
        case 4:
            header[hostile.text(random)] = deepcopy(entry)


def _mend(random: Random, parts: Parts) -> None:
    for record in parts.records:
        if random.random() < 0.8 and isinstance(record, dict):
            _mend_record(parts, record)


def _mend_record(parts: Parts, record: dict[str, Any]) -> None:
    """Make digest, norms and shapes of a record true of its arrays, where it has any."""
    try:
        name = f"{ModelIdentity(**record['model']).name}.{record['name']}.v{record['version']}"
        layers = [facts["layer"] for facts in record["layers"]]
        arrays = {b: _array(parts.tensors[f"{record['key']}/{b}"]) for b in layers}
        found = SteeringVector(
            arrays, model=ModelIdentity(**record["model"]), scope=record["scope"]
        )
        norms = found.norms()
        for facts in record["layers"]:
            facts["norm"] = norms[facts["layer"]]
            facts["positions"] = len(found.directions[facts["layer"]])
        record["norm"], record["digest"] = found.norm, found.digest
        if name != record["key"]:
            for b in layers:
                parts.tensors[f"{name}/{b}"] = parts.tensors.pop(f"{record['key']}/{b}")
            record["key"] = name
    except Exception:
        return  # it is past mending, which is a case too


def _array(tensor: tuple[str, list[Any], bytes]) -> np.ndarray:
    dtype, shape, data = tensor
    assert dtype == "F32"
    return np.frombuffer(data, "<f4").reshape(shape)
