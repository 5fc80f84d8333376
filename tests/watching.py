"""What the tests see a model with: raw torch hooks, none of them taken from steerlab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import numpy as np
import torch
from torch import nn

from steerlab import LanguageModel, SteeringVector
from tests.tiny import tiny_lm

BLOCKS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
    "gptj": "transformer.h",
    "mamba": "backbone.layers",
    "rwkv": "rwkv.blocks",
    "openai-gpt": "transformer.h",
    "smolvlm": "model.text_model.layers",
} | dict.fromkeys(
    ("llava", "gemma3_vl", "qwen2_5_vl", "qwen3_vl", "mistral3"), "model.language_model.layers"
)  # every other architecture: model.layers
N_LAYERS = 4


@cache
def shared(architecture: str = "llama", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """One tiny model for all tests that leave it as it was."""
    lm = tiny_lm(architecture)
    lm.model.to(dtype)
    lm.next_log_probs(["a", "bc"])  # the trial of batches is over before anything is watched
    return lm


def blocks_of(model: nn.Module, architecture: str = "llama") -> list[nn.Module]:
    return list(model.get_submodule(BLOCKS.get(architecture, "model.layers")))


class Watch:
    """inputs[b], outputs[b]: what went in and out of block b, one tensor a forward pass."""

    def __init__(self) -> None:
        self.inputs: dict[int, list[torch.Tensor]] = {}
        self.outputs: dict[int, list[torch.Tensor]] = {}

    def added(self, layer: int) -> list[torch.Tensor]:
        """Pass by pass: (batch, seq) bool, where something came in between two blocks."""
        pairs = zip(self.inputs[layer], self.outputs[layer - 1], strict=True)
        return [(after != before).any(-1) for after, before in pairs]


@contextmanager
def watching(model: nn.Module, architecture: str = "llama") -> Iterator[Watch]:
    """Keep what goes in and out of every block."""
    watch = Watch()

    def entered(b):
        def hook(module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            watch.inputs.setdefault(b, []).append(hidden.detach().clone())

        return hook

    def left(b):
        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple | list) else output
            watch.outputs.setdefault(b, []).append(hidden.detach().clone())

        return hook

    with ExitStack() as stack:
        for b, block in enumerate(blocks_of(model, architecture)):
            before = block.register_forward_pre_hook(entered(b), with_kwargs=True)
            stack.callback(before.remove)
            stack.callback(block.register_forward_hook(left(b)).remove)
        yield watch


def hooks_on(model: nn.Module) -> int:
    """How many hooks of any kind hang on a model."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def planted(
    lm: LanguageModel,
    *layers: int,
    seed: int = 0,
    norm: float = 3.0,
    rows: int | None = None,
    bos: bool = True,
) -> SteeringVector:
    """A random vector for a model; a front tensor with `rows`, whose first is 0 if `bos`."""
    directions = {}
    for b in layers or (2,):
        noise = np.random.default_rng([seed, b]).standard_normal((rows or 1, lm.d_model))
        noise *= norm / np.linalg.norm(noise, axis=1, keepdims=True)
        if rows is not None and bos:
            noise[0] = 0
        directions[b] = noise
    return SteeringVector(
        directions, model=lm.identity, scope="broadcast" if rows is None else "front"
    )


def amount(
    vector: SteeringVector, coefficient: float, dtype: torch.dtype, layer: int = 2
) -> torch.Tensor:
    """The law's c·v: the float32 vector times c in float64, rounded once. (positions, d_model)"""
    direction = vector.directions[layer].astype(np.float32).astype(np.float64)
    return torch.from_numpy(coefficient * direction).to(dtype)


def due(positions, length, first, end):
    """Which of the absolute positions `first` to `end` of a prompt of `length` tokens are due."""
    start, stop = {
        "all": (0, end),
        "prompt": (0, length),
        "generated": (length - 1, end),
        "continuation": (length, end),
    }[positions]
    return [start <= i < stop for i in range(first, end)]
