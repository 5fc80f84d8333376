"""An ablation in weights: a LoRA of rank 1, which PEFT, vLLM and llama.cpp load.

What writes to the residual stream (embeddings, attention, MLP) loses its part along a unit vector
u: the change of each weight W is -u(uᵀW) (arXiv 2406.11717, weight orthogonalization).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible
from steerlab.interop import peft_directory
from steerlab.interop.foreign import single_row

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel


@torch.no_grad()
def ablation_lora(lm: LanguageModel, vector: SteeringVector) -> dict[str, bytes]:
    """The files of an adapter that keeps a vector's direction out of the residual stream.

    Raises Incompatible for a vector of several layers, and for models where it would not be exact.
    """
    peft_directory.check_architecture(vector, "an ablation of weights")
    _, row = single_row(vector, "a LoRA of rank 1")
    u = torch.from_numpy(row.copy()).double()
    u /= u.norm()
    factors = {}
    for name in _writers(lm.n_layers):
        module = lm.model.get_submodule(name)
        if getattr(module, "bias", None) is not None:
            raise Incompatible(f"{lm.source} has a bias in {name}, which no LoRA can change")
        weight = module.weight.detach().cpu().double()
        along = weight @ u if name == _EMBEDDINGS else u @ weight
        factors[name] = (along.float().numpy()[None], -u.float().numpy()[:, None])
    return peft_directory.lora(vector.model.source, factors, embeddings=_EMBEDDINGS)


_EMBEDDINGS = "model.embed_tokens"


def _writers(n_layers: int) -> list[str]:
    """Every module that writes to the stream."""
    inner = ("self_attn.o_proj", "mlp.down_proj")
    return [_EMBEDDINGS, *(f"model.layers.{b}.{part}" for b in range(n_layers) for part in inner)]
