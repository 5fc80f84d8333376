"""GGUF control vectors: llama.cpp, repeng, jukofyork, EasySteer, and GLP's keys.

One-dimensional F32 tensors "direction.N", added at the output of block N, counted from 0. A file
of GLP states more, in keys that begin with "glp.".
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from steerlab.core.record import now
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, CorruptPayload, Incompatible
from steerlab.interop.foreign import Array, Foreign, Site, fact, foreign, rows_of, shortened

MAGIC = b"GGUF"

_STRING, _ARRAY, _U32, _F32 = 8, 9, 4, 6
_FORMATS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}  # of a number or a flag
_MOST = 10_000  # keys, or tensors
_MOST_ELEMENTS = 100_000  # of an array of strings among the keys
_ALIGNMENT = 32
_DIRECTION = re.compile(r"direction\.(0|[1-9]\d{0,4})")
_HOOK_POINT = "residual_stream_post_layer"


# reading


def read(data: bytes, what: str) -> list[Foreign]:
    """The control vector in a GGUF file. what: the file, in messages.

    Raises CorruptPayload for a damaged file or another kind of GGUF, Incompatible for a vector
    that is not to be added.
    """
    try:
        keys, tensors = _Reader(data).contents()
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise CorruptPayload(f"{what} is not a whole GGUF file: {shortened(error)}") from None
    rows: dict[int | None, Array] = {}
    for name, array in tensors.items():
        if (found := _DIRECTION.fullmatch(name)) is None:
            kind = keys.get("general.architecture", "unknown")
            raise CorruptPayload(
                f"{what} is a GGUF file, but not a control vector: it holds the tensor "
                f"{name[:60]!r} (architecture {str(kind)[:40]!r})"
            )
        rows[int(found[1])] = array
    glp = {key: value for key, value in keys.items() if key.startswith("glp.")}
    if glp:
        _check_glp(glp, rows, what)
    site: Site | None = "output" if glp or 0 not in rows else None
    vector = foreign(
        "glp" if glp else "gguf",
        rows,
        what,
        site=site,
        name=_text(keys, "general.name"),
        model=_source(keys),
        architecture=_text(keys, "controlvector.model_hint"),
        facts=tuple(fact(key, value) for key, value in glp.items() if value is not None),
        hint="it has direction.0, which llama.cpp does not read" if site is None else "",
    )
    return [vector]


class _Reader:
    """Reads the keys and the tensors of a file, from its beginning on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4

    def contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The keys, and the tensors as views of the data."""
        version, tensors, keys = self._take("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"version {version} of the format, where 2 and 3 are read")
        if max(tensors, keys) > _MOST:
            raise ValueError(f"{tensors} tensors and {keys} keys, where {_MOST} are the most")
        found = {}
        for _ in range(keys):
            if (key := self._string()) in found:
                raise ValueError(f"the key {key[:60]!r} is there twice")
            found[key] = self._value(self._take("<I")[0])
        infos = [self._info() for _ in range(tensors)]
        return found, self._arrays(infos, found.get("general.alignment", _ALIGNMENT))

    def _take(self, format: str) -> tuple[Any, ...]:
        values = struct.unpack_from(format, self._data, self._at)
        self._at += struct.calcsize(format)
        return values

    def _string(self) -> str:
        (length,) = self._take("<Q")
        end = self._at + length
        if end > len(self._data):
            raise ValueError(f"a text of {length} bytes in a file of {len(self._data)}")
        text = self._data[self._at : end].decode()
        self._at = end
        return text

    def _value(self, kind: int, nested: bool = False) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            if kind not in _FORMATS:
                raise ValueError(f"a key of the unknown type {kind}")
            return self._take(f"<{_FORMATS[kind]}")[0]
        if nested:
            raise ValueError("an array of arrays among the keys")
        inner, length = self._take("<IQ")
        if inner in _FORMATS:
            self._at += length * struct.calcsize(_FORMATS[inner])
            if self._at > len(self._data):
                raise ValueError("it is cut short")
        elif length > _MOST_ELEMENTS:
            raise ValueError(f"{length} texts in one key")
        else:
            for _ in range(length):
                self._value(inner, nested=True)
        return None

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (rank,) = self._take("<I")
        if rank > 4:
            raise ValueError(f"a tensor of {rank} dimensions")
        shape = self._take(f"<{rank}Q")
        kind, offset = self._take("<IQ")
        return name, shape, kind, offset

    def _arrays(
        self, infos: list[tuple[str, tuple[int, ...], int, int]], alignment: object
    ) -> dict[str, Array]:
        if not isinstance(alignment, int) or not 0 < alignment <= 2**16:
            raise ValueError(f"an alignment of {alignment}")
        begin = self._at + -self._at % alignment
        arrays: dict[str, Array] = {}
        for name, shape, kind, offset in infos:
            if not _DIRECTION.fullmatch(name):
                arrays[name] = np.empty(0, "<f4")  # of a model: its values are not looked at
                continue
            if kind != 0:
                raise ValueError(f"{name} is not F32, which is all that a control vector has")
            if name in arrays:
                raise ValueError(f"{name} is there twice")
            size, start = math.prod(shape), begin + offset
            if start + 4 * size > len(self._data):
                raise ValueError(f"{name} reaches beyond its end")
            array = np.frombuffer(self._data, "<f4", size, start)
            arrays[name] = array.reshape(shape[::-1])
        return arrays


def _text(keys: Mapping[str, Any], key: str) -> str:
    value = keys.get(key, "")
    return value[:200] if isinstance(value, str) else ""


def _source(keys: Mapping[str, Any]) -> str:
    """The hub id of the base model, if the file states it."""
    url = _text(keys, "general.base_model.0.repo_url")
    if url.startswith("https://huggingface.co/"):
        return url.removeprefix("https://huggingface.co/").strip("/")
    owner = _text(keys, "general.base_model.0.organization")
    name = _text(keys, "general.base_model.0.name")
    return f"{owner}/{name}" if owner and name else name


def _check_glp(keys: Mapping[str, Any], rows: Mapping[int | None, Array], what: str) -> None:
    """Raise Incompatible for GLP keys that steerlab can't follow, CorruptPayload for false ones."""
    mode = keys.get("glp.mode", "add")
    if mode == "project":
        raise Incompatible(
            f"{what} is a direction to project out (glp.mode project), and steerlab adds vectors: "
            "adding it would do something else"
        )
    if mode != "add":
        raise Incompatible(
            f"{what} has the unknown glp.mode {str(mode)[:40]!r}: can't tell its use"
        )
    if (version := keys.get("glp.spec_version", 1)) != 1:
        raise Incompatible(f"{what} has glp.spec_version {str(version)[:40]!r}, and 1 is read")
    if (point := keys.get("glp.hook_point", _HOOK_POINT)) != _HOOK_POINT:
        raise Incompatible(f"{what} acts at {str(point)[:60]!r}, where steerlab does not steer")
    numbers = ",".join(str(n) for n in sorted(n for n in rows if n is not None))
    if (stated := keys.get("glp.layer_ids_zero_based", numbers)) != numbers:
        raise CorruptPayload(f"{what} names layers {str(stated)[:60]!r} and holds {numbers[:60]}")
    if (sha := keys.get("glp.content_sha256", _sha256(rows))) != _sha256(rows):
        raise CorruptPayload(f"{what} was altered: its numbers do not match {str(sha)[:16]!r}")


