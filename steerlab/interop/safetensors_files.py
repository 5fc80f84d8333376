"""Foreign safetensors: saklas with its sidecar, steering-lite, and plain arrays."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from steerlab.core.vector import SteeringVector
from steerlab.core.version import __version__
from steerlab.errors import CorruptPayload, Incompatible
from steerlab.files import header
from steerlab.files.limits import from_json
from steerlab.interop import arrays
from steerlab.interop.foreign import Array, Foreign, fact, foreign, outputs_of, shortened

LONGEST_HEADER = 4_000_000  # bytes of a header
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SAKLAS = 6  # format_version of the sidecar
FIT = "saklas fit"
"""Format of a pack's fit before its sidecar has weighed the layers."""

_FITTED = re.compile(r"layer_(0|[1-9]\d{0,4})\.basis", re.ASCII)
_ADDED = ("mean_diff", "pca", "random")  # methods of steering-lite that add a vector


def read(data: bytes, what: str) -> list[Foreign]:
    """The vectors of a file; raises CorruptPayload for a damaged one."""
    try:
        tensors, metadata = _contents(data)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptPayload(
            f"{what} is not a whole safetensors file: {shortened(error)}"
        ) from None
    if header.METADATA_KEY in metadata:
        raise CorruptPayload(f"{what} has steerlab's record where steerlab does not write it")
    if any(_FITTED.fullmatch(name) for name in tensors):
        return [_of_saklas_fit(tensors, what)]
    if "cfg" in metadata:
        return _of_steering_lite(tensors, metadata["cfg"], what)
    return arrays.vectors_of("safetensors", tensors, what)


def with_sidecar(found: list[Foreign], sidecar: bytes, data: bytes, what: str) -> list[Foreign]:
    """The vectors, with what a sidecar of saklas states; unchanged if another program wrote it.

    data: the file with the tensors, whose sha256 a sidecar of a profile states.
    saklas's layer_k is added at the output of block k, and its length means nothing: it is
    scaled to the model when it is used.
    """
    try:
        said = from_json(sidecar.decode())
    except ValueError:
        return found
    if not isinstance(said, dict):
        return found
    if found and found[0].format == FIT:
        return [_weighted(found[0], said, what)]
    if "saklas_version" not in said:
        return found
    if (version := said.get("format_version")) != _SAKLAS:
        raise Incompatible(
            f"{what} has saklas's format {str(version)[:20]!r}, and {_SAKLAS} is read"
        )
    if said.get("tensor_sha256") != hashlib.sha256(data).hexdigest():
        raise CorruptPayload(f"{what} is not the file that its sidecar describes: copy both again")
    facts = (fact("method", said.get("method")), "length=relative")
    return [replace(one, format="saklas", site="output", facts=facts) for one in found]


def _of_saklas_fit(tensors: Mapping[str, Array], what: str) -> Foreign:
    """A pack of saklas fitted to a model: of two nodes, the axis from the second to the first.

    `layer_k.basis` (1, d_model) points to node 0, at the output of block k; the sidecar weighs
    layers. Raises Incompatible for fits of more axes or nodes, and for curved ones.
    """
    bases = {name: found for name in tensors if (found := _FITTED.fullmatch(name))}
    others = {name.rpartition(".")[2] for name in tensors if name not in bases}
    nodes = tensors.get("node_coords", np.empty(0))
    if others - {"mean", "node_coords", "origin"} or nodes.shape[:1] != (2,):
        raise Incompatible(f"{what} is a fit of saklas that is curved or has not two nodes")
    if any(tensors[name].ndim != 2 or len(tensors[name]) != 1 for name in bases):
        raise Incompatible(f"{what} is a fit of saklas along several axes, where a vector has one")
    rows: dict[int | None, Array] = {int(k[1]): tensors[name][0] for name, k in bases.items()}
    return foreign(FIT, rows, what, site="output", facts=(fact("length", "relative"),))


def _weighted(found: Foreign, said: Mapping[str, Any], what: str) -> Foreign:
    """A fit whose rows are multiplied by the shares of their layers."""
    shares = said.get("mahalanobis_share_per_layer")
    if not isinstance(shares, dict) or {*shares} != {str(n) for n in found.numbers}:
        raise Incompatible(f"{what} is a fit of saklas whose sidecar does not weigh its layers")
    if not all(type(x) in (int, float) and 0 < x < 1e6 for x in shares.values()):
        raise CorruptPayload(f"{what} is a fit of saklas with weights that are none")
    rows: dict[int | None, Array] = {
        n: found.rows[n].astype(np.float64) * shares[str(n)] for n in found.numbers
    }
    return replace(found, format="saklas", rows=rows)


def _contents(data: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors as views of the data, and the metadata."""
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes")
    entries = from_json(data[8 : 8 + length].decode(), unique=True)
    if not isinstance(entries, dict):
        raise ValueError("a header that is no object")
    metadata = entries.pop("__metadata__", {})
    body = memoryview(data)[8 + length :]
    tensors = {name: tensor(entry, body) for name, entry in entries.items()}
    return tensors, metadata if isinstance(metadata, dict) else {}


def tensor(entry: Mapping[str, Any], body: memoryview) -> Array:
    """The array of a header's entry, as a view of the data where its type allows.

    Raises ValueError, TypeError or KeyError for an entry that is none.
    """
    kind, shape = entry["dtype"], entry["shape"]
    start, end = entry["data_offsets"]
    if kind not in _DTYPES:
        raise ValueError(f"a tensor of {kind!s:.20}, where floats are read")
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)) or len(shape) > 8:
        raise ValueError("a shape or an offset that is no number")
    flat = np.frombuffer(body[start:end], _DTYPES[kind])
    if end > len(body) or math.prod(shape) != len(flat):
        raise ValueError("a tensor that reaches beyond the file, or is of another size")
    if kind == "BF16":
        flat = (flat.astype("<u4") << 16).view("<f4")
    return flat.reshape(shape)


def _of_steering_lite(tensors: Mapping[str, Array], cfg: object, what: str) -> list[Foreign]:
    """steering-lite: layer{n}.{buffer}; methods that add one vector a layer."""
    try:
        said = from_json(str(cfg))
        method = str(said["method"])
    except (ValueError, TypeError, KeyError):
        raise CorruptPayload(f"{what} has a cfg that is not steering-lite's") from None
    rows = {key.partition(".")[0]: array for key, array in tensors.items()}
    if method not in _ADDED or len(rows) < len(tensors):
        raise Incompatible(f"{what} steers by {method[:40]!r}, and steerlab adds vectors")
    facts = (fact("method", method), fact("coefficient", said.get("coeff")))
    found = arrays.vectors_of("steering-lite", rows, what)
    return [replace(one, facts=facts) for one in found]


# writing


def write_saklas(vector: SteeringVector) -> dict[str, bytes]:
    """A profile of saklas: the safetensors file and its sidecar."""
    rows = outputs_of(vector, "a profile of saklas")
    data = tensors_file({f"layer_{block}": row for block, row in rows.items()})
    sidecar = {
        "format_version": _SAKLAS,
        "saklas_version": f"steerlab {__version__}",
        "method": "profile",  # one of the three that saklas reads
        "tensor_sha256": hashlib.sha256(data).hexdigest(),
        "provenance": {
            "source": str(vector),
            "model": vector.model.source,
            "recipe": str(vector.recipe)[:200],
        },
    }
    return {"": data, ".json": json.dumps(sidecar, indent=1).encode() + b"\n"}


def tensors_file(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of float32 tensors."""
    from safetensors.numpy import save

    return save(dict(tensors), dict(metadata or {}) or None)
