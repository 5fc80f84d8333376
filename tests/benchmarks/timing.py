"""Paired timing: A B A B …, and the ratio of each pair, so that a noisy machine drifts out."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Median seconds of both, and the median of the pairwise ratios."""

    what: str
    seconds: float
    baseline: float
    ratio: float
    low: float
    high: float
    asked: str

    def row(self) -> str:
        spread = f"{self.low:.2f}–{self.high:.2f}"
        return (
            f"{self.what:52} {self.seconds * 1e3:9.1f} {self.baseline * 1e3:9.1f} "
            f"{self.ratio:7.3f}  {spread:11}  {self.asked}"
        )


HEADER = f"{'what':52} {'ms':>9} {'base ms':>9} {'ratio':>7}  {'range':11}  asked"


def paired(
    what: str,
    function: Callable[[], object],
    baseline: Callable[[], object],
    *,
    runs: int,
    asked: str,
    inverse: bool = False,
    warm_up: bool = True,
) -> Ratio:
    """Time two calls in turn. inverse: the ratio is baseline / function (a speed-up)."""
    if warm_up:
        function(), baseline()
    pairs = []
    for run in range(runs):
        order = (function, baseline) if run % 2 == 0 else (baseline, function)
        first, second = (_seconds(call) for call in order)
        pairs.append((first, second) if run % 2 == 0 else (second, first))
    ratios = sorted(b / a if inverse else a / b for a, b in pairs)
    return Ratio(
        what,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
        asked,
    )


def limited(what: str, function: Callable[[], object], limit: float, *, runs: int = 7) -> Ratio:
    """The best of some calls, as a multiple of the seconds that are asked for."""
    times = sorted(_seconds(function) for _ in range(runs))
    ratios = [seconds / limit for seconds in times]
    asked = f"<= {limit * 1e3:.0f} ms"
    return Ratio(what, times[0], limit, ratios[0], ratios[0], ratios[-1], asked)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
