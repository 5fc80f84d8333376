"""Guarantees: in plain words, never more than was shown."""

from __future__ import annotations

import math

from steerlab.evaluation.guarantee import at_least, at_most, moved
from steerlab.evaluation.statistics import Estimate, share


def test_items_that_moved_are_counted_and_the_bound_is_rounded_down():
    assert moved([1.0] * 18) == (
        "18 of 18 held-out items moved the right way: at least 84% of such items do "
        "(95%, Clopper-Pearson)"
    )
    assert moved([2.0, -1.0, 3.0, math.nan]).startswith("2 of 3 held-out items")


def test_an_item_that_did_not_move_did_not_move_the_right_way():
    assert moved([0.0] * 8 + [1.0] * 2).startswith("2 of 10")


def test_what_bounds_nothing_is_not_said():
    assert moved([]) == moved([math.nan]) == moved([-1.0] * 5) == ""
    assert at_most(share([1, 1]), "texts loop", "of texts do") == ""


def test_an_upper_bound_is_rounded_up():
    said = at_most(share([0] * 24), "texts loop", "of texts do")
    assert said == "0 of 24 texts loop: at most 12% of texts do (95%, Clopper-Pearson)"
    assert at_least(Estimate(1.0, 0.5, 1.0, 4), "x", "y").startswith("4 of 4 x: at least 50% y")
