"""What transformers' `generate` was called with: its forward passes don't show all of it.

Beams and return sequences repeat the caller's prompts, and a prefill may come in chunks. The
passes look like those of a larger batch, or of single tokens, and nothing on the model tells
them apart, so the running call itself is read.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class GenerateCall:
    """One running call.

    prompts: how many the caller gave; None if the model brings a `generate` of its own.
    width: columns of the prompts, padding included; 0 if unknown.
    chunked: whether the prompts come in several passes.
    prefilling: whether this pass reads the prompts, or a chunk of them, and nothing else.
    guesses: whether it decodes speculatively, so that a pass may hold tokens not chosen yet.
    identity: an object that no other call has; None if the model brings its own `generate`.
    """

    prompts: int | None = None
    width: int = 0
    chunked: bool = False
    prefilling: bool = False
    guesses: bool = False
    identity: object = None

    @property
    def whole(self) -> bool:
        """Whether its first pass is known to hold the prompts and nothing else."""
        return self.width > 0 and not self.chunked and not self.guesses


def running_generate() -> GenerateCall | None:
    """The innermost `generate` that this pass is part of; None in a plain forward pass."""
    frame: FrameType | None = sys._getframe(1)
    prefilling = False
    while frame is not None:
        # passes of a logits processor, such as the other branch of guidance, are not in it
        prefilling |= frame.f_code.co_name == "_prefill"
        if frame.f_code is _generate_code():
            return _read(frame.f_locals, prefilling)
        if frame.f_code.co_name == "generate" and isinstance(frame.f_locals.get("self"), nn.Module):
            return GenerateCall()
        frame = frame.f_back
    return None


def _read(variables: dict[str, Any], prefilling: bool) -> GenerateCall:
    prompts, ids = variables.get("batch_size"), variables.get("input_ids")
    config, mode = variables.get("generation_config"), variables.get("generation_mode")
    return GenerateCall(
        prompts=prompts if isinstance(prompts, int) else None,
        width=ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else 0,
        chunked=getattr(config, "prefill_chunk_size", None) is not None,
        prefilling=prefilling,
        guesses="assisted" in str(mode).lower(),
        identity=config,  # every call copies it
    )


@cache
def _generate_code() -> CodeType:
    from transformers.generation import GenerationMixin

    code: CodeType = inspect.unwrap(GenerationMixin.generate).__code__
    return code
