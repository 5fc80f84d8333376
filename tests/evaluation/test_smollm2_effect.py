"""On the embedded model, steering moves what it should, and random directions do not."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab.core.setting import Setting
from steerlab.evaluation.controls import random_controls
from steerlab.evaluation.metrics.items import ContrastItem, Fact
from steerlab.evaluation.metrics.likelihood import propensity
from steerlab.evaluation.metrics.predictions import answer_ranks, divergence
from steerlab.evaluation.statistics import estimate, steerability, z_score
from tests.test_smollm2 import PAIRS

pytestmark = pytest.mark.smollm2

KIND_OR_UNKIND = [  # chosen before anything was measured
    ContrastItem("My neighbour is", " a kind and gentle person", " a cruel and nasty person"),
    ContrastItem("The new teacher at our school is", " warm and wonderful", " cold and horrible"),
    ContrastItem("When I see you, I feel", " happy and grateful", " angry and bitter"),
    ContrastItem("People in this town are", " friendly and generous", " hostile and mean"),
    ContrastItem("The film we saw last night was", " beautiful", " dreadful"),
    ContrastItem("Our trip to the coast was", " a delight", " a disaster"),
    ContrastItem("Working with this team has been", " a joy", " a nightmare"),
    ContrastItem("The meal at the restaurant was", " delicious", " disgusting"),
]


@pytest.fixture(scope="module")
def love(smollm2):
    return smollm2.extract(PAIRS, layers=15)


def test_love_makes_the_kind_likelier_and_random_directions_scatter_around_zero(smollm2, love):
    c = love.coefficient(0.1)
    controls = [Setting(vector, c) for vector in random_controls(love)]
    m = propensity(
        smollm2, KIND_OR_UNKIND, [Setting(), Setting(love, c), Setting(love, -c), *controls]
    )
    up, down, *random = m[1:] - m[0]
    for effect, sign in ((up, 1), (down, -1)):
        t = effect.mean() / (effect.std(ddof=1) / np.sqrt(len(effect)))
        assert sign * t > 3
        found = estimate(effect)
        assert found.low > 0 or found.high < 0
    scatter = np.mean(random, axis=1)
    assert z_score(up.mean(), scatter) > 3
    assert np.abs(scatter).max() < up.mean() / 2
    found = steerability([0, c, -c], m[:3])
    assert found.mean.low > 0
    assert found.anti_steerable < 0.2


def test_facts_are_still_known_and_the_next_token_has_moved(smollm2, love):
    settings = [Setting(), Setting(love, love.coefficient(0.1))]
    facts = [Fact("The capital of France is", " Paris"), Fact("The opposite of hot is", " cold")]
    assert (answer_ranks(smollm2, facts, settings) < 5).all()
    moved = divergence(smollm2, ["I think you are a"], settings)
    assert 0.02 < moved.nats[1, 0] < 1
    assert all(part.nats > 0 for part in moved.top[1][0])
