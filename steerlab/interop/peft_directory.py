"""PEFT's BEFT adapters: a directory in which a direction is the bias of a down projection."""

from __future__ import annotations

import json

from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible
from steerlab.interop.foreign import outputs_of
from steerlab.interop.safetensors_files import tensors_file

_MODULE = "model.layers.{}.mlp.down_proj"
_SEQUENTIAL = frozenset(("llama", "mistral", "phi3", "qwen2", "qwen3"))
"""Architectures, all tried, whose blocks add their MLP's output to the stream as it is, and last.

Post-norm blocks, experts and Conv1D are not among them: there the bias is something else.
"""


def write(vector: SteeringVector) -> dict[str, bytes]:
    """The files of an adapter; raises Incompatible for a model where it would not be exact."""
    model = vector.model
    if model.architecture not in _SEQUENTIAL:
        raise Incompatible(
            f"{vector} is of {model.source} ({model.architecture}), and a bias of a down "
            f"projection is exact in {', '.join(sorted(_SEQUENTIAL))} alone"
        )
    rows = outputs_of(vector, "a BEFT adapter")
    names = {block: _MODULE.format(block) for block in rows}
    config = {
        "peft_type": "BEFT",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.source,
        "inference_mode": True,
        "target_modules": list(names.values()),
    }
    biases = {
        f"base_model.model.{names[block]}.beft_bias": row.reshape(1, -1)
        for block, row in rows.items()
    }
    return {
        "adapter_config.json": json.dumps(config, indent=1).encode() + b"\n",
        "adapter_model.safetensors": tensors_file(biases, {"format": "pt"}),
    }
