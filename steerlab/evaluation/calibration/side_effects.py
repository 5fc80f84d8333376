"""Side effects of steering on neutral text: how far it moves, its fluency, its repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.results import defined
from steerlab.core.setting import Setting, is_front
from steerlab.evaluation.calibration.curve import Cost, FreshCost, Limits
from steerlab.evaluation.calibration.effects import written
from steerlab.evaluation.metrics.texts import repeated_run
from steerlab.evaluation.statistics import Estimate, estimate, share
from steerlab.progress import Parts, Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

Array = NDArray[np.float64]

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


FRESH = (
    "The train to the coast was",
    "My sister has always been",
    "On the table there was",
    "The teacher explained that",
    "After the long winter, the town",
    "He looked at the map and",
    "The recipe calls for",
    "Our new office is",
    "When the rain stopped, they",
    "The company announced that",
    "In the library I found",
    "The old man at the corner",
    "Every morning she",
    "The results of the study",
    "They decided to meet at",
    "The garden behind the house",
    "I have been thinking about",
    "The first chapter begins with",
    "A friend of mine once",
    "The road through the valley",
    "At the end of the day,",
    "The museum opens",
    "What people often forget is",
    "The phone rang and",
)
"""Further such beginnings: on these, doses that the others chose are checked."""

_FRESH_SEEDS = 1000  # their texts share no seed with those that choose


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
    from steerlab.evaluation.metrics.predictions import divergence

    parts = Parts(progress, 10)
    how: dict[str, Any] = {"allow_other_weights": allow_other_weights, "should_stop": should_stop}
    found = divergence(lab.model, NEUTRAL, settings, top=1, progress=parts.part(1), **how)
    moved = found.nats.mean(axis=1)  # (n_settings,)
    sound = [i for i, kl in enumerate(moved) if kl <= limits.kl]
    how["bos"] = is_front(settings)
    ids, losses = _texts(lab, [settings[s] for s in sound], NEUTRAL, seed, parts, how)
    known = dict(zip(sound, _against_baseline(ids, losses), strict=True))
    return [Cost(kl=defined(float(kl)), **known.get(i, {})) for i, kl in enumerate(moved.tolist())]


def fresh_costs(
    lab: Lab,
    settings: Sequence[Setting],
    limits: Limits,
    *,
    seed: int = 0,
    allow_other_weights: bool = False,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[FreshCost]:
    """The side effects of each setting on texts after the `FRESH` prompts."""
    how: dict[str, Any] = {"allow_other_weights": allow_other_weights, "should_stop": should_stop}
    how["bos"] = is_front(settings)
    ids, losses = _texts(lab, settings, FRESH, seed + _FRESH_SEEDS, Parts(progress, 9), how)
    logs = np.log(losses).reshape(-1, len(FRESH))
    pairs = np.array([distinct_pairs(text) for text in ids]).reshape(-1, len(FRESH))
    return [
        _fresh(setting.dose or 0.0, logs[s] - logs[0], pairs[s], pairs[0], limits)
        for s, setting in enumerate(settings, 1)
    ]


def _texts(
    lab: Lab,
    settings: Sequence[Setting],
    prompts: Sequence[str],
    seed: int,
    parts: Parts,
    how: Mapping[str, Any],
) -> tuple[list[tuple[int, ...]], Array]:
    """Tokens and perplexity of a text for each prompt: unsteered, then under each setting."""
    from steerlab.evaluation.metrics.likelihood import perplexities

    rows = [(s, p, seed + i) for s in (Setting(), *settings) for i, p in enumerate(prompts)]
    ids = [text.token_ids for text in written(lab, rows, progress=parts.part(8), **how)]
    given = [prompt for _, prompt, _ in rows]
    losses = perplexities(lab.model, given, ids, progress=parts.part(1), **how)
    parts.finish()
    return ids, losses


def _fresh(dose: float, logs: Array, pairs: Array, plain: Array, limits: Limits) -> FreshCost:
    """logs: of each text's perplexity ratio; pairs, plain: its distinct pairs, and unsteered."""
    known, scale = not np.isnan(logs).any(), float(plain.mean()) or math.nan
    return FreshCost(
        dose,
        _mapped(estimate(logs), _exp) if known else Estimate(math.nan),
        _mapped(estimate(pairs - plain), lambda change: 1 + change / scale),
        share(np.where(np.isnan(logs), 1.0, logs > math.log(limits.fluency))),
    )


def _mapped(found: Estimate, function: Callable[[float], float]) -> Estimate:
    return Estimate(function(found.mean), function(found.low), function(found.high), found.n)


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


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
