"""The next token under steering: how far its distribution moves, and known facts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steerlab.core.display import printable
from steerlab.core.setting import Setting, is_front
from steerlab.errors import BadPrompts
from steerlab.evaluation.metrics import passes
from steerlab.evaluation.metrics.items import Continuation, Fact, continuation
from steerlab.evaluation.metrics.passes import How, check_next
from steerlab.models.runtime import Row

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

Array = NDArray[np.float64]
_HELD = 2**24  # entries of baseline distributions in memory: 64 MiB


@dataclass(frozen=True)
class Contribution:
    """One token's part of a divergence: nats = p_s * (log p_s - log p)."""

    token: str
    nats: float


@dataclass(frozen=True, eq=False)
class Divergence:
    """KL(p_s‖p) of the next token in nats: (n_settings, n_prompts).

    top: [setting][prompt], the tokens that contribute most, in descending order.
    """

    nats: Array
    top: tuple[tuple[tuple[Contribution, ...], ...], ...]


def divergence(
    lm: LanguageModel,
    prompts: Sequence[str],
    settings: Sequence[Setting],
    *,
    top: int = 5,
    chat: bool = False,
    **how: Unpack[How],
) -> Divergence:
    """How far steering moves the distribution of the next token of each prompt.

    top: number of contributing tokens to name. Exactly 0 for the baseline.
    Raises BadOption for positions="continuation", which begins after that token.
    """
    check_next(how)
    bos = is_front(settings)
    ids = [tuple(lm.tokens(prompt, chat=chat, bos=bos)) for prompt in prompts]
    nats = np.zeros((len(settings), len(ids)))
    tops: list[list[tuple[Contribution, ...]]] = [[()] * len(ids) for _ in settings]
    steered = [s for s, setting in enumerate(settings) if not setting.is_baseline]
    total = len(ids) * (len(steered) + 1)
    size = max(1, _HELD // passes.vocabulary(lm))
    for start in range(0, len(ids), size):
        group, done = ids[start : start + size], start * (len(steered) + 1)
        plain = dict(_next(lm, group, [Setting()], _part(how, done, total)))
        ways = [settings[s] for s in steered]
        part = _part(how, done + len(group), total)
        for index, logs in _next(lm, group, ways, part):
            way, i = divmod(index, len(group))
            terms = _terms(logs, plain[i])
            nats[steered[way], start + i] = total_nats = float(terms.sum())
            if not math.isnan(total_nats):
                tops[steered[way]][start + i] = _largest(lm, terms, top)
    return Divergence(nats, tuple(map(tuple, tops)))


def answer_ranks(
    lm: LanguageModel, facts: Sequence[Fact], settings: Sequence[Setting], **how: Unpack[How]
) -> Array:
    """The rank of each fact's answer among all next tokens, 0 for the likeliest one.

    Returns (n_settings, n_facts). Equally likely tokens rank before the answer. NaN if logits
    overflow.
    Raises BadPrompts for an answer of several tokens (`single_token` removes those), BadOption
    for positions="continuation".
    """
    check_next(how)
    bos = is_front(settings)
    split = [_answered(lm, fact, bos) for fact in facts]
    rows = [
        Row(item.ids, item.start, item.start - 1, item.start, setting)
        for setting in settings
        for item in split
    ]
    ranks = np.full(len(rows), np.nan)
    for index, _, logits in passes.logits(lm, rows, **how):
        right = logits[0, rows[index].ids[-1]]
        if bool(torch.isfinite(logits[0].amax())):
            ranks[index] = float((logits[0] >= right).sum() - 1)
    return ranks.reshape(len(settings), len(split))


def single_token(lm: LanguageModel, facts: Sequence[Fact]) -> list[Fact]:
    """The facts whose answer is one token of this model's tokenizer."""

    def fits(fact: Fact) -> bool:
        try:
            _answered(lm, fact, False)
        except BadPrompts:
            return False
        return True

    return [fact for fact in facts if fits(fact)]


def _answered(lm: LanguageModel, fact: Fact, bos: bool) -> Continuation:
    item = continuation(lm, fact.prompt, fact.answer, bos=bos)
    if item.count != 1 or len(lm.tokens(fact.prompt, bos=bos)) != item.start:
        raise BadPrompts(
            f"the answer {printable(fact.answer)!r} to {printable(fact.prompt)!r} is not a single "
            f"token of {lm.source}, as P@K needs"
        )
    return item


def _next(
    lm: LanguageModel, ids: Sequence[tuple[int, ...]], settings: Sequence[Setting], how: How
) -> Iterator[tuple[int, Tensor]]:
    """Yields (setting * len(ids) + prompt, log-probabilities of the next token: (vocab,))."""
    rows = [Row(i, len(i), len(i) - 1, len(i), setting) for setting in settings for i in ids]
    for index, _, logits in passes.logits(lm, rows, **how):
        yield index, torch.log_softmax(logits[0], dim=-1)


def _terms(steered: Tensor, plain: Tensor) -> Tensor:
    """p_s * (log p_s - log p) of each token: (vocab,) float64; 0 where p_s is 0."""
    terms = steered.exp().double() * (steered.double() - plain.double())
    return torch.where(steered == -torch.inf, 0.0, terms)


def _largest(lm: LanguageModel, terms: Tensor, count: int) -> tuple[Contribution, ...]:
    values, ids = terms.topk(min(count, len(terms)))
    found = zip(ids.tolist(), values.tolist(), strict=True)
    return tuple(Contribution(lm.tokenizer.decode([token]), nats) for token, nats in found)


def _part(how: How, before: int, total: int) -> How:
    """The options for a part of the work, with progress in rows of the whole."""
    progress = how.get("progress")
    if progress is None:
        return how
    return {**how, "progress": lambda done, _: progress(before + done, total)}
