"""How a model has to be run, so that its texts and activations are its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from enum import Enum
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steerlab.models import generation
from steerlab.models.blocks import modules_in
from steerlab.models.interrupts import attached
from steerlab.models.interventions import begin_prompt
from steerlab.models.protocols import Steerable
from steerlab.models.threads import dismiss_team

_STEPS = 3  # of decoding that are tried

_batching: WeakKeyDictionary[nn.Module, Batching] = WeakKeyDictionary()
"""Model -> which of its rows may share a batch, as tried."""


class Batching(Enum):
    """Which rows give in a batch what they give alone."""

    ANY = "any"
    SAME_LENGTH = "same length"
    NONE = "none"


def eval_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Run a model without dropout inside the `with` block.

    At its end modes are put back, and this thread's team of threads is dismissed.
    """
    return attached(partial(_Evaluating, model))


@torch.no_grad()
def log_probs(lm: Steerable, ids: Sequence[int]) -> Tensor:
    """Log-probabilities of the next token after each token of a new text, steered if it is.

    (tokens, vocab) float32 on the CPU.
    """
    begin_prompt(lm.model)
    with lm.lock, eval_mode(lm.model):
        found: Tensor = lm.model(torch.tensor([ids], device=lm.model.device)).logits[0]
    return found.float().log_softmax(-1).cpu()


class _Evaluating:
    """Keeps a model from training until it is removed."""

    def __init__(self, model: nn.Module) -> None:
        self._training = [module for module in modules_in(model) if module.training]
        for module in self._training:
            module.training = False

    def remove(self) -> None:
        """Put the modes back; does nothing the second time."""
        while self._training:
            self._training[-1].training = True
            self._training.pop()
        dismiss_team()


def batches_of_rows(model: Any, ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows of a batch that may run together: all, unless the model can't batch rightly.

    Some recurrent models ignore the mask, so padding changes a row (RecurrentGemma); some mix the
    states of rows (RWKV) or place padding wrongly when they decode (MiniMax).
    """
    batching = Batching.ANY if len(ids) < 2 else _batching_of(model)
    rows: dict[object, list[int]] = {}
    for row, tokens in enumerate(ids):
        key = {Batching.ANY: None, Batching.SAME_LENGTH: len(tokens), Batching.NONE: row}[batching]
        rows.setdefault(key, []).append(row)
    return list(rows.values())


def _batching_of(model: Any) -> Batching:
    """Tried once for each model, unsteered."""

    def trial(row: list[int], other: list[int]) -> bool:
        return Context().run(_agrees_with_itself, model, row, other)

    if model not in _batching:
        if trial([3, 4, 5], [3] * 11):
            _batching[model] = Batching.ANY
        # one token is what a step of decoding has
        elif trial([3, 4, 5], [6, 7, 8]) and trial([7], [9]):
            _batching[model] = Batching.SAME_LENGTH
        else:
            _batching[model] = Batching.NONE
    return _batching[model]


def _agrees_with_itself(model: Any, row: list[int], other: list[int]) -> bool:
    """Whether a row gives beside another what it gives alone, in the prompt and in decoding."""
    alone = generation.greedy_log_probs(model, [row], _STEPS)[:, 0]
    beside = generation.greedy_log_probs(model, [row, other], _STEPS)[: len(alone), 0]
    precise = model.dtype in (torch.float32, torch.float64)
    return bool((alone - beside).abs().max() < (1e-3 if precise else 0.25))
