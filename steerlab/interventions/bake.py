"""Checkpoints in which steering is a part of the weights, for programs that know no steering.

Adding d to the residual stream before block b is a bias d of what block b - 1 writes last: of its
down projection, if the block is pre-norm. Before block 0 it is d in every row of the embeddings,
where a head that is tied to them moves all logits alike.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerlab.core.display import some
from steerlab.core.vector import SteeringVector
from steerlab.core.version import __version__
from steerlab.errors import Incompatible, StoreError
from steerlab.files import durable
from steerlab.interop.foreign import rows_of
from steerlab.interventions.hooks import steering
from steerlab.models.blocks import text_config
from steerlab.models.inference import log_probs
from steerlab.models.loading import location_of

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel


@dataclass(frozen=True)
class _Writer:
    """The down projection of block {}, and the setting that gives it a bias, if it has none."""

    module: str
    flag: str = ""


_LAYERS, _H = "model.layers.{}.mlp.", "transformer.h.{}.mlp."
_WRITERS: dict[str, _Writer] = {
    **dict.fromkeys(
        ("llama", "smollm3", "granite", "helium", "seed_oss", "arcee", "nemotron"),
        _Writer(_LAYERS + "down_proj", "mlp_bias"),
    ),
    "ernie4_5": _Writer(_LAYERS + "down_proj", "use_bias"),
    "starcoder2": _Writer(_LAYERS + "c_proj", "use_bias"),
    "phi": _Writer(_LAYERS + "fc2"),
    "opt": _Writer("model.decoder.layers.{}.fc2", "enable_bias"),
    "gpt_neox": _Writer("gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    **dict.fromkeys(("gpt2", "gpt_neo"), _Writer(_H + "c_proj")),
    **dict.fromkeys(("gptj", "codegen"), _Writer(_H + "fc_out")),
    "bloom": _Writer(_H + "dense_4h_to_h"),
    "falcon": _Writer(_H + "dense_4h_to_h", "bias"),
}
"""Architectures whose blocks add their MLP's output to the stream as it is, and last."""

_AS_LLAMA = ("mistral", "qwen2")
"""Without biases of their own, but otherwise models that LlamaForCausalLM can be."""


def baked_model(
    location: str, revision: str | None, vector: SteeringVector, *, as_llama: bool = False
) -> Any:
    """The model of these files, in their dtype, with the vector in its weights.

    as_llama: write Mistral and Qwen2 as Llama, which can have the biases that they lack.
    Raises Incompatible where it can't be exact.
    """
    from transformers import AutoModelForCausalLM

    rows = rows_of(vector, "a checkpoint")
    plain = AutoModelForCausalLM.from_pretrained(location, revision=revision, dtype="auto")
    if getattr(plain.config, "quantization_config", None) is not None:
        raise Incompatible(f"{location} is quantized: bake the model that it was made of")
    state = plain.state_dict()
    model = plain
    if any(b > 0 for b in rows):
        model = _with_biases(plain, vector, as_llama)
    if model is not plain:
        added = model.state_dict().keys() - state.keys()
        if odd := [name for name in sorted(added) if not name.endswith(".bias")]:
            raise Incompatible(f"{vector.model.source} has no {odd[0]}: can't bake it")
        zeros = {name: torch.zeros_like(model.get_parameter(name)) for name in added}
        model.load_state_dict(state | zeros)
        model.generation_config = plain.generation_config
    with torch.no_grad():
        for b, row in rows.items():
            _add(model, b, torch.from_numpy(row.copy()))
    return model.eval()


def _with_biases(plain: Any, vector: SteeringVector, as_llama: bool) -> Any:
    """A model of the same shape whose down projections have biases."""
    config = copy.deepcopy(plain.config)
    kind = config.model_type
    if as_llama and kind in _AS_LLAMA:
        return _llama(config).to(plain.dtype)
    writer = _WRITERS.get(kind)
    if writer is None:
        cure = (
            "write it as a Llama with --as-llama, or " if kind in _AS_LLAMA else ""
        ) + "bake at layer 0, or export an adapter with --adapter"
        raise Incompatible(
            f"{vector.model.source} is a {kind}, whose down projections can't have biases that add "
            f"to the stream as they are: {cure}"
        )
    if kind == "opt" and not config.do_layer_norm_before:
        raise Incompatible(f"{vector.model.source} normalizes what its blocks write: can't bake it")
    if not writer.flag or getattr(config, writer.flag):
        return plain
    setattr(config, writer.flag, True)
    return type(plain)(config).to(plain.dtype)


