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
from steerlab.evaluation.calibration.curve import FreshCost, Limits
from steerlab.evaluation.calibration.effects import written
from steerlab.evaluation.statistics import Estimate, estimate, share
from steerlab.progress import Parts, Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.core.cell import Key
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
"""Further such beginnings: texts after these decide which doses are sound."""

_HALF = len(FRESH) // 2
_FRESH_SEEDS = 1000  # their texts share no seed with those of a metric


class SideEffects:
    """Measures side effects; equal texts, such as the unsteered ones, are written once."""

    def __init__(
        self,
        lab: Lab,
        limits: Limits,
        *,
        seed: int = 0,
        allow_other_weights: bool = False,
        parts: Parts | None = None,
        should_stop: ShouldStop | None = None,
    ) -> None:
        self.lab, self.limits, self.seed = lab, limits, seed
        self.parts = parts or Parts(None, 1)
        self._how: dict[str, Any] = {
            "allow_other_weights": allow_other_weights,
            "should_stop": should_stop,
        }
        self._made: dict[Key, tuple[int, ...]] = {}
        self._known: dict[Key, tuple[float, float]] = {}  # log perplexity, distinct pairs

    def kl(
        self, settings: Sequence[Setting], weight: float, prompts: Sequence[str] = NEUTRAL
    ) -> list[float | None]:
        """Mean KL of the next token of prompts; weight: share of the progress."""
        from steerlab.evaluation.metrics.predictions import divergence

        how = {**self._how, "progress": self.parts.part(weight)}
        found = divergence(self.lab.model, prompts, settings, top=1, **how)
        return [defined(float(nats)) for nats in found.nats.mean(axis=1)]

    def fresh(
        self, settings: Sequence[Setting], lower: Sequence[Setting | None], weight: float
    ) -> list[FreshCost]:
        """Fluency and repetition of texts after the `FRESH` prompts.

        Half of the texts are enough for a setting that these clearly turn down.
        lower: for each setting the one that follows if it is turned down. The first texts of these
        are written along, as long as they may be needed: on a CPU, a batch of 48 rows takes half
        the time of four batches of 12.
        """
        found = self.after(FRESH[:_HALF], settings, weight / 2, [s for s in lower if s])
        beyond = [cost.beyond(self.limits) for cost in found]
        rest = [s for s, gone in enumerate(beyond) if not gone]
        along = [s for s, gone in zip(lower, beyond, strict=True) if s and gone]
        undecided = [settings[s] for s in rest]
        whole = self.after(FRESH, undecided, weight / 2, along) if rest else []
        for s, cost in zip(rest, whole, strict=True):
            found[s] = cost
        return found

    def after(
        self,
        prompts: Sequence[str],
        settings: Sequence[Setting],
        weight: float = 0,
        along: Sequence[Setting] = (),
    ) -> list[FreshCost]:
        """Fluency and repetition of one text after each prompt.

        weight: share of the progress. along: settings whose first texts are only written.
        """
        seeds = range(self.seed + _FRESH_SEEDS, self.seed + _FRESH_SEEDS + len(prompts))
        seeded = list(zip(prompts, seeds, strict=True))
        rows = [(s, *some) for s in (Setting(), *settings) for some in seeded]
        parts, how = [self.parts.part(weight * share) for share in (0.8, 0.2)], dict(self._how)
        how["bos"] = is_front(settings)
        more = [(s, *some) for s in along for some in seeded[:_HALF]]
        if not set(rows) <= set(self._made):
            self._write([*rows, *more], parts[0], how)
        self._score(rows, parts[1], how)
        found = np.array([self._known[row] for row in rows])
        logs, pairs = found.T.reshape(2, 1 + len(settings), len(prompts))
        return [
            _fresh(setting.dose or 0.0, logs[s] - logs[0], pairs[s], pairs[0], self.limits)
            for s, setting in enumerate(settings, 1)
        ]

    def _write(
        self, rows: Sequence[Key], progress: Progress | None, how: Mapping[str, Any]
    ) -> None:
        """Write the texts of rows that have none."""
        new = [row for row in dict.fromkeys(rows) if row not in self._made]
        texts = written(self.lab, new, progress=progress, **how)
        self._made |= {row: text.token_ids for row, text in zip(new, texts, strict=True)}

    def _score(
        self, rows: Sequence[Key], progress: Progress | None, how: Mapping[str, Any]
    ) -> None:
        """Measure the texts of rows that are not measured yet."""
        from steerlab.evaluation.metrics.likelihood import perplexities

        new = [row for row in dict.fromkeys(rows) if row not in self._known]
        made, given = [self._made[row] for row in new], [prompt for _, prompt, _ in new]
        logs = np.log(perplexities(self.lab.model, given, made, progress=progress, **how))
        scored = zip(new, logs.tolist(), made, strict=True)
        self._known |= {row: (log, distinct_pairs(ids)) for row, log, ids in scored}


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


def distinct_pairs(ids: Sequence[int]) -> float:
    """Unique pairs of neighbouring tokens / all pairs; 0 for a text without any.

    Tokens and not words, since a loop of newlines has no words that could repeat.
    """
    pairs = list(pairwise(ids))
    return len(set(pairs)) / len(pairs) if pairs else 0.0
