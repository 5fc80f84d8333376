"""A transformers model without steerlab, which hooks, adapters and baked weights run in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steerlab.conformance.conform import Case


def load(case: Case, location: str | None = None) -> Any:
    """The model in float32 on the CPU, as transformers loads it.

    location: of other files than the case's own.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32}
    if location is None:
        options["revision"] = case.revision
    return AutoModelForCausalLM.from_pretrained(location or case.location, **options).eval()


class PlainSession:
    """A `Session` over a transformers model and its own loop."""

    def __init__(self, model: Any, ends: Sequence[int]) -> None:
        self.model, self.ends = model, list(ends)

    @torch.no_grad()
    def log_probs(self, ids: Sequence[int]) -> Tensor:
        """One pass without a cache."""
        found: Tensor = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return found.float().log_softmax(-1)

    def greedy(self, ids: Sequence[int], new_tokens: int) -> list[int]:
        """Transformers' `generate`, with a cache."""
        prompt = torch.tensor([ids])
        found = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=next(iter(self.ends), 0),
        )
        return [int(token) for token in found[0, len(ids) :]]
