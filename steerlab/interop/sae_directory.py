"""A feature of a sparse autoencoder: a row of W_dec in a directory of SAELens.

`cfg.json` names the hook; of `sae_weights.safetensors`, which may have gigabytes, one row is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.errors import CorruptPayload, Incompatible, NotFound
from steerlab.files import header
from steerlab.files.limits import from_json
from steerlab.interop import arrays
from steerlab.interop.foreign import Array, Foreign, fact, foreign, shortened
from steerlab.interop.safetensors_files import LONGEST_HEADER, tensor

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"


def read(directory: Path, feature: int) -> Foreign:
    """The decoder direction of a feature, at the hook where the autoencoder was trained.

    Raises NotFound for a directory without the two files and for a feature beyond the last,
    Incompatible for other hooks than the residual stream's, CorruptPayload for damaged files.
    """
    try:
        said = from_json(header.read_plain(directory / _CONFIG).decode())
        metadata = {**said, **(said.get("metadata") or {})}
        hook = str(metadata["hook_name"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptPayload(
            f"{directory / _CONFIG} does not name an autoencoder's hook: {shortened(error)}"
        ) from None
    place = arrays.place_of(hook)
    if place is None or place[1] is None:
        raise Incompatible(
            f"{directory} is trained at {hook[:60]!r}, where steerlab does not steer"
        )
    number, site = place
    row = _row(directory / _WEIGHTS, feature)
    return foreign(
        "sae",
        {number: row},
        str(directory),
        site=site,
        name=f"feature_{feature}",
        model=str(metadata.get("model_name") or "")[:200],
        facts=_facts(metadata, feature),
    )


def _facts(metadata: Mapping[str, Any], feature: int) -> tuple[str, ...]:
    keys = ("neuronpedia_id", "normalize_activations")
    told = [fact(key, metadata[key]) for key in keys if metadata.get(key) not in (None, "none")]
    facts = [fact("feature", feature), *told]
    if metadata.get("model_class_name") == "HookedTransformer":
        facts.append(fact("stream", "mean-centred, as TransformerLens makes it"))
    return tuple(facts)


def _row(path: Path, feature: int) -> Array:
    """Row `feature` of W_dec (d_sae, d_in); reads the header and that row."""
    try:
        with open(path, "rb", opener=header.without_waiting) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            entry = from_json(file.read(length).decode())["W_dec"]
            rows, width = (int(n) for n in entry["shape"])
            if not 0 <= feature < rows:
                raise NotFound(f"{path} has the features 0 to {rows - 1}, not {feature}")
            start, end = (int(n) for n in entry["data_offsets"])
            size, rest = divmod(end - start, rows)
            if rest or not 0 < size <= 8 * width:
                raise ValueError("W_dec is of another size than its shape")
            file.seek(8 + length + start + feature * size)
            data = file.read(size)
        row = {"dtype": entry["dtype"], "shape": [width], "data_offsets": [0, size]}
        return tensor(row, memoryview(data))
    except OSError as error:
        raise NotFound(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptPayload(f"{path} holds no decoder: {shortened(error)}") from None
