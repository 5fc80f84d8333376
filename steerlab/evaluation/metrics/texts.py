"""Metrics of one generated text that need no model: quick to compute, easily fooled alone.

A value says something about one text, never that steering did it: that takes random directions
of the same norm for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

Score = Callable[[str, str], float]
"""(text, baseline) -> value; both without their prompt."""


@dataclass(frozen=True)
class Metric:
    """A number for one text, and the scale that it is coloured on.

    low, high: the ends of the scale; high None: the largest value at hand. A scale from below
        zero to above it diverges from there.
    compares: whether the value depends on the baseline.
    digits: decimals worth showing.
    """

    name: str
    about: str
    function: Score
    low: float = 0.0
    high: float | None = 1.0
    compares: bool = False
    digits: int = 2

    def score(self, text: str, baseline: str | None = None) -> float:
        """The value; NaN where it is undefined, its baseline is missing or the scorer fails."""
        return self.explained(text, baseline)[0]

    def explained(self, text: str, baseline: str | None = None) -> tuple[float, str]:
        """The value, and why there is none; empty where there is one."""
        if self.compares and baseline is None:
            return math.nan, "there is no baseline to compare with"
        try:
            found = self.function(text, baseline or "")
            value = float(found)
        except Exception as error:  # one text that a scorer can't take must not end a sweep
            return math.nan, f"{type(error).__name__}: {error}".rstrip(": ")
        if not math.isfinite(value):
            return math.nan, f"its value is {value}"
        return value, ""

    def shown(self, value: float | None) -> str:
        """A value in few characters; "·" for None (not written yet), "–" for NaN."""
        if value is None:
            return "·"
        return "–" if math.isnan(value) else f"{value:{'+' * (self.low < 0)}.{self.digits}f}"


def words(text: str) -> list[str]:
    """What blanks separate, as it stands."""
    return text.split()


def distinct(text: str, n: int) -> float:
    """Unique n-grams / n-grams, over words (Li et al., arXiv 1510.03055): 1 where none repeats."""
    grams = _grams(words(text), n)
    return len(set(grams)) / len(grams) if grams else math.nan


def longest_run(text: str) -> float:
    """Words in the longest run of them that comes again later; the two may overlap.

    A text that loops reaches nearly its own length, one without a repeated word 0.
    """
    found = words(text)
    return float(repeated_run(found)) if found else math.nan


def repeated_run(found: Sequence[Hashable]) -> int:
    """Length of the longest run that comes again later: of words, tokens or anything else."""
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
    """Leading words that are the baseline's / words of the longer text: where the two part.

    1 where all words are the same, 0 where the first differs.
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


def alone(function: Callable[[str], float]) -> Score:
    """A score that does not depend on the baseline."""
    return lambda text, _: function(text)


def _known() -> list[Metric]:
    metrics = [
        Metric(f"distinct-{n}", f"unique {what} / all", score)
        for n, what in ((1, "words"), (2, "pairs of words"), (3, "triples of words"))
        for score in [alone(partial(distinct, n=n))]
    ]
    metrics += [
        Metric(
            "longest-run",
            "longest repeated run, in words",
            alone(longest_run),
            high=20.0,
            digits=1,
        ),
        Metric("length", "words of the text", alone(length), high=None, digits=1),
        Metric(
            "shared",
            "words shared before texts part / all",
            shared,
            compares=True,
        ),
    ]
    if find_spec("vaderSentiment") is not None:
        about = "English sentiment, by its lexicon"
        metrics.append(Metric("vader", about, alone(vader), low=-1.0))
    return metrics


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _known()}
"""By name; `vader` only where the vaderSentiment package is installed."""
