"""Controls: what an effect has to beat before it is one. Random directions, shuffled labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerlab.core.recipe import Contrast, Imported
from steerlab.core.vector import SteeringVector, random_like
from steerlab.errors import BadOption
from steerlab.evaluation.statistics import CONTROLS

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.models.language_model import LanguageModel

Swaps = NDArray[np.bool_]
"""Which pairs have their positive and negative prompt exchanged: (n_pairs,)."""

_LISTED = 8  # pairs up to which all ways to swap them can be listed


def random_controls(
    vector: SteeringVector, seeds: Sequence[int] = range(CONTROLS)
) -> list[SteeringVector]:
    """Random directions with the vector's norm at each of its layers, one a seed.

    Of the same scope and model, so that at an equal coefficient they have an equal dose.
    Raises BadOption for fewer than 5 different seeds.
    """
    _check_seeds(seeds)
    return [random_like(vector, seed) for seed in seeds]


def shuffled_controls(
    lm: LanguageModel,
    recipe: Contrast,
    layers: LayerChoice,
    seeds: Sequence[int] = range(CONTROLS),
    *,
    like: SteeringVector,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[SteeringVector]:
    """Vectors of the same prompts with half of the pairs turned round, one a seed.

    They keep all that the prompts share and lose what tells positive from negative, as far as
    their number allows: of an odd one a pair is left over, and few pairs have few halves, so
    that further draws swap more or fewer. No two draws are the same; one may be the negative
    of another. Each layer is rescaled to the norm of `like` there. The prompts are read once.

    layers: some of `like`. progress, should_stop: as for `LanguageModel.extract`.
    Raises BadOption where labels can't be shuffled: too few pairs for the seeds, prompts
    without negatives, and methods that look at one pair (actadd), at none (random) or at the
    pairs' differences up to their sign (pca).
    """
    from steerlab.extraction import methods, runner

    _check_seeds(seeds)
    methods.check_recipe(recipe)
    _check_shuffles(recipe)
    draws = swaps(len(recipe.positive), seeds)
    wanted = {b: norm for b in lm.layers(layers) for norm in like[b].norms().values()}
    with lm.lock:
        _, found = runner.read(lm, recipe, list(wanted), progress, should_stop)
    made = []
    for seed, swapped in zip(seeds, draws, strict=True):
        directions = {}
        for b, norm in wanted.items():
            positive, negative, baseline = runner.split(recipe, found.values[b])
            turned = swapped[:, None]
            positive, negative = (
                np.where(turned, negative, positive),
                np.where(turned, positive, negative),
            )
            shuffled = runner.direction(recipe, positive, negative, baseline, b)
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
    """Different ways to swap some of the pairs and leave others: half of them where that goes.

    The same seeds give the same ways. Of k pairs there are 2^k - 2.
    Raises BadOption if that is fewer than the seeds.
    """
    ways = 2**pairs - 2
    if len(seeds) > ways:
        raise BadOption(
            f"the labels of {pairs} pairs can be shuffled in {max(ways, 0)} ways only, and "
            f"{len(seeds)} are needed: use more pairs"
        )
    taken: dict[bytes, Swaps] = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, pairs])
        swapped = next(way for way in _ways(pairs, rng) if way.tobytes() not in taken)
        taken[swapped.tobytes()] = swapped
    return list(taken.values())


def _ways(pairs: int, rng: np.random.Generator) -> Iterator[Swaps]:
    """Halves in random order, and then, of few pairs, all other ways from even to uneven."""
    if pairs > _LISTED:  # 126 halves and more: two draws are hardly ever the same
        while True:
            yield rng.permutation(pairs) < (pairs + int(rng.integers(2)) * (pairs % 2)) // 2
    listed = np.array(list(product([False, True], repeat=pairs)))[1:-1]
    uneven = np.abs(2 * listed.sum(axis=1) - pairs)
    yield from listed[np.lexsort([rng.random(len(listed)), uneven])]


def _check_seeds(seeds: Sequence[int]) -> None:
    if len(set(seeds)) < max(CONTROLS, len(seeds)):
        raise BadOption(
            f"controls need {CONTROLS} different seeds or more, not {', '.join(map(str, seeds))}"
        )


def _check_shuffles(recipe: Contrast) -> None:
    why = {
        "actadd": "it is the difference of one pair",
        "pca": "swapping a pair changes no more than the sign of its direction",
        "random": "it does not look at the pairs",
    }.get(recipe.method, "" if recipe.negative else "there are no negative prompts")
    if why:
        raise BadOption(f"{recipe.method} has no shuffled control, because {why}")


def _rescaled(direction: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    size = float(np.linalg.norm(direction))
    return direction * (norm / size) if size else direction