def _sha256(rows: Mapping[Any, Array]) -> str:
    return hashlib.sha256(b"".join(rows[n].tobytes() for n in sorted(rows))).hexdigest()


# writing


def write(vector: SteeringVector) -> bytes:
    """A control vector for llama.cpp and repeng; raises Incompatible for layers below 2."""
    return _file(_keys(vector), _rows(vector))


def write_glp(vector: SteeringVector, coefficient: float) -> bytes:
    """A control vector with GLP's keys; `coefficient` is stated beside the directions."""
    rows = _rows(vector)
    owner, _, name = vector.model.source.rpartition("/")
    keys: dict[str, str | int | float] = {
        **_keys(vector),
        "general.type": "controlvector",
        "general.name": str(vector),
        "general.base_model.count": 1,
        "general.base_model.0.name": name,
        **({"general.base_model.0.organization": owner} if owner else {}),
        "glp.mode": "add",
        "glp.spec_version": 1,
        "glp.hook_point": _HOOK_POINT,
        "glp.layer_ids_zero_based": ",".join(map(str, rows)),
        "glp.alpha_default": float(coefficient),
        "glp.content_sha256": _sha256(rows),
        "glp.method": str(vector.recipe)[:200],
        "glp.created": now(),
    }
    return _file(keys, rows)


def _keys(vector: SteeringVector) -> dict[str, str | int | float]:
    return {
        "general.architecture": "controlvector",
        "controlvector.model_hint": vector.model.architecture,
        "controlvector.layer_count": vector.model.n_layers,
    }


def _rows(vector: SteeringVector) -> dict[int, Array]:
    rows = rows_of(vector, "a GGUF file")
    if low := [b for b in rows if b < 2]:
        cure = f": export {vector}[2:]" if vector.layers[-1] >= 2 else ""
        raise Incompatible(
            f"{vector} acts at layer {low[0]}, and llama.cpp steers the outputs of blocks from 1 "
            f"on, steerlab's layers from 2 on{cure}"
        )
    return {b - 1: row for b, row in rows.items()}


def _file(keys: Mapping[str, str | int | float], rows: Mapping[int, Array]) -> bytes:
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(rows), len(keys)))
    for key, value in keys.items():
        head += _packed(key) + _value(value)
    offset, body = 0, bytearray()
    for number, row in rows.items():
        head += _packed(f"direction.{number}") + struct.pack("<IQIQ", 1, row.size, 0, offset)
        body += row.tobytes()
        body += bytes(-len(body) % _ALIGNMENT)
        offset = len(body)
    return bytes(head + bytes(-len(head) % _ALIGNMENT) + body)


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _packed(value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise BadOption(f"a coefficient of {value} is beyond float32")
    return struct.pack("<If", _F32, value)


def _packed(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(data)) + data
