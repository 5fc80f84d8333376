"""From the residual stream to logits, through the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steerlab.errors import ModelError
from steerlab.models.blocks import input_device, weights_present
from steerlab.models.inference import eval_mode
from steerlab.models.interrupts import attached
from steerlab.models.interventions import begin_prompt
from steerlab.models.protocols import Readable
from steerlab.models.uncompiled import Uncompiled

Array = NDArray[np.float64]

_ROWS = 8192  # of the unembedding that are in float32 at a time


@dataclass(frozen=True)
class FinalNorm:
    """The final norm without its scale: x -> gain * (x - mean(x) if centred else x).

    gain: (d_model,). A LayerNorm is centred, an RMSNorm is not. A bias is left out: it is the
    same for every x, so differences lose it.
    """

    gain: Array
    centred: bool

    def linear(self, directions: Array) -> Array:
        """The linear part of the norm; directions: (n, d_model)."""
        return np.asarray(self._inside(directions) * self.gain)

    def scaled(self, x: Array) -> Array:
        """The normed residual stream, without bias; x: (n, d_model)."""
        sizes = np.sqrt((self._inside(x) ** 2).mean(axis=1, keepdims=True))
        return np.asarray(self.linear(x) / sizes)

    def _inside(self, x: Array) -> Array:
        return x - x.mean(axis=1, keepdims=True) if self.centred else x


class _Stop(Exception):
    pass


def final_norm(lm: Readable) -> FinalNorm:
    """The final norm, found by its effect and not by its name.

    Probes replace the output of the last block, and the input of the unembedding is read. A row
    of zeros shows the bias, a constant row whether the mean is subtracted, a row of alternating
    signs the gain (Gemma's 1 + weight too). A random row of another size confirms the result.
    Raises ModelError if the model does something else between its last block and unembedding.
    """
    signs = np.where(np.arange(lm.d_model) % 2 == 0, 1.0, -1.0)
    noise = np.random.default_rng(0).standard_normal(lm.d_model)
    probes = np.stack([np.zeros(lm.d_model), np.full(lm.d_model, 16.0), 16 * signs, 64 * noise])
    seen = _after_the_blocks(lm, probes)
    if seen.shape != probes.shape or not np.isfinite(seen).all():
        raise _unreadable(lm)
    constant, alternating, random = seen[1:] - seen[0]
    bare = FinalNorm(
        np.ones(lm.d_model), bool(np.linalg.norm(constant) < 0.1 * np.linalg.norm(alternating))
    )
    found = FinalNorm(alternating / bare.scaled(16 * signs[None])[0], bare.centred)
    rest = np.linalg.norm(found.scaled(64 * noise[None])[0] - random)
    if not rest < _tolerance(lm) * np.linalg.norm(random):
        raise _unreadable(lm)
    return found


def _tolerance(lm: Readable) -> float:
    return 1e-3 if lm.model.dtype in (torch.float32, torch.float64) else 0.03


def _unreadable(lm: Readable) -> ModelError:
    return ModelError(
        f"{lm.source} has no final norm that can be read: what stands between its last block and "
        "its unembedding is neither an RMSNorm nor a LayerNorm, so no tokens can be named"
    )


@torch.no_grad()
def _after_the_blocks(lm: Readable, probes: Array) -> Array:
    """The input of the unembedding when the last block writes these rows: (n, d_model)."""
    head = _head(lm)
    seen: list[Tensor] = []

    def replace(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output  # (1, seq, d_model)
        put = torch.as_tensor(probes, dtype=hidden.dtype, device=hidden.device)
        put = put.reshape(hidden.shape)
        return (put, *output[1:]) if isinstance(output, tuple) else put

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else next(iter(kwargs.values())))
        raise _Stop

    hooks = (
        partial(lm.blocks[-1].register_forward_hook, replace),
        partial(head.register_forward_pre_hook, keep, with_kwargs=True),
    )
    with lm.lock, eval_mode(lm.model), attached(Uncompiled, *hooks):
        begin_prompt(lm.model)
        ids = torch.ones(1, len(probes), dtype=torch.long, device=input_device(lm.model))
        with suppress(_Stop):
            lm.model(input_ids=ids, use_cache=False)
    if not seen:
        raise _unreadable(lm)
    return np.asarray(seen[0].reshape(len(probes), -1).double().cpu().numpy())


def _head(lm: Readable) -> nn.Module:
    head = lm.model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise ModelError(
            f"{lm.source} has no unembedding matrix that can be read, so no tokens can be named"
        )
    return head  # type: ignore[no-any-return]  # transformers does not say


@torch.no_grad()
def logits(lm: Readable, inside: Array) -> NDArray[np.float32]:
    """The logits of these rows at the input of the unembedding, without a bias.

    inside: (n, d_model). Returns (n, vocabulary) float32. A scale that the model puts on its
    logits is in them; softcapping is left out: it changes no ranking.
    vocabulary: rows that the tokenizer has tokens for, without padding.
    """
    head = _head(lm)
    with weights_present(head):
        rows = min(len(head.weight), len(lm.tokenizer))  # type: ignore[arg-type]
        parts = [part.cpu().numpy() for part in _products(head.weight, inside, rows)]  # type: ignore[arg-type]
        scale = _scale(lm, head)
    return np.float32(scale) * np.concatenate(parts, axis=1)


def _scale(lm: Readable, head: nn.Module) -> float:
    """What the model multiplies its logits by after the unembedding (Granite, Cohere, Falcon-H1).

    Rows of zeros and of small random numbers take the place of the unembedding's input. Raises
    ModelError if what comes out is not proportional to the unembedding's own output.
    """
    seen: list[Tensor] = []
    noise = 0.01 * np.random.default_rng(1).standard_normal((1, 2, lm.d_model))
    noise[0, 0] = 0

    def put(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, hidden = ("", args[0]) if args else next(iter(kwargs.items()))
        rows = torch.as_tensor(noise, dtype=hidden.dtype, device=hidden.device)
        return ((rows, *args[1:]), kwargs) if args else (args, {**kwargs, name: rows})

    def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.append(output)

    hooks = (
        partial(head.register_forward_pre_hook, put, with_kwargs=True),
        partial(head.register_forward_hook, keep),
    )
    with lm.lock, eval_mode(lm.model), attached(Uncompiled, *hooks):
        begin_prompt(lm.model)
        ids = torch.ones(1, 2, dtype=torch.long, device=input_device(lm.model))
        out = lm.model(input_ids=ids, use_cache=False).logits
    before, after = (x[0].double().cpu().numpy() for x in (seen[0], out))
    before, after = before[1] - before[0], after[1] - after[0]
    scale = float(before @ after / (before @ before))
    if np.linalg.norm(after - scale * before) > _tolerance(lm) * np.linalg.norm(after):
        raise ModelError(
            f"{lm.source} changes its logits after the unembedding in a way that can't be read, so "
            "no tokens can be named"
        )
    return scale


def _products(weight: Tensor, inside: Array, rows: int) -> Iterator[Tensor]:
    x = torch.as_tensor(inside, dtype=torch.float32, device=weight.device)  # (n, d_model)
    for start in range(0, rows, _ROWS):
        yield x @ weight[start : min(start + _ROWS, rows)].float().T  # (n, rows)
