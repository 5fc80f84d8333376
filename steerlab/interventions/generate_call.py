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
    guesses: whether it decodes speculatively, so that a pass may hold tokens not chosen yet.
    """

    prompts: int | None = None
    width: int = 0
    chunked: bool = False
    guesses: bool = False

    @property
    def whole(self) -> bool:
        """Whether its first pass is known to hold the prompts and nothing else."""
        return self.width > 0 and not self.chunked and not self.guesses


def running_generate() -> GenerateCall | None:
    """The innermost `generate` that this pass is part of; None in a plain forward pass."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _generate_code():
            return _read(frame.f_locals)
        if frame.f_code.co_name == "generate" and isinstance(frame.f_locals.get("self"), nn.Module):
            return GenerateCall()
        frame = frame.f_back
    return None


def _read(variables: dict[str, Any]) -> GenerateCall:
    prompts, ids = variables.get("batch_size"), variables.get("input_ids")
    config, mode = variables.get("generation_config"), variables.get("generation_mode")
    return GenerateCall(
        prompts=prompts if isinstance(prompts, int) else None,
        width=ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else 0,
        chunked=getattr(config, "prefill_chunk_size", None) is not None,
        guesses="assisted" in str(mode).lower(),
    )


@cache
def _generate_code() -> CodeType:
    from transformers.generation import GenerationMixin

    code: CodeType = inspect.unwrap(GenerationMixin.generate).__code__
    return code
