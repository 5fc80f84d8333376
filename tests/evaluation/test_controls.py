"""Controls: matched norms, shuffled labels, and nothing that could not be made again."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from steerlab.core.algebra import random_like
from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Cancelled
from steerlab.evaluation.calibration.held_out import Source, shuffled_controls, source_in
from steerlab.evaluation.calibration.trials import Trials
from steerlab.evaluation.controls import random_controls, swaps
from steerlab.evaluation.generalization.conditions import conditions
from steerlab.lab.lab import Lab
from steerlab.progress import Parts
from tests.watching import planted, shared

PAIRS = [(f"a good {thing}", f"a bad {thing}") for thing in ("day", "dog", "meal", "book", "song")]


@pytest.fixture(scope="module")
def love():
    return shared().extract(PAIRS, layers=[1, 2])


@pytest.mark.parametrize("rows", [None, 4])
def test_random_directions_have_the_vectors_norm_at_each_layer(rows):
    lm = shared()
    vector = planted(lm, 1, 3, rows=rows)
    controls = random_controls(vector)
    assert len(controls) == len(set(controls)) == 5
    for control in controls:
        assert control.norms() == pytest.approx(vector.norms())
        assert (control.scope, control.model) == (vector.scope, vector.model)
        assert isinstance(control.recipe, Imported)
        assert control.recipe.format == "random"
        if rows:
            assert not control.directions[1][0].any()
    assert random_controls(vector, [0, 1, 2, 3, 4]) == controls
    assert abs(controls[0].cosines(controls[1])[1]) < 0.6


def test_controls_of_several_layers_are_as_strong_and_not_as_long():
    lm = shared()
    alike = planted(lm, 1).directions[1]
    norms = {1: 50.0, 2: 50.0}
    vector = SteeringVector({1: alike, 2: alike}, model=lm.identity, residual_norms=norms)
    of = conditions(vector, 3.0, 5)
    doses = [abs(setting.dose) for setting in of.settings[1:]]
    assert doses == pytest.approx([vector.dose(3.0)] * 12)
    control = of.settings[3]
    assert control.coefficient > 3.2
    assert conditions(vector[2], 3.0, 5).settings[3].coefficient == 3.0


def test_a_random_vector_is_not_among_its_own_controls(love):
    lm = shared()
    random = lm.extract(PAIRS, layers=[1, 2], method="random", seed=0)
    again = random_like(random, 0).cosines(random)  # vectors share one stream of seeds
    assert again == pytest.approx({1: 1.0, 2: 1.0})
    source = Source(random)
    trials = Trials(source, Nothing(), (), 0, Parts(None, 1))
    found = [*random_controls(random), trials.random(1, 0), trials.random(2, 0)]
    for control in found:
        assert max(map(abs, control.cosines(random).values())) < 0.8
    later = Trials(source, Nothing(), (), 1, Parts(None, 1))
    assert len({t.random(1, seed) for t in (trials, later) for seed in range(20)}) == 40


class Nothing:
    name, count = "nothing", 5


@pytest.mark.parametrize("seeds", [range(4), [0, 1, 2, 3, 4, 4]])
def test_controls_take_five_different_seeds(seeds, love):
    with pytest.raises(BadOption, match="5 different seeds"):
        random_controls(love, seeds)


@pytest.mark.parametrize("pairs", [3, 4, 5, 8, 12, 31])
def test_each_way_to_swap_is_another_and_as_even_as_can_be(pairs):
    draws = swaps(pairs, range(6))
    assert len({draw.tobytes() for draw in draws}) == 6
    for draw in draws:
        assert draw.shape == (pairs,)
        assert abs(2 * draw.sum() - pairs) <= pairs % 2
    again = swaps(pairs, range(6))
    assert all((a == b).all() for a, b in zip(draws, again, strict=True))


def test_when_halves_are_used_up_other_swaps_follow():
    draws = [int(draw.sum()) for draw in swaps(4, range(14))]
    assert draws[:6] == [2] * 6
    assert sorted(draws[6:]) == [1] * 4 + [3] * 4
    with pytest.raises(BadOption, match="only 14 ways, and 15"):
        swaps(4, range(15))
    with pytest.raises(BadOption, match="1 pairs can be shuffled in only 0 ways"):
        swaps(1, range(5))


def controls_of(vector, count=5, **watch):
    """Shuffled controls of a vector, read on its model."""
    source = source_in(Lab(model=shared()), vector, vector.layers, lambda: watch)
    return shuffled_controls(source, vector, count)


@pytest.mark.parametrize("method", ["mean_difference", "probe", "mean_centred"])
def test_a_shuffled_control_is_the_extraction_with_pairs_turned_round(method):
    lm = shared()
    vector = lm.extract(PAIRS, layers=[1, 2], method=method)
    controls = controls_of(vector)
    assert len(set(controls)) == 5
    for swapped, control in zip(swaps(len(PAIRS), range(12)), controls, strict=False):
        turned = [(n, p) if s else (p, n) for s, (p, n) in zip(swapped, PAIRS, strict=True)]
        expected = lm.extract(turned, layers=[1, 2], method=method)
        for b, cosine in control.cosines(expected).items():
            assert cosine == pytest.approx(1)
            assert control.norms()[b] == pytest.approx(vector.norms()[b])
        assert control.residual_norms == vector.residual_norms


def test_what_the_pairs_share_is_gone(love):
    controls = controls_of(love)
    cosines = [abs(control.cosines(love)[2]) for control in controls]
    assert max(cosines) < 0.9
    assert controls[0].layers == (1, 2)


def test_prompts_are_read_once_for_all_controls(love):
    lm = shared()
    passes = []
    handle = lm.blocks[0].register_forward_pre_hook(lambda module, args: passes.append(1))
    lm.extract(PAIRS, layers=[1, 2])
    once = len(passes)
    controls_of(love, 12)
    handle.remove()
    assert len(passes) == 2 * once


@pytest.mark.parametrize(
    ("pairs", "method", "why"),
    [
        (PAIRS[:1], "actadd", "one pair"),
        (PAIRS, "pca", "the sign"),
        (PAIRS, "random", "does not depend"),
        (PAIRS[:3], "mean_difference", "3 pairs can be halved in too few ways"),
    ],
)
def test_where_labels_can_not_be_shuffled_it_says_why(pairs, method, why, love):
    vector = shared().extract(pairs, layers=1, method=method, seed=0)
    source = source_in(Lab(model=shared()), vector, [1])
    assert why in source.unshuffled
    assert shuffled_controls(source, vector, 5) == []


def test_prompts_without_negatives_have_no_labels():
    vector = shared().extract(["a", "b"], layers=1, method="mean_centred", baseline=["c", "d"])
    assert "no negative prompts" in source_in(Lab(model=shared()), vector, [1]).unshuffled


def test_reading_can_be_stopped(love):
    with pytest.raises(Cancelled):
        controls_of(love, should_stop=lambda: True)


def test_halves_of_four_pairs_are_all_there_are():
    found = {tuple(np.flatnonzero(draw)) for draw in swaps(4, range(6))}
    assert found == set(combinations(range(4), 2))
