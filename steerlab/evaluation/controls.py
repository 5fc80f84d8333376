"""Controls that an effect has to beat: random directions and shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerlab.core.algebra import control_like
from steerlab.core.recipe import Contrast, Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.statistics import CONTROLS
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.models.language_model import LanguageModel

Swaps = NDArray[np.bool_]
"""Whether the prompts of each pair are swapped: (n_pairs,)."""

SHUFFLES = 12
"""The largest number of shuffled-label vectors beside the random directions of a calibration."""
_LISTED = 8  # up to so many pairs, all ways to swap them are listed


def random_controls(
    vector: SteeringVector, seeds: Sequence[int] = range(CONTROLS)
) -> list[SteeringVector]:
    """A random direction for each seed, with the vector's norm at each of its layers.

    Scope and model are the vector's. At one layer equal coefficients give equal doses; at several
    the control needs the coefficient of its own that has the vector's dose.
    Raises BadOption for fewer than 5 different seeds.
    """
    _check_seeds(seeds)
    return [control_like(vector, seed) for seed in seeds]


def shuffled_controls(
    lm: LanguageModel,
    recipe: Contrast,
    layers: LayerChoice,
    seeds: Sequence[int] = range(CONTROLS),
    *,
    like: SteeringVector,
    should_stop: ShouldStop | None = None,
) -> list[SteeringVector]:
    """For each seed a vector of the same prompts with half of the pairs swapped.

    It keeps what the prompts share and loses what tells positive from negative, as far as the
    number of pairs allows: an odd number can't be halved, and few pairs have few halves, so
    further draws swap more or fewer. Draws differ from one another, but one may be the negative
    of another. Each layer is rescaled to the norm of `like` there. The prompts are read once.

    layers: some of `like`. should_stop: as for `LanguageModel.extract`.
    Raises BadOption if labels can't be shuffled: for too few pairs, prompts without negatives,
    and methods that use one pair (actadd), no pair (random) or differences up to their sign (pca).
    """
    from steerlab.extraction import methods, runner

    _check_seeds(seeds)
    methods.check_recipe(recipe)
    _check_shuffles(recipe)
    draws = swaps(len(recipe.positive), seeds)
    norms = {b: like[b].norms()[b] for b in lm.layers(layers)}
    with lm.lock:
        found = runner.read(lm, recipe, list(norms), should_stop=should_stop)
    made = []
    for seed, swapped in zip(seeds, draws, strict=True):
        directions = {}
        for b, norm in norms.items():
            positive, negative, baseline = runner.split(recipe, found.values[b])
            turned = swapped[:, None]
            one, two = np.where(turned, negative, positive), np.where(turned, positive, negative)
            shuffled = runner.direction(recipe, one, two, baseline, b)
            directions[b] = _rescaled(shuffled, norm)
        made.append(
            SteeringVector(
                directions,
                model=lm.identity,
                recipe=Imported(f"shuffled labels of {like}, seed={seed}", "shuffled"),
                residual_norms=like.residual_norms or found.residual_norms,
            )
        )
    return made


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


def _check_seeds(seeds: Sequence[int]) -> None:
    if len(set(seeds)) < max(CONTROLS, len(seeds)):
        raise BadOption(
            f"controls need at least {CONTROLS} different seeds, not {', '.join(map(str, seeds))}"
        )


def _check_shuffles(recipe: Contrast) -> None:
    if why := unshuffled(recipe):
        raise BadOption(f"{recipe.method} has no shuffled control, because {why}")


def unshuffled(recipe: Contrast) -> str:
    """Why labels of a recipe can't be shuffled, whatever the number of pairs; empty if they can."""
    return {
        "actadd": "it is made from one pair",
        "pca": "swapping a pair only changes the sign of its difference",
        "random": "it does not depend on the pairs",
        "difference_of_means": "its prompts are no pairs",
    }.get(recipe.method, _without_partner(recipe))


def _without_partner(recipe: Contrast) -> str:
    if recipe.prompt_set is not None:
        return f"its prompts are many, in {recipe.prompt_set.path}"
    return "" if recipe.negative else "there are no negative prompts"


def _rescaled(direction: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    size = float(np.linalg.norm(direction))
    return direction * (norm / size) if size else direction
