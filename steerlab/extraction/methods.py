"""Extraction methods: functions from activations of contrast prompts to a direction.

positive, negative: (n_pairs, d_model), row i of both from the same pair. Directions always point
toward the positive prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerlab.core.prompts import TURN_READS, Prompt, Turns, check_prompts, check_texts
from steerlab.core.recipe import Contrast
from steerlab.errors import BadOption, BadPrompts

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector

Array = NDArray[np.float64]
Pairs = Sequence[tuple[Prompt, Prompt]] | Sequence[Prompt]
"""(positive, negative) prompts, or positive ones alone."""

SAME = "the positive and negative prompts give the same activations"
_ROUNDING = 1e-5  # of the residual norm: what is smaller is noise of float32
_FAR = 5.0  # residual norms: the starter vectors' directions are 0.3 to 0.5 long

METHODS = (
    "mean_difference", "actadd", "pca", "probe", "mean_centred", "random", "difference_of_means"
)  # fmt: skip
"""The methods by name; actadd reads all positions of a pair, the others one token a prompt."""


class Undecided(BadPrompts):
    """The pairs do not decide a direction at some layer."""


def mean_difference(positive: Array, negative: Array) -> Array:
    """Mean of the paired activation differences (CAA, arXiv 2312.06681); natural norm."""
    return np.asarray((positive - negative).mean(axis=0))


def difference_of_means(positive: Array, negative: Array) -> Array:
    """Mean over one set minus mean over another, of any sizes (arXiv 2406.11717); natural norm."""
    return np.asarray(positive.mean(axis=0) - negative.mean(axis=0))


def pca(positive: Array, negative: Array) -> Array:
    """First principal direction of {±(h+ - h-)}, unit norm (RepE, arXiv 2310.01405).

    Not centred: centring would remove the mean difference. The decomposition leaves the sign
    open; it is chosen to make the mean margin positive.
    Raises Undecided if that margin is about 0.
    """
    differences = positive - negative
    direction = np.linalg.svd(differences, full_matrices=False)[2][0]
    return np.asarray(direction * sign_of(differences @ direction))


def sign_of(margins: Array) -> float:
    """The sign that makes the mean margin positive; raises Undecided if it is about 0."""
    if abs(margins.sum()) < 0.05 * np.abs(margins).sum() or not margins.any():
        raise Undecided(
            "the pairs disagree about the sign of their principal direction (mean margin about 0): "
            "use mean_difference, or pairs that differ in one quality only"
        )
    return float(np.sign(margins.sum()))


def probe(positive: Array, negative: Array) -> Array:
    """Logistic regression on pair-centred activations with strong L2; unit norm (arXiv 2310.06824).

    Each pair is centred on its midpoint, so the data are ±d/2 and there is no intercept. The
    weights lie in the span of the pairs, so Newton's method has n_pairs unknowns.
    """
    differences = positive - negative
    scale = np.sqrt((differences**2).sum(axis=1).mean())
    if not scale:
        raise Undecided(SAME)
    x = differences / scale
    gram = x @ x.T
    alpha = np.zeros(len(x))
    for _ in range(50):
        p = 1 / (1 + np.exp(gram @ alpha))  # 1 - probability of the right label
        step = np.linalg.solve(gram * (p * (1 - p))[:, None] + np.eye(len(x)), alpha - p)
        alpha -= step
        if np.abs(step).max() < 1e-12:
            break
    return _unit(alpha @ x)


def mean_centred(positive: Array, everything: Array) -> Array:
    """Mean activation minus that of a broad set of prompts (mean-centring, arXiv 2312.03813)."""
    return np.asarray(positive.mean(axis=0) - everything.mean(axis=0))


def random_direction(norm: float, d_model: int, seed: int, layer: int) -> Array:
    """N(0, I) rescaled to `norm`, seeded by (seed, layer): a control."""
    return norm * _unit(np.random.default_rng([seed, layer]).standard_normal(d_model))


def actadd(positive: Array, negative: Array) -> Array:
    """Difference at every position of one pair padded to equal length (arXiv 2308.10248).

    positive, negative: (positions, d_model), both from a prompt that starts at BOS, whose row
    is exactly 0 in the result.
    """
    difference = positive - negative
    difference[0] = 0.0
    return difference


PAIRED: Mapping[str, Callable[[Array, Array], Array]] = {
    "mean_difference": mean_difference,
    "pca": pca,
    "probe": probe,
    "difference_of_means": difference_of_means,
}


def diagnose(positive: Array, negative: Array) -> dict[str, float]:
    """How well pairs agree: empty for fewer than two.

    pairwise_cosine: mean cosine between two pairs' differences.
    agreement: share of pairs whose difference points along the mean of the others.
    separability: AUC of telling h+ from h- by projecting on the mean of the other pairs.
    """
    return diagnosed(len(positive), (positive - negative).sum(axis=0), [(positive, negative)])


def diagnosed(n: int, total: Array, pairs: Iterable[tuple[Array, Array]]) -> dict[str, float]:
    """`diagnose` of n pairs that come in parts; total: the sum of their differences."""
    if n < 2:
        return {}
    units, agreeing = np.zeros_like(total), 0
    above: list[Array] = []
    below: list[Array] = []
    for positive, negative in pairs:
        differences = positive - negative
        sizes = np.linalg.norm(differences, axis=1, keepdims=True)
        known = np.divide(differences, sizes, out=np.zeros_like(differences), where=sizes > 0)
        units += known.sum(axis=0)
        others = (total - differences) / (n - 1)
        agreeing += int(((differences * others).sum(axis=1) > 0).sum())
        above.append((positive * others).sum(axis=1))
        below.append((negative * others).sum(axis=1))
    return {
        "pairwise_cosine": float(((units**2).sum() - n) / (n * (n - 1))),
        "agreement": agreeing / n,
        "separability": auc(np.concatenate(above), np.concatenate(below)),
    }


def diagnose_sets(positive: Array, negative: Array) -> dict[str, float]:
    """How well unpaired sets part: empty for fewer than two of either.

    separability: AUC of telling h+ from h- by projecting each on the difference of the means of
        all others.
    """
    counts, sums = (len(positive), len(negative)), (positive.sum(axis=0), negative.sum(axis=0))
    return diagnosed_sets(counts, sums, ([positive], [negative]))


def diagnosed_sets(
    counts: tuple[int, int],
    sums: tuple[Array, Array],
    sides: tuple[Iterable[Array], Iterable[Array]],
) -> dict[str, float]:
    """`diagnose_sets` of sides that come in parts; sums: over each side, (d_model,)."""
    (n, m), (up, down) = counts, sums
    if min(n, m) < 2:
        return {}
    above = [(x * ((up - x) / (n - 1) - down / m)).sum(axis=1) for x in sides[0]]
    below = [(x * (up / n - (down - x) / (m - 1))).sum(axis=1) for x in sides[1]]
    return {"separability": auc(np.concatenate(above), np.concatenate(below))}


def problems(vector: SteeringVector) -> Iterator[str]:
    """Reasons why an extracted vector is of no use, in words."""
    known = {b: norm for b, norm in vector.residual_norms.items() if norm}
    far = max((norm / known[b] for b, norm in vector.norms().items() if b in known), default=0.0)
    if vector.dose(1.0) is None:
        yield (
            "the prompts are one token long, which is read at position 0, an attention sink: the "
            "norm says little, and no dose is known; use longer prompts"
        )
    elif far > _FAR and vector.scope == "broadcast":
        yield (
            f"coefficient 1 is {far:.0f} times as long as the residual stream: some prompts are "
            "one token long, it seems, which is read at position 0, an attention sink; use longer "
            "prompts"
        )


def check_not_zero(sizes: Mapping[int, float], residual_norms: Mapping[int, float]) -> None:
    """Raise BadPrompts if nothing differs at any layer, up to the rounding of float32.

    sizes: layer -> norm of what the prompts differ by, in residual-stream units.
    """
    for layer, size in sizes.items():
        if size > _ROUNDING * residual_norms.get(layer, 0.0):
            return
    raise BadPrompts(
        "the direction is zero: the prompts give the same activations, so they have to differ at "
        "or before the token that is read"
    )


def auc(above: Array, below: Array) -> float:
    """Probability that a value of `above` exceeds one of `below`; ties count half."""
    order = np.sort(below)
    left = np.searchsorted(order, above, side="left")
    right = np.searchsorted(order, above, side="right")
    return float((left + right).mean() / (2 * len(below)))


def columns(pairs: Pairs) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The positive and the negative prompts; plain prompts have no negative ones."""
    if isinstance(pairs, str):
        raise BadPrompts("prompts are given as a list, not as one text")
    rows = list(pairs)
    alone = tuple(row for row in rows if isinstance(row, str | Turns))
    if len(alone) == len(rows):
        return alone, ()
    pairs_ = [tuple(row) for row in rows if isinstance(row, tuple | list)]
    if len(pairs_) != len(rows) or not all(len(row) == 2 for row in pairs_):
        raise BadPrompts("pairs are (positive, negative) tuples, or plain prompts for mean_centred")
    return tuple(row[0] for row in pairs_), tuple(row[1] for row in pairs_)


