"""Whether a model attends backwards only, as a causal language model does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from steerlab.models import recording
from steerlab.models.identity import is_quantized


def is_causal(model: Any, blocks: Sequence[nn.Module]) -> bool:
    """Whether a token leaves the activations before it as they are."""
    layer = min(1, len(blocks) - 1)
    first, second = (
        recording.record(model, blocks, ids, [layer])[layer][0] for ids in ([1, 2], [1, 3])
    )
    # int8 kernels round a row by its neighbours
    rtol = 0.05 * float(first.norm()) if is_quantized(blocks) else 0.0
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 + rtol, equal_nan=True)
