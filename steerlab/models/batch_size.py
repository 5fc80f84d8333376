"""How many rows a batch has: as many as are fastest and fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

from steerlab.models.blocks import text_config
from steerlab.models.protocols import Readable

ROWS_CPU = 64
"""Rows of a batch on a CPU where nothing was measured, as for a model of small layers."""

ROWS_ACCELERATOR = 256

_USABLE = 0.5  # of the free memory: allocators fragment, and this is an estimate
_CHOOSING = 32  # bytes a vocabulary entry: float32 logits, their float64 masses and sums


def batch_rows(lm: Readable, prompts: Sequence[str], new_tokens: int) -> int:
    """Rows of one batch of these prompts, each continued by at most `new_tokens`.

    On a CPU, as many as its measured curve asks for. On CUDA, as many as fit by an upper bound of
    a row's memory; see `row_bytes`.
    """
    device = lm.model.device
    if device.type == "cpu":
        from steerlab.models.fast_layers import fastest_rows

        return fastest_rows(lm.model) or ROWS_CPU
    most = ROWS_ACCELERATOR
    if device.type != "cuda" or not prompts:
        return most
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    longest = max(len(lm.tokens(prompt)) for prompt in prompts) + _TEMPLATE
    return fitting(int((free + unused) * _USABLE), row_bytes(lm, longest, new_tokens), most)


_TEMPLATE = 64  # tokens that a chat template or a BOS may add


def fitting(room: int, row: int, most: int) -> int:
    """Rows of so many bytes that fit into `room`: at least one, at most `most`."""
    return max(1, min(most, room // row))


def row_bytes(lm: Readable, prompt_tokens: int, new_tokens: int) -> int:
    """Most bytes that one row of a generation takes, besides the weights.

    Its key-value cache at full length, one block's activations of the whole prompt, and the
    logits and masses from which a token is chosen.
    """
    config, width = text_config(lm.model), lm.model.dtype.itemsize
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head = getattr(config, "head_dim", None) or lm.d_model // heads
    inner = getattr(config, "intermediate_size", None) or 4 * lm.d_model
    cache = 2 * lm.n_layers * kv_heads * head * width * (prompt_tokens + new_tokens)
    prefill = prompt_tokens * (6 * lm.d_model + 3 * inner) * width
    return int(cache + prefill + config.vocab_size * _CHOOSING)
