"""Likelihoods under steering: of continuations, contrasts and texts; perplexities of new texts.

Every function measures all items under all settings in few batches (see `passes`), and returns
natural logarithms in float64, from float32 logits. A coefficient of 0 gives exactly the baseline.
If a setting has a front vector, all sequences of the call begin with BOS, so that they differ
from the baseline by the steering alone. NaN where a model's logits overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from steerlab.core.setting import Setting, is_front
from steerlab.errors import BadOption
from steerlab.evaluation.metrics import passes
from steerlab.evaluation.metrics.items import (
    Continuation,
    ContrastItem,
    continuation,
    contrast,
)
from steerlab.evaluation.metrics.passes import How
from steerlab.models.runtime import Row

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PerplexityRatio:
    """Perplexity of texts, steered over unsteered: above 1 they are less likely.

    each: (n_settings, n_texts). counts: (n_settings, n_texts), tokens scored; the ratio is NaN
    for 0.
    """

    each: Array
    counts: NDArray[np.int64]


def token_log_probs(
    lm: LanguageModel,
    items: Sequence[Continuation],
    settings: Sequence[Setting],
    *,
    lengths: Sequence[Sequence[int]] | None = None,
    **how: Unpack[How],
) -> list[list[Array]]:
    """The log p_s of every scored token given all before it: [setting][item] -> (tokens,).

    lengths: [setting][item], tokens of the prompt for positions that depend on it; None takes
        each item's context.
    """
    lengths = lengths or [[item.start for item in items]] * len(settings)
    rows = [
        _row(item, length, setting)
        for setting, prompts in zip(settings, lengths, strict=True)
        for item, length in zip(items, prompts, strict=True)
    ]
    found = _row_log_probs(lm, rows, **how)
    return [found[s * len(items) : (s + 1) * len(items)] for s in range(len(settings))]


def propensity(
    lm: LanguageModel,
    items: Sequence[ContrastItem],
    settings: Sequence[Setting],
    *,
    chat: bool = False,
    **how: Unpack[How],
) -> Array:
    """The log-odds of each item's two continuations under each setting, in nats.

    Returns (n_settings, n_items). The slope over the coefficient is the steerability; see
    `statistics.steerability`.
    """
    bos = is_front(settings)
    pairs = [contrast(lm, item, chat=chat, bos=bos) for item in items]
    requests = [(pair, setting) for setting in settings for pair in pairs]
    return log_odds(lm, requests, **how).reshape(len(settings), len(pairs))


def log_odds(
    lm: LanguageModel,
    requests: Sequence[tuple[tuple[Continuation, Continuation], Setting]],
    **how: Unpack[How],
) -> Array:
    """M = log p_s(positive | prompt) - log p_s(negative | prompt) of each request, in nats."""
    rows = [_row(side, side.start, setting) for pair, setting in requests for side in pair]
    sums = np.array([float(values.sum()) for values in _row_log_probs(lm, rows, **how)])
    return np.asarray(sums[::2] - sums[1::2])


def perplexity_ratio(
    lm: LanguageModel,
    texts: Sequence[str | tuple[str, str]],
    settings: Sequence[Setting],
    **how: Unpack[How],
) -> PerplexityRatio:
    """exp(-sum(log p_s - log p) / n) of each text under each setting (arXiv 2308.10248).

    texts: a text, scored but for its first token (or BOS), or (prompt, text), of which the text
        is scored. A vector that acts on the first tokens only (a front vector, or any vector at
        positions="prompt") is judged by what follows: predictions made at its own positions are
        left out, for the steered and the unsteered model alike.
    """
    bos = is_front(settings)
    split = [_as_continuation(lm, text, bos) for text in texts]
    # a front vector may reach beyond the prompt, since the whole text is known
    lengths = [[len(i.ids) if is_front([s]) else i.start for i in split] for s in settings]
    starts = [[i.start for i in split]]
    every = [Setting(), *settings]
    plain, *steered = token_log_probs(lm, split, every, lengths=starts + lengths, **how)
    losses = np.zeros((len(settings), len(split)))
    counts = np.zeros(losses.shape, dtype=np.int64)
    for s, setting in enumerate(settings):
        for i, item in enumerate(split):
            skipped = max(0, _covered(setting, item, how) + 1 - item.start)
            difference = plain[i][skipped:] - steered[s][i][skipped:]
            losses[s, i], counts[s, i] = difference.sum(), len(difference)
    with np.errstate(invalid="ignore", over="ignore"):
        each = np.exp(losses / np.where(counts, counts, np.nan))
    return PerplexityRatio(each, counts)


def perplexities(
    lm: LanguageModel,
    prompts: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    *,
    chat: bool = False,
    bos: bool = False,
    limit: int | None = None,
    **how: Unpack[How],
) -> Array:
    """Perplexity of the text after each prompt, by the unsteered model: (n,).

    token_ids: the tokens of each text, the end of text included; NaN for a text without any.
    bos: whether the prompts began with BOS, as with a front vector.
    limit: number of tokens of each text to score; None scores all, which takes a CPU about 0.6
        of the time of writing them.
    """
    if len(prompts) != len(token_ids):
        raise BadOption(f"{len(prompts)} prompts for {len(token_ids)} texts: give one for each")
    if limit is not None and limit < 1:
        raise BadOption(f"a perplexity needs at least one token, not {limit}")
    items = {
        index: continuation(lm, tuple(lm.tokens(prompt, chat=chat, bos=bos)), tuple(ids[:limit]))
        for index, (prompt, ids) in enumerate(zip(prompts, token_ids, strict=True))
        if ids
    }
    found = token_log_probs(lm, list(items.values()), [Setting()], **how)[0]
    values = np.full(len(prompts), np.nan)
    with np.errstate(over="ignore"):
        values[list(items)] = [np.exp(-v.mean()) for v in found]
    return values


def _row(item: Continuation, prompt_length: int, setting: Setting) -> Row:
    """The row whose columns predict the tokens to score."""
    return Row(item.ids, prompt_length, item.start - 1, len(item.ids) - 1, setting)


def _row_log_probs(lm: LanguageModel, rows: Sequence[Row], **how: Unpack[How]) -> list[Array]:
    """The log p_s of the tokens that the columns of each row predict: [row] -> (columns,)."""
    found = [np.zeros(row.stop - row.first) for row in rows]
    for index, first, logits in passes.logits(lm, rows, **how):
        row = rows[index]
        targets = torch.tensor(row.ids[first + 1 : first + 1 + len(logits)], device=logits.device)
        values = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=1)
        start = first - row.first
        found[index][start : start + len(values)] = values.double().cpu().numpy()
    return found


def _as_continuation(lm: LanguageModel, text: str | tuple[str, str], bos: bool) -> Continuation:
    prompt, rest = ("", text) if isinstance(text, str) else text
    if not prompt and not bos:  # its first token is the context
        ids = tuple(lm.tokens(rest))
        return Continuation(ids, 1) if len(ids) > 1 else continuation(lm, (), ids)
    return continuation(lm, prompt, rest, bos=bos)


def _covered(setting: Setting, item: Continuation, how: How) -> int:
    """Number of leading positions if only these are steered; 0 if steering goes on."""
    if setting.is_baseline or setting.vector is None:
        return 0
    if setting.vector.scope == "front":
        return max(len(rows) for rows in setting.vector.directions.values())
    return item.start if how.get("positions") == "prompt" else 0
