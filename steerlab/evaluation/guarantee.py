"""Guarantees in plain words: what share of items like those measured behaves alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steerlab.evaluation.statistics import Estimate, share


def moved(values: Sequence[float]) -> str:
    """How many signed ranges are above 0, and the least share of such items that would be.

    Empty without values, and where the bound says nothing.
    """
    return at_least(share_moved(values), "held-out items moved the right way", "of such items do")


def share_moved(values: Sequence[float]) -> Estimate:
    """The share of signed ranges above 0, with bounds; without NaN."""
    return share([math.nan if math.isnan(value) else float(value > 0) for value in values])


def at_least(found: Estimate, done: str, what: str) -> str:
    """A share and its lower bound: "18 of 18 items moved: at least 84% of such items do".

    The bound is rounded down, so that it never promises more than was shown. Empty if it is 0.
    """
    least = math.floor(100 * found.low + 1e-9) if found.n else 0
    return f"{_counted(found, done)}: at least {least}% {what} {_METHOD}" if least else ""


def at_most(found: Estimate, done: str, what: str) -> str:
    """A share and its upper bound, rounded up: "0 of 24 texts loop: at most 12% of texts do"."""
    most = math.ceil(100 * found.high - 1e-9) if found.n else 100
    return f"{_counted(found, done)}: at most {most}% {what} {_METHOD}" if most < 100 else ""


_METHOD = "(95%, Clopper-Pearson)"


def _counted(found: Estimate, done: str) -> str:
    return f"{round(found.mean * found.n)} of {found.n} {done}"
