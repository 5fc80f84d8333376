"""Agreement: whether the contrast pairs of a vector pull the same way, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerlab.core.recipe import Contrast
from steerlab.errors import BadPrompts
from steerlab.extraction.methods import diagnose
from steerlab.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

Array = NDArray[np.float64]

SPLITS = 200
"""Random splits of the pairs that the split-half cosine is the mean of."""


def agreement(
    lm: LanguageModel,
    recipe: Contrast,
    layers: Sequence[int],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> dict[int, dict[str, float]]:
    """Read a recipe's pairs again and say how well they agree: layer -> figures.

    Those of `steerlab.extraction.methods.diagnose`, and split_half.
    Raises BadPrompts for a recipe without pairs (at least two, read at one token each).
    """
    from steerlab.extraction.runner import read_pairs

    check_pairs(recipe)
    read = read_pairs(lm, recipe, layers, progress, should_stop)
    return {
        b: diagnose(above, below) | {"split_half": split_half(above - below, seed)}
        for b, (above, below) in sorted(read.items())
    }


def check_pairs(recipe: Contrast) -> None:
    """Raise BadPrompts for a recipe whose pairs can't agree or disagree."""
    if not recipe.negative:
        raise BadPrompts("it was made of prompts without opposites: there are no pairs to agree")
    if len(recipe.positive) < 2:
        raise BadPrompts("it was made of one pair: agreement takes two or more")


def split_half(differences: Array, seed: int = 0, splits: int = SPLITS) -> float:
    """Cosine of the mean differences of two random halves of the pairs, over many splits.

    differences: (n_pairs, d_model), at least two. Of an odd number, one half has one more.
    About 0 for pairs that share nothing, 1 for pairs that are alike; a half that is zero
    counts as 0. It grows with the number of pairs: compare layers, or vectors of as many.
    """
    n = len(differences)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(n), (splits, 1)), axis=1)
    first = np.zeros((splits, n))
    np.put_along_axis(first, order[:, : n // 2], 1.0, axis=1)
    one, two = first @ differences, (1 - first) @ differences  # (splits, d_model)
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    products = (one * two).sum(axis=1)
    return float(np.divide(products, sizes, out=np.zeros(splits), where=sizes > 0).mean())