def check_recipe(recipe: Contrast) -> None:
    """Raise BadPrompts or BadOption for a recipe that can't be run; needs no model."""
    if recipe.prompt_set is not None and not recipe.positive:
        check_method(recipe)
        return
    positive, negative, baseline = recipe.sides
    if recipe.method == "difference_of_means":
        check_texts(positive, "positive")
        check_texts(negative, "negative", least=0)
    else:
        check_prompts(positive, negative or None)
    if positive == negative:
        raise BadPrompts(
            "the positive and negative prompts are the same, so the direction is zero: they have "
            "to differ at or before the token that is read"
        )
    if baseline:
        check_prompts(baseline)
    if recipe.read in ("assistant_mean", "answer_letter") and not all(recipe.answers or [""]):
        raise BadPrompts(
            f"read={recipe.read!r} needs an answer in every prompt: give a question with answers"
        )
    check_method(recipe)


def check_method(recipe: Contrast) -> None:
    """Raise BadPrompts or BadOption for prompts and options that the method can't use."""
    method, read, seed = recipe.method, recipe.read, recipe.seed
    if method not in METHODS:
        raise BadOption(f"no extraction method {method!r}: there are {', '.join(METHODS)}")
    words = ("last", "mean", *TURN_READS)
    if not (read in words or isinstance(read, int)) or isinstance(read, bool):
        raise BadOption(f"read is {', '.join(map(repr, words))} or a token index, not {read!r}")
    if method == "mean_centred":
        if not (recipe.counts[1] or recipe.baseline):
            raise BadPrompts(
                "mean_centred needs prompts to be centred on: give baseline prompts, or pairs"
            )
    elif recipe.baseline:
        raise BadOption(f"baseline prompts are for mean_centred, not for {method}")
    elif not recipe.counts[1]:
        raise BadPrompts(f"{method} needs negative prompts too: one for each positive prompt")
    if method == "actadd":
        _check_actadd(recipe)
    if method == "random" and seed is None:
        raise BadOption("the random method needs a seed, so that it can be made again")
    if seed is not None and not 0 <= seed < 2**63:
        raise BadOption(f"a seed is a whole number from 0 to 2^63 - 1, not {seed}")


def _check_actadd(recipe: Contrast) -> None:
    if (n := recipe.counts[0]) != 1:
        raise BadPrompts(f"actadd takes one pair of prompts, not {n}: use mean_difference")
    if recipe.read != "last":
        raise BadOption(f"actadd reads every position, so read={recipe.read!r} means nothing")


def _unit(direction: Array) -> Array:
    return np.asarray(direction / np.linalg.norm(direction))
