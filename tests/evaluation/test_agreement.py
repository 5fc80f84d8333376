"""Whether pairs agree, against loops over every pair and split."""

from itertools import combinations

import numpy as np
import pytest

from steerlab.core.recipe import Contrast
from steerlab.errors import BadPrompts
from steerlab.evaluation.inspection.agreement import agreement, split_half
from tests.tiny import tiny_lm

PAIRS = Contrast(
    ("I love you so", "what joy this is", "such a kind day", "we like it"),
    ("I hate you so", "what pain this is", "such a cruel day", "we loathe it"),
)


def cosine(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def activations(lm, prompts, layer):
    return np.stack([lm.record(p, layer)[layer][-1].double().numpy() for p in prompts])


def test_figures_are_those_of_slow_loops():
    lm = tiny_lm()
    found = agreement(lm, PAIRS, [1, 3])
    assert list(found) == [1, 3]
    for layer, figures in found.items():
        above, below = (activations(lm, side, layer) for side in (PAIRS.positive, PAIRS.negative))
        differences = above - below
        others = [np.delete(differences, i, axis=0).mean(axis=0) for i in range(4)]
        assert figures["pairwise_cosine"] == pytest.approx(
            np.mean([cosine(x, y) for x, y in combinations(differences, 2)]), abs=1e-6
        )
        assert figures["agreement"] == np.mean(
            [d @ v > 0 for d, v in zip(differences, others, strict=True)]
        )
        high = [h @ v for h, v in zip(above, others, strict=True)]
        low = [h @ v for h, v in zip(below, others, strict=True)]
        assert figures["separability"] == np.mean([[x > y for y in low] for x in high])


def test_split_half_tends_to_the_mean_over_all_splits():
    differences = np.random.default_rng(0).standard_normal((4, 6)) + 0.7
    exact = []
    for half in combinations(range(4), 2):
        rest = [i for i in range(4) if i not in half]
        exact.append(cosine(differences[list(half)].mean(axis=0), differences[rest].mean(axis=0)))
    assert split_half(differences, splits=20_000) == pytest.approx(np.mean(exact), abs=0.01)
    assert split_half(differences) == split_half(differences)


def test_pairs_that_are_alike_agree_and_those_at_random_do_not():
    rng = np.random.default_rng(1)
    assert split_half(np.tile(rng.standard_normal(50), (5, 1))) == pytest.approx(1)
    assert abs(np.mean([split_half(rng.standard_normal((8, 400))) for _ in range(10)])) < 0.05
    assert split_half(np.zeros((3, 4))) == 0


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (Contrast(("a", "b"), method="mean_centred", baseline=("c",)), "without negatives"),
        (Contrast(("a", "b"), ("c",), "difference_of_means"), "unpaired prompts"),
        (Contrast(("a",), ("b",)), "one pair"),
    ],
)
def test_recipes_without_pairs_are_refused_in_words(recipe, why):
    with pytest.raises(BadPrompts, match=why):
        agreement(tiny_lm(), recipe, [1])
