"""How fast a model writes and is read on this machine, in one precision or another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerlab.models.language_model import LanguageModel
from steerlab.models.products import processor

ROWS = (1, 2, 16)
_OPENINGS = ("I think that", "Yesterday my neighbour", "The old house", "In the morning we")
_ENDINGS = (("was good", "was bad"), ("felt warm", "felt cold"), ("said yes", "said no"))
_PAIRS = [
    (f"{opening} {one}", f"{opening} {other}") for opening in _OPENINGS for one, other in _ENDINGS
]
_TRIES = 2


@dataclass(frozen=True)
class Speed:
    """What one precision takes, by wall time.

    tokens: number of rows -> tokens a second, of all rows together. extraction: prompts a second.
    difference: the largest of log-probabilities to those of the reference; None for itself.
    """

    dtype: str
    load: float
    tokens: dict[int, float]
    extraction: float
    difference: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "dtype": self.dtype,
            "load_seconds": self.load,
            "tokens_per_second": {str(rows): rate for rows, rate in self.tokens.items()},
            "prompts_per_second": self.extraction,
            "log_prob_difference": self.difference,
        }


def measure(
    load: Callable[[], LanguageModel], reference: Tensor | None = None, *, new_tokens: int = 16
) -> tuple[Speed, Tensor]:
    """Load a model and measure it; the log-probabilities to pass as the next one's reference."""
    from transformers import AutoModelForCausalLM  # noqa: F401  # whose import is no part of it

    seconds, lm = _timed(load)
    found = lm.next_log_probs(_OPENINGS)
    extraction, _ = min(
        (_timed(lambda: lm.extract(_PAIRS)) for _ in range(_TRIES)),
        key=lambda timed: timed[0],
    )
    speed = Speed(
        dtype=str(lm.model.dtype).removeprefix("torch."),
        load=seconds,
        tokens={rows: _rate(lm, rows, new_tokens) for rows in ROWS},
        extraction=2 * len(_PAIRS) / extraction,
        difference=None if reference is None else float((found - reference).abs().max()),
    )
    return speed, found


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _rate(lm: LanguageModel, rows: int, new_tokens: int) -> float:
    """Tokens a second, of the fastest of some tries."""
    prompts = [_OPENINGS[0]] * rows
    rates = []
    for _ in range(_TRIES):
        seconds, made = _timed(lambda: lm.generate(prompts, max_new_tokens=new_tokens))
        rates.append(sum(len(text.token_ids) for text in made) / seconds)
    return max(rates)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = call()
    return time.perf_counter() - start, made
