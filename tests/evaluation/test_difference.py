"""Two vectors side by side."""

import numpy as np
import pytest

from steerlab.core.recipe import Contrast, Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible
from steerlab.evaluation.inspection.difference import RecipeLine, difference
from tests.registry.samples import OTHER, TINY, vector


def named(label, found):
    return [(x.sign, x.text) for x in found.recipe if x.label == label]


def test_figures_of_a_layer_are_those_of_numpy():
    a, b = vector(1), vector(2)
    found = difference(a, b)
    for layer in found.layers:
        x, y = (v.directions[layer.layer][0] for v in (a, b))
        norms = np.linalg.norm(x), np.linalg.norm(y)
        assert (layer.norm_a, layer.norm_b) == pytest.approx(norms)
        assert layer.cosine == pytest.approx(x @ y / norms[0] / norms[1])
        assert np.linalg.norm(x - layer.b_in_a * y) == pytest.approx(
            np.sqrt(norms[0] ** 2 - (x @ y / norms[1]) ** 2)
        )
        assert layer.a_in_b == pytest.approx(x @ y / (x @ x))
        assert layer.sum_keeps == pytest.approx(np.linalg.norm(x + y) / sum(norms))
        assert layer.difference_keeps == pytest.approx(np.linalg.norm(x - y) / sum(norms))


def test_equal_ends_of_the_cosines_are_shown_once():
    a = vector(1)
    assert "cosine -1.00>" in repr(difference(a, -2 * a))
    assert "cosine -1.00 to +1.00>" in repr(difference(a, a[a.layers[0]] - a[a.layers[1]]))


def test_a_vector_against_its_opposite_and_itself():
    a = vector(1)
    (layer, _) = difference(a, -2 * a).layers
    assert layer.cosine == pytest.approx(-1)
    assert (layer.b_in_a, layer.a_in_b) == pytest.approx((-0.5, -2))
    assert (layer.sum_keeps, layer.difference_keeps) == pytest.approx((1 / 3, 1))
    same = difference(a, a)
    assert same.layers[0].difference_keeps == 0
    assert {line.sign for line in same.recipe} == {" "}


def test_layers_that_only_one_has_and_zeros_have_no_cosine():
    a, b = vector(1, 1, 2), vector(2, 2, 3)
    found = difference(a, b)
    assert [layer.layer for layer in found.layers] == [1, 2, 3]
    first, _, last = found.layers
    assert first.norm_b is first.cosine is last.norm_a is last.sum_keeps is None
    assert first.norm_a == pytest.approx(np.linalg.norm(a.directions[1]))
    zero = difference(a, a - a).layers[0]
    assert zero.cosine is zero.b_in_a is None
    assert (zero.a_in_b, zero.sum_keeps) == (0, 1)


def test_front_tensors_are_padded():
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=(4, 8)), rng.normal(size=(2, 8))
    a, b = (SteeringVector({1: x}, model=TINY, scope="front") for x in (long, short))
    (layer,) = difference(a, b).layers
    assert layer.cosine == pytest.approx(
        (long[:2] * short).sum() / np.linalg.norm(long) / np.linalg.norm(short)
    )


def test_recipes_are_merged_fact_by_fact():
    pairs = {"positive": ("yes", "both"), "negative": ("no", "neither")}
    a = vector(1, recipe=Contrast(**pairs))
    changed = Contrast(("both", "new"), ("neither", "old"), method="pca", read="mean", seed=3)
    found = difference(a, vector(2, recipe=changed))
    assert named("method", found) == [("-", "mean_difference"), ("+", "pca")]
    assert named("read", found) == [("-", "last token"), ("+", "mean of tokens")]
    assert named("seed", found) == [("+", "3")]
    assert named("model", found) == [(" ", "tests/Tiny-1")]
    assert named("pair", found) == [(" ", "both | neither"), ("-", "yes | no"), ("+", "new | old")]


def test_compositions_and_imports_are_compared_too():
    love, anger = vector(1), vector(2)
    imported = vector(3, recipe=Imported("a.pt", "torch", "mean"))
    found = difference(love - anger, love + imported)
    assert [sign for sign, _ in named("operand", found)] == [" ", "-", "+"]
    assert {sign for sign, _ in named("expression", found)} == {"-", "+"}
    found = difference(love, imported)
    assert named("source", found) == [("+", "a.pt (torch, mean)")]
    assert named("made by", found) == [("-", "contrast"), ("+", "imported")]
    assert RecipeLine("-", "prompt", "x") not in found.recipe


def test_other_models_and_scopes_are_refused():
    with pytest.raises(Incompatible, match="different models"):
        difference(vector(1), vector(1, model=OTHER))
    front = SteeringVector({2: np.ones((2, 8))}, model=TINY, scope="front")
    with pytest.raises(Incompatible, match="can't be combined"):
        difference(vector(1), front)
