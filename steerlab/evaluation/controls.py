"""Controls that an effect has to beat: random directions and shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from steerlab.core.algebra import control_like
from steerlab.core.recipe import Contrast
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.statistics import CONTROLS

Swaps = NDArray[np.bool_]
"""Whether the prompts of each pair are swapped: (n_pairs,)."""

SHUFFLES = 12
"""The largest number of shuffled-label vectors of a calibration."""
_LISTED = 8  # up to so many pairs, all ways to swap them are listed


def random_controls(
    vector: SteeringVector, seeds: Sequence[int] = range(CONTROLS)
) -> list[SteeringVector]:
    """A random direction for each seed, with the vector's norm at each of its layers.

    Scope and model are the vector's. At one layer equal coefficients give equal doses; at several
    the control needs the coefficient of its own that has the vector's dose.
    Raises BadOption for fewer than 5 different seeds.
    """
    if len(set(seeds)) < max(CONTROLS, len(seeds)):
        raise BadOption(
            f"controls need at least {CONTROLS} different seeds, not {', '.join(map(str, seeds))}"
        )
    return [control_like(vector, seed) for seed in seeds]


def swaps(pairs: int, seeds: Sequence[int]) -> list[Swaps]:
    """For each seed a different choice of pairs to swap: half of the pairs if possible.

    The same seeds give the same choices. k pairs have 2^k - 2 choices.
    Raises BadOption for more seeds than choices.
    """
    ways = 2**pairs - 2
    if len(seeds) > ways:
        raise BadOption(
            f"the labels of {pairs} pairs can be shuffled in only {max(ways, 0)} ways, and "
            f"{len(seeds)} are needed: use more pairs"
        )
    taken: dict[bytes, Swaps] = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, pairs])
        swapped = next(way for way in _ways(pairs, rng) if way.tobytes() not in taken)
        taken[swapped.tobytes()] = swapped
    return list(taken.values())


def halvings(pairs: int) -> int:
    """How many of the first `swaps` swap half of the pairs: 0 if that is too few for controls.

    Half of 3 pairs leaves a third of the vector itself, so 3 pairs have none either.
    """
    halves = math.comb(pairs, pairs // 2) * (1 + pairs % 2)
    return min(halves, SHUFFLES) if pairs > 3 else 0


def _ways(pairs: int, rng: np.random.Generator) -> Iterator[Swaps]:
    """Random halves; for few pairs each once, followed by the less even choices."""
    if pairs > _LISTED:  # at least 126 halves, so draws rarely repeat
        while True:
            yield rng.permutation(pairs) < (pairs + int(rng.integers(2)) * (pairs % 2)) // 2
    listed = np.array(list(product([False, True], repeat=pairs)))[1:-1]
    uneven = np.abs(2 * listed.sum(axis=1) - pairs)
    yield from listed[np.lexsort([rng.random(len(listed)), uneven])]


def unshuffled(recipe: Contrast) -> str:
    """Why the labels of a recipe's pairs can't be shuffled; empty if they can."""
    return {
        "actadd": "it is made from one pair",
        "pca": "swapping a pair only changes the sign of its difference",
        "random": "it does not depend on the pairs",
        "difference_of_means": "its prompts are no pairs",
    }.get(recipe.method, _without_partner(recipe))


def _without_partner(recipe: Contrast) -> str:
    if recipe.prompt_set is not None:
        return f"its prompts are many, in {recipe.prompt_set.path}"
    if not recipe.negative:
        return "there are no negative prompts"
    n = len(recipe.pairs)
    few = f"the labels of {n} pairs can be halved in too few ways (4 pairs do)"
    return "" if halvings(n) else few
