"""Metrics of one generated text. They need no model, are quick, and are easily fooled.

A value describes one text. That steering caused it takes a comparison with random directions of
the same norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlab.core.cell import Cell, MetricValue
    from steerlab.core.sweep import Sweep

Score = Callable[..., float]
"""(text) -> value, or (text, baseline) -> value; both without the prompt."""


@dataclass(frozen=True)
class Metric:
    """A number for one text, and its colour scale.

    low, high: the ends of the scale; high None: the largest value shown. A scale with both signs
        diverges at zero.
    compares: whether the value depends on the baseline, which the function then takes too.
    digits: decimals shown.
    """

    name: str
    about: str
    function: Score
    low: float = 0.0
    high: float | None = 1.0
    compares: bool = False
    digits: int = 2

    def score(self, text: str, baseline: str | None = None) -> float:
        """The value; NaN if it is undefined, its baseline is missing or the function fails."""
        return self.explained(text, baseline)[0]

    def explained(self, text: str, baseline: str | None = None) -> tuple[float, str]:
        """The value, and the reason why it is NaN; empty if it is not."""
        if self.compares and baseline is None:
            return math.nan, "there is no baseline to compare with"
        try:
            found = self.function(text, baseline) if self.compares else self.function(text)
            value = float(found)
        except Exception as error:  # one text must not end a sweep
            return math.nan, f"{type(error).__name__}: {error}".rstrip(": ")
        if not math.isfinite(value):
            return math.nan, f"its value is {value}"
        return value, ""

    def __call__(self, model: object, sweep: Sweep, cells: Sequence[Cell]) -> list[MetricValue]:
        """One value for each cell of a sweep, beside its baseline; uses no model."""
        from steerlab.core.cell import MetricValue

        plain = [sweep.baseline(cell) for cell in cells]
        pairs = zip(cells, plain, strict=True)
        found = [self.explained(c.text, None if p is None else p.text) for c, p in pairs]
        return [MetricValue(value, reason or None) for value, reason in found]

    def shown(self, value: float | None) -> str:
        """A value as text; "·" for None (not written yet), "–" for NaN."""
        if value is None:
            return "·"
        return "–" if math.isnan(value) else f"{value:{'+' * (self.low < 0)}.{self.digits}f}"


def words(text: str) -> list[str]:
    """The parts of a text between blanks."""
    return text.split()


def distinct(text: str, n: int) -> float:
    """Unique n-grams of words / all n-grams (Li et al., arXiv 1510.03055); 1 without repeats."""
    grams = _grams(words(text), n)
    return len(set(grams)) / len(grams) if grams else math.nan


def longest_run(text: str) -> float:
    """Length in words of the longest run that is repeated later, even if the two overlap.

    Nearly the length of the text if it loops; 0 without a repeated word.
    """
    found = words(text)
    return float(repeated_run(found)) if found else math.nan


def repeated_run(found: Sequence[Hashable]) -> int:
    """Length of the longest run of words, tokens or other values that is repeated later."""
    low, high = 0, max(len(found) - 1, 0)
    while low < high:  # a run that repeats begins with a shorter one that does
        middle = (low + high + 1) // 2
        grams = _grams(found, middle)
        if len(set(grams)) < len(grams):
            low = middle
        else:
            high = middle - 1
    return low


def length(text: str) -> float:
    """Number of words."""
    return float(len(words(text)))


def shared(text: str, baseline: str) -> float:
    """Number of leading words in common with the baseline / words of the longer text.

    1 if all words are the same, 0 if the first one differs.
    """
    ours, theirs = words(text), words(baseline)
    if not ours:
        return math.nan
    same = 0
    for a, b in zip(ours, theirs, strict=False):
        if a != b:
            break
        same += 1
    return same / max(len(ours), len(theirs))


def vader(text: str) -> float:
    """Compound sentiment from -1 to 1 by VADER's lexicon (Hutto and Gilbert, 2014); English."""
    return float(_analyzer().polarity_scores(text)["compound"]) if text.strip() else math.nan


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _grams(found: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def _known() -> list[Metric]:
    metrics = [
        Metric(f"distinct-{n}", f"unique {what} / all", partial(distinct, n=n))
        for n, what in ((1, "words"), (2, "pairs of words"), (3, "triples of words"))
    ]
    run = "longest repeated run, in words"
    metrics += [
        Metric("longest-run", run, longest_run, high=20.0, digits=1),
        Metric("length", "number of words", length, high=None, digits=1),
        Metric("shared", "leading words in common with the baseline / all", shared, compares=True),
    ]
    if find_spec("vaderSentiment") is not None:
        about = "English sentiment, by its lexicon"
        metrics.append(Metric("vader", about, vader, low=-1.0))
    return metrics


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _known()}
"""By name; with `vader` if the vaderSentiment package is installed."""
