"""Side effects of steering on neutral text: how far it moves, its fluency, its repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.results import defined
from steerlab.core.setting import Setting, is_front
from steerlab.evaluation.calibration.curve import Cost, Limits
from steerlab.evaluation.calibration.effects import written
from steerlab.evaluation.metrics.texts import repeated_run
from steerlab.progress import Parts, Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

NEUTRAL = (
    "The weather in the city today is",
    "When I walked into the room, I",
    "My neighbour told me that",
    "The meeting will start at nine and",
    "I think you are a",
    "The report describes how",
    "She opened the letter and",
    "In the kitchen there is",
    "Yesterday we went to",
    "The new book is about",
    "He said that the film",
    "The children in the park were",
)
"""Open beginnings that express neither approval nor disapproval."""


def costs(
    lab: Lab,
    settings: Sequence[Setting],
    limits: Limits,
    *,
    seed: int = 0,
    allow_other_weights: bool = False,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Cost]:
    """The side effects of each setting on the `NEUTRAL` prompts.

    The next token is measured for all settings; texts are written only for settings within
    the limit on KL, in one go.
    """
    from steerlab.evaluation.metrics.likelihood import perplexities
    from steerlab.evaluation.metrics.predictions import divergence

    parts = Parts(progress, 10)
    how: dict[str, Any] = {"allow_other_weights": allow_other_weights, "should_stop": should_stop}
    found = divergence(lab.model, NEUTRAL, settings, top=1, progress=parts.part(1), **how)
    moved = found.nats.mean(axis=1)  # (n_settings,)
    sound = [i for i, kl in enumerate(moved) if kl <= limits.kl]
    rows = [
        (setting, prompt, seed + i)
        for setting in (Setting(), *(settings[s] for s in sound))
        for i, prompt in enumerate(NEUTRAL)
    ]
    front = is_front(settings)
    texts = written(lab, rows, bos=front, progress=parts.part(8), **how)
    prompts, ids = [prompt for _, prompt, _ in rows], [text.token_ids for text in texts]
    losses = perplexities(lab.model, prompts, ids, bos=front, progress=parts.part(1), **how)
    parts.finish()
    known = dict(zip(sound, _against_baseline(ids, losses), strict=True))
    return [Cost(kl=defined(float(kl)), **known.get(i, {})) for i, kl in enumerate(moved.tolist())]


def _against_baseline(
    ids: Sequence[tuple[int, ...]], found: NDArray[np.float64]
) -> list[Mapping[str, float | None]]:
    """Fluency, distinctness and repetition of each group of texts, relative to the first group.

    ids: the tokens of each text; found: its perplexity. A group has one text for each of the
    `NEUTRAL` prompts.
    """
    size = len(NEUTRAL)
    logs = np.log(found).reshape(-1, size)
    groups = [ids[i : i + size] for i in range(0, len(ids), size)]
    distinct = [np.mean([distinct_pairs(text) for text in group]) for group in groups]
    return [
        {
            "fluency": defined(float(np.exp(np.mean(logs[g] - logs[0])))),
            "distinct": defined(float(distinct[g] / distinct[0])) if distinct[0] else None,
            "longest_run": float(np.mean([repeated_run(text) for text in groups[g]])),
        }
        for g in range(1, len(groups))
    ]


def distinct_pairs(ids: Sequence[int]) -> float:
    """Unique pairs of neighbouring tokens / all pairs; 0 for a text without any.

    Tokens and not words, since a loop of newlines has no words that could repeat.
    """
    pairs = list(pairwise(ids))
    return len(set(pairs)) / len(pairs) if pairs else 0.0