def _llama(config: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        raise Incompatible(f"it attends to windows of {window} tokens, which a Llama has not")
    said = config.to_dict()
    kept = {name for name in LlamaConfig().to_dict() if name not in ("model_type", "architectures")}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    options = {name: value for name, value in said.items() if name in kept}
    return LlamaForCausalLM(
        LlamaConfig(**{**options, "attention_bias": True, "mlp_bias": True, "head_dim": head})
    )


def _add(model: Any, b: int, row: Tensor) -> None:
    """Add a direction (d_model,) before block b, in float32, and round once."""
    config = text_config(model)
    if b == 0:
        target = model.get_input_embeddings().weight
        if target.shape[-1] != len(row):
            raise Incompatible(
                f"the embeddings of {config.model_type} are {target.shape[-1]} wide here and its "
                f"stream {len(row)}: layer 0 can't be baked"
            )
        if getattr(config, "final_logit_softcapping", None) and config.tie_word_embeddings:
            raise Incompatible(
                f"{config.model_type} caps its logits, which its embeddings would move: layer 0 "
                "can't be baked"
            )
        scale = float(getattr(config, "embedding_multiplier", 1.0))
        if config.model_type.startswith("gemma"):
            scale = math.sqrt(config.hidden_size)
    else:
        module = _WRITERS[config.model_type].module.format(b - 1)
        target = model.get_submodule(module).bias
        scale = float(getattr(config, "residual_multiplier", 1.0))
    target.copy_(target.float() + row / scale)


# writing


def bake(
    lm: LanguageModel,
    vector: SteeringVector,
    coefficient: float,
    directory: Path,
    *,
    as_llama: bool = False,
) -> float:
    """Write a checkpoint with the vector in it, whole or not at all.

    lm: the model in float32; its files are what is baked. What was written is loaded again and
    has to give the log-probabilities that `steering` gives.
    Returns their largest difference. Raises Incompatible where it can't be exact, StoreError if
    the directory exists.
    """
    steered = coefficient * vector
    if directory.exists():
        raise StoreError(f"{directory} exists: bake to another name, or delete it first")
    model = baked_model(
        location_of(lm.source), lm.identity.revision or None, steered, as_llama=as_llama
    )
    with durable.writing_directory(directory) as work:
        model.save_pretrained(work)
        lm.tokenizer.save_pretrained(work)
        found = _difference(lm, steered, work)
        half = model.dtype != torch.float32
        if not found <= (0.1 if half else 1e-3):
            raise Incompatible(
                f"the baked model differs from the steered one by {found:.1g} in log-probability: "
                f"{lm.source} does something else with what its "
                f"{'embeddings or blocks' if 0 in steered.layers else 'blocks'} write"
            )
        (work / "README.md").write_text(_card(vector, coefficient, found, model))
        for file in work.iterdir():  # weights are written readable by their owner alone
            file.chmod(file.stat().st_mode | 0o444)
    return found


@torch.no_grad()
def _difference(lm: LanguageModel, vector: SteeringVector, directory: Path) -> float:
    """Largest difference of a log-probability between a checkpoint and the steered model."""
    from transformers import AutoModelForCausalLM

    baked = AutoModelForCausalLM.from_pretrained(directory, dtype=lm.model.dtype)
    ids = lm.tokens("I think you are a person who writes: Dear neighbour, how")
    with steering(lm, vector):
        ours = log_probs(lm, ids)
    theirs = baked.eval()(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return float((ours - theirs).abs().max())


def _card(vector: SteeringVector, coefficient: float, found: float, model: Any) -> str:
    """The model card: what is inside, how strongly, and how to take it out again."""
    dose = "" if vector.dose(coefficient) is None else f", dose {vector.dose(coefficient):.3g}"
    kind = text_config(model).model_type
    places = [
        "every row of the input embeddings (layer 0)"
        if b == 0
        else f"`{_WRITERS[kind].module.format(b - 1)}.bias` (layer {b})"
        for b in vector.layers
    ]
    return f"""---
library_name: transformers
base_model: {json.dumps(vector.model.source)}
tags: [steering-vectors, activation-steering, steerlab]
---

# {vector.model.source}, steered by {vector}

The weights are those of {vector.model.source}, and a steering vector was added to them. It acts at
every position of every text, and can't be turned off.

| | |
|---|---|
| vector | `{vector}` |
| made by | {vector.recipe} |
| digest | `{vector.digest}` |
| strength | coefficient {coefficient:g}{dose} |
| added to | {some(places)} |
| architecture | {kind}, {model.dtype} |
| checked | log-probabilities equal those of the steered model to {found:.1g} |
| baked by | steerlab {__version__} |
"""
