"""PEFT's adapters: BEFT, in which a direction is the bias of a down projection, and LoRA."""

from __future__ import annotations

import json
from collections.abc import Mapping

from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible
from steerlab.interop.foreign import Array, outputs_of
from steerlab.interop.safetensors_files import tensors_file

_MODULE = "model.layers.{}.mlp.down_proj"
_SEQUENTIAL = frozenset(("llama", "mistral", "phi3", "qwen2", "qwen3"))
"""Architectures, all tried, whose blocks add their MLP's output to the stream as it is, and last.

Post-norm blocks, experts and Conv1D are not among them: there the bias is something else.
"""


def write(vector: SteeringVector) -> dict[str, bytes]:
    """The files of an adapter; raises Incompatible for a model where it would not be exact."""
    model = vector.model
    check_architecture(vector, "a bias of a down projection")
    rows = outputs_of(vector, "a BEFT adapter")
    names = {block: _MODULE.format(block) for block in rows}
    biases = {
        f"base_model.model.{names[block]}.beft_bias": row.reshape(1, -1)
        for block, row in rows.items()
    }
    return _files({"peft_type": "BEFT"}, model.source, list(names.values()), biases)


def lora(
    source: str, factors: Mapping[str, tuple[Array, Array]], embeddings: str
) -> dict[str, bytes]:
    """The files of a LoRA adapter of rank 1.

    factors: module -> A (1, inputs) and B (outputs, 1); the change of its weight is B A.
    embeddings: the module among them that is no projection.
    """
    tensors = {}
    for name, (a, b) in factors.items():
        kind = "lora_embedding_{}" if name == embeddings else "lora_{}.weight"
        for letter, array in (("A", a), ("B", b)):
            tensors[f"base_model.model.{name}.{kind.format(letter)}"] = array
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none"}
    return _files(config, source, list(factors), tensors)


def check_architecture(vector: SteeringVector, what: str) -> None:
    """Raise Incompatible for a model in which `what` would not be exact."""
    model = vector.model
    if model.architecture not in _SEQUENTIAL:
        raise Incompatible(
            f"{vector} is of {model.source} ({model.architecture}), and {what} is exact in "
            f"{', '.join(sorted(_SEQUENTIAL))} alone"
        )


def _files(
    config: Mapping[str, object], source: str, modules: list[str], tensors: Mapping[str, Array]
) -> dict[str, bytes]:
    config = {
        **config,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "inference_mode": True,
        "target_modules": modules,
    }
    return {
        "adapter_config.json": json.dumps(config, indent=1).encode() + b"\n",
        "adapter_model.safetensors": tensors_file(tensors, {"format": "pt"}),
    }
