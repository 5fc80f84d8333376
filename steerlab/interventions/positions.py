"""PositionTracker: the absolute positions of the current forward pass, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.errors import SteeringError
from steerlab.models.cache import Past, named_arguments, past_of

EVERYWHERE = torch.ones(())
"""Returned by `PositionTracker.where` if every position is meant: no mask is needed."""


class PositionTracker:
    """A forward pre-hook on the module that runs the blocks; it reads, and changes nothing.

    Positions count real tokens: padding has none, the first real token is at position 0. They
    follow from the cache length and the mask, never from the length of the pass, so they are
    right when decoding with or without a cache, and in chunked prefills.
    """

    def __init__(self, model: nn.Module, prompt_length: int | Sequence[int] | None = None) -> None:
        self.config = getattr(model, "config", None)
        self.given = prompt_length
        self.positions: Tensor | None = None  # (batch or 1, seq), -1 on padding
        self.prompt_lengths: Tensor | None = None  # (batch or 1, 1), real tokens
        self.cached = 0
        self.decoding = False
        self.prefill = False
        self.ambiguous = ""  # why it is unknown where the prompt ends
        self.in_chunks = False
        self._batch = 0
        self._unplaced = ""  # why this pass can't be placed at all
        self._ids: Tensor | None = None
        self._starts: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = named_arguments(module.forward, args, kwargs)
        ids, embeddings = given.get("input_ids"), given.get("inputs_embeds")
        if ids is None and embeddings is None and args:
            ids = args[0]
        tokens = ids if ids is not None else embeddings
        if tokens is None:
            raise SteeringError("the model was called with neither input_ids nor inputs_embeds")
        past = past_of(given)
        self.cached = past.length
        self._batch, seq = tokens.shape[:2]
        self._unplaced = _why_unplaced(past, given, seq)
        self.positions = self._positions(given, seq, tokens.device)
        uncached = not past.cached and given.get("use_cache") is False
        continues = uncached and self._extends(ids)
        self._note_prompt(seq, continues)
        self._ids = ids if uncached else None
        if self.prefill and not continues:
            self._starts = ids

    def forget(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""
        self._ids = self._starts = self.prompt_lengths = None
        self.decoding = False

    def where(self, positions: str) -> Tensor | None:
        """Where `positions` are in this pass: EVERYWHERE, None (nowhere) or a tensor.

        The tensor is (batch or 1, seq) bool; for "front", absolute positions, -1 on padding.
        """
        if positions == "all":
            return EVERYWHERE
        now, length = self._now()
        if self._unplaced:
            raise SteeringError(f"{self._unplaced}: steer at positions='all'")
        if positions == "front":
            return None if self.decoding and self.cached else now
        ambiguous = self.ambiguous
        if positions == "generated" and self.in_chunks:
            ambiguous = "the prompt came in several chunks"
        if ambiguous and self.given is None:
            raise SteeringError(
                f"{ambiguous}, so where the prompt ended is unknown: "
                "pass prompt_length to steering(...)"
            )
        if positions == "prompt":
            done = self.decoding and self.cached and self.given is None
            return None if done else (now >= 0) & (now < length)
        if positions == "generated":
            return now >= length - 1
        return now >= length  # continuation

    def check_front(self, spans: Tensor, starts: Tensor) -> None:
        """Raise SteeringError if a front vector does not fit the prompt.

        spans: (batch or 1,) rows of the front vector of each prompt, 0 for none.
        starts: (batch or 1,) bool, whether it adds something to the very first token.
        """
        _, length = self._now()
        lengths = length.flatten().to(spans.device)
        short = lengths < spans
        if bool(short.any()):
            n, rows = (int(x.expand_as(short)[short][0]) for x in (lengths, spans))
            raise SteeringError(
                f"the prompt has {n} tokens and the front vector covers {rows}: use a longer prompt"
            )
        if self.cached == 0 and bool((self._bare(spans.device) & (spans > 0) & ~starts).any()):
            raise SteeringError(
                "a front vector starts at the BOS token, but a prompt does not begin with "
                "it: put the model's BOS in front (LanguageModel.generate does)"
            )

    def _now(self) -> tuple[Tensor, Tensor]:
        if self.positions is None or self.prompt_lengths is None:
            raise SteeringError(
                "the blocks ran outside of the model's own forward pass, so positions are unknown: "
                "steer at positions='all'"
            )
        return self.positions, self.prompt_lengths.to(self.positions.device)

    def _positions(self, given: dict[str, Any], seq: int, device: torch.device) -> Tensor:
        mask = given.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            real = mask.to(torch.long)
            counted = (real.cumsum(-1) - 1).masked_fill(real == 0, -1)
            end = self.cached + seq  # a static cache's mask reaches further
            return counted[:, :end][:, -seq:].to(device)
        columns = torch.arange(self.cached, self.cached + seq, device=device).unsqueeze(0)
        if (places := _position_ids(given, seq)) is not None:
            # a mask already expanded hides the padding; the last column's position shows it
            padding = columns[:, -1:] - places[:, -1:].to(device)
            return (columns - padding).clamp(min=-1)
        return columns

    def _note_prompt(self, seq: int, continues: bool) -> None:
        """Decide whether this pass is prefill or decoding, and how long the prompt is."""
        assert self.positions is not None
        ends = self.positions.max(dim=-1, keepdim=True).values + 1  # (batch or 1, 1)
        first = self.cached == 0 and not continues
        if first:
            self.decoding, self.ambiguous = False, ""
        self.prefill = first or (not self.decoding and not continues and seq > 1)
        self.in_chunks = self.prefill and not first and self.prompt_lengths is not None
        if self.given is not None:
            self.prompt_lengths = self._given_lengths(self.given)
        elif self.prefill:
            self.prompt_lengths = ends
        elif seq > 1 and self.cached and self.decoding:
            self.ambiguous = "several tokens came in one decoding step (speculative decoding?)"
        elif self.prompt_lengths is None:  # entered in mid-generation: what is cached is prompt
            self.prompt_lengths = ends - seq
        self.decoding = not self.prefill

    def _given_lengths(self, given: int | Sequence[int]) -> Tensor:
        lengths = torch.as_tensor(given).reshape(-1, 1)
        if len(lengths) not in (1, self._batch):
            raise SteeringError(
                f"prompt_length has {len(lengths)} entries, but the batch has {self._batch} rows: "
                "give one, or one for each row"
            )
        return lengths

    def _extends(self, ids: Tensor | None) -> bool:
        """Whether an uncached pass repeats the previous one with more tokens at its end."""
        before = self._ids
        if ids is None or before is None or ids.shape[0] != before.shape[0]:
            return False
        grown = ids.shape[1] - before.shape[1]
        # beam search reorders what follows the prompt
        kept = self._starts if grown == 1 and self._starts is not None else before
        return grown > 0 and bool(torch.equal(ids[:, : kept.shape[1]], kept))

    def _bare(self, device: torch.device) -> Tensor:
        """For each prompt, whether it is known not to begin with BOS: (batch or 1,) bool."""
        allowed = self._start_ids()
        if self._starts is None or self.positions is None or not self.prefill or not allowed:
            return torch.zeros(1, dtype=torch.bool, device=device)
        first = self.positions.expand(len(self._starts), -1) == 0
        known = torch.isin(self._starts, torch.tensor(sorted(allowed), device=first.device))
        return (first & ~known).any(dim=-1).to(device)

    def _start_ids(self) -> set[int]:
        found: set[int] = set()
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(self.config, name, None)
            found.update(value if isinstance(value, list) else [] if value is None else [value])
        return found


def _position_ids(given: dict[str, Any], seq: int) -> Tensor | None:
    places = given.get("position_ids")
    fits = isinstance(places, Tensor) and places.ndim == 2 and places.shape[-1] == seq
    return places if fits else None


def _why_unplaced(past: Past, given: dict[str, Any], seq: int) -> str:
    """Why the tokens before this pass are unknown; "" if they are known."""
    if past.unknown:
        return (
            f"this model keeps its state in {past.unknown}, which does not tell how far it has come"
        )
    if past.length == 0:
        mask, places = given.get("attention_mask"), _position_ids(given, seq)
        # a static cache, still empty, has a mask as wide as it will become
        masked = isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > seq
        later = places is not None and bool((places[:, -1] >= seq).any())
        if later or (masked and not past.cached):
            return "the model was given no cache that steerlab knows, but has read tokens before"
    return ""
