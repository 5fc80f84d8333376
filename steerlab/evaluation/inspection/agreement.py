"""Agreement: whether the contrast pairs of a vector point the same way, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from steerlab.core.recipe import Contrast
from steerlab.errors import BadPrompts
from steerlab.extraction.methods import diagnose
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

Array = NDArray[np.float64]

SPLITS = 200
"""Number of random splits that the split-half cosine is averaged over."""


def agreement(
    lm: LanguageModel,
    recipe: Contrast,
    layers: Sequence[int],
    **watch: Unpack[Watch],
) -> dict[int, dict[str, float]]:
    """Read a recipe's pairs again and measure how well they agree: layer -> figures.

    The figures are those of `steerlab.extraction.methods.diagnose`, and split_half.
    Raises BadPrompts for a recipe with fewer than two pairs.
    """
    from steerlab.extraction.runner import read_pairs

    check_pairs(recipe)
    read = read_pairs(lm, recipe, layers, **watch)
    return {
        b: diagnose(positive, negative) | {"split_half": split_half(positive - negative)}
        for b, (positive, negative) in sorted(read.items())
    }


def midpoint(
    lm: LanguageModel,
    recipes: Sequence[Contrast],
    layers: Sequence[int],
    **watch: Unpack[Watch],
) -> dict[int, Array]:
    """The mean activation of all pairs of some recipes: layer -> (d_model,); empty without any."""
    from steerlab.extraction.runner import read_pairs

    paired = [r for r in recipes if r.pairs and r.method != "actadd"]
    read = [read_pairs(lm, recipe, layers, **watch) for recipe in paired]
    if not read:
        return {}
    return {
        b: np.concatenate([side for one in read for side in one[b]]).mean(axis=0) for b in layers
    }


def check_pairs(recipe: Contrast) -> None:
    """Raise BadPrompts for a recipe with fewer than two pairs."""
    if not recipe.is_paired:
        what = "unpaired prompts" if recipe.counts[1] else "prompts without negatives of their own"
        raise BadPrompts(f"it was made from {what}, so there are no pairs to agree")
    if recipe.prompt_set is not None:
        raise BadPrompts(
            f"its pairs are many, in {recipe.prompt_set.path}, and their agreement was measured "
            "when it was made: `steerlab show` has it"
        )
    if recipe.counts[0] < 2:
        raise BadPrompts("it was made from one pair, and agreement takes at least two")


def split_half(differences: Array, splits: int = SPLITS) -> float:
    """Cosine between the mean differences of two random halves of the pairs, over many splits.

    differences: (n_pairs, d_model), at least two; one half of an odd number has one more.
    About 0 for pairs that share nothing, 1 for equal pairs; a half that is zero counts as 0.
    It grows with the number of pairs, so compare layers, or vectors with equally many pairs.
    """
    n = len(differences)
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(n), (splits, 1)), axis=1)
    first = np.zeros((splits, n))
    np.put_along_axis(first, order[:, : n // 2], 1.0, axis=1)
    one, two = first @ differences, (1 - first) @ differences  # (splits, d_model)
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    products = (one * two).sum(axis=1)
    return float(np.divide(products, sizes, out=np.zeros(splits), where=sizes > 0).mean())
