"""What steering costs: how far neutral text moves, how fluent it stays, whether it loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from steerlab.core.results import defined
from steerlab.core.setting import Setting
from steerlab.evaluation.calibration.curve import Cost, Limits
from steerlab.evaluation.calibration.effects import written
from steerlab.evaluation.metrics.texts import repeated_run
from steerlab.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.models.generation import Completion

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
"""Beginnings that leave open what comes, and say neither good nor bad."""


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
    """What each setting does to neutral prompts: the next token first, then whole texts.

    Texts are written only for settings within the limit on KL, all in one go.
    """
    from steerlab.evaluation.metrics.predictions import divergence

    share = _Shares(progress)
    moved = divergence(
        lab.model,
        NEUTRAL,
        settings,
        top=1,
        allow_other_weights=allow_other_weights,
        progress=share.part(0, 1),
        should_stop=should_stop,
    ).nats.mean(axis=1)  # (n_settings,)
    sound = [i for i, kl in enumerate(moved) if kl <= limits.kl]
    rows = [
        (prompt, seed + i, setting)
        for setting in (Setting(), *(settings[s] for s in sound))
        for i, prompt in enumerate(NEUTRAL)
    ]
    front = any(s.vector is not None and s.vector.scope == "front" for s in settings)
    texts = written(
        lab,
        rows,
        bos=front,
        allow_other_weights=allow_other_weights,
        progress=share.part(1, 8),
        should_stop=should_stop,
    )
    groups = [texts[i : i + len(NEUTRAL)] for i in range(0, len(texts), len(NEUTRAL))]
    known = dict(zip(sound, _judged(lab, groups, front, share, should_stop), strict=True))
    return [Cost(kl=defined(float(kl)), **known.get(i, {})) for i, kl in enumerate(moved.tolist())]


def _judged(
    lab: Lab,
    groups: Sequence[Sequence[Completion]],
    front: bool,
    share: _Shares,
    should_stop: ShouldStop | None,
) -> list[Mapping[str, float | None]]:
    """Fluency, distinctness and runs of each group of texts against the first, the baseline."""
    from steerlab.evaluation.metrics.likelihood import perplexities

    ids = [text.token_ids for group in groups for text in group]
    found = perplexities(
        lab.model,
        [*NEUTRAL] * len(groups),
        ids,
        bos=front,
        progress=share.part(9, 1),
        should_stop=should_stop,
    )
    logs = np.log(found).reshape(len(groups), len(NEUTRAL))
    distinct = [np.mean([distinct_pairs(text.token_ids) for text in group]) for group in groups]
    runs = [np.mean([repeated_run(text.token_ids) for text in group]) for group in groups]
    return [
        {
            "fluency": defined(float(np.exp(np.mean(logs[g] - logs[0])))),
            "distinct": defined(float(distinct[g] / distinct[0])) if distinct[0] else None,
            "longest_run": float(runs[g]),
        }
        for g in range(1, len(groups))
    ]


def distinct_pairs(ids: Sequence[int]) -> float:
    """Unique pairs of neighbouring tokens / all of them; 0 for a text without any.

    Over tokens and not words: a loop of line ends has no words that could repeat.
    """
    pairs = list(pairwise(ids))
    return len(set(pairs)) / len(pairs) if pairs else 0.0


class _Shares:
    """Progress of a part as progress of the whole, which is ten."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def part(self, before: float, size: float) -> Progress | None:
        """What a part that begins at `before` and takes `size` calls."""
        progress = self.progress
        if progress is None:
            return None
        return lambda done, total: progress(
            round(100 * (before + size * done / max(total, 1))), 1000
        )
