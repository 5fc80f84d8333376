"""Which tokens lie along a direction."""

import numpy as np
import pytest

from steerlab import SteeringVector
from steerlab.errors import BadPrompts, Incompatible
from steerlab.evaluation.inspection.projection import Projections, projections
from tests.tiny import tiny_lm

PROMPT = "I love\nyou"


def test_projections_are_lengths_in_doses():
    lm = tiny_lm()
    rng = np.random.default_rng(0)
    arrays = {1: rng.standard_normal(32), 3: 7 * rng.standard_normal(32)}
    vector = SteeringVector(arrays, model=lm.identity, residual_norms={1: 4.0})
    found = projections(lm, vector, PROMPT)
    assert found.tokens == (*tuple("I␣love"), "\\n", *tuple("you"))
    for layer, h in lm.record(PROMPT, [1, 3]).items():
        h = h.double().numpy()
        v = vector.directions[layer][0]
        scale = 4.0 if layer == 1 else np.median(np.linalg.norm(h[1:], axis=1))
        assert found.values[layer] == pytest.approx(h @ v / np.linalg.norm(v) / scale)


def test_shades_leave_the_attention_sink_out():
    values = {2: np.array([-900.0, 1.0, 2.0, 3.0, 6.0])}
    shades = Projections("", tuple("abcde"), values).shades(2)
    assert shades == pytest.approx([0, -1.5 / 3.5, -0.5 / 3.5, 0.5 / 3.5, 1])
    assert Projections("", ("a",), {1: np.array([5.0])}).shades(1) == [0]
    assert not Projections("", tuple("abc"), {1: np.ones(3)}).shades(1).any()


def test_shades_of_centred_projections_are_from_the_midpoint():
    values = {2: np.array([-900.0, 1.0, -2.0, 4.0])}
    found = Projections("", tuple("abcd"), values, centred=True)
    assert found.shades(2) == pytest.approx([0, 0.25, -0.5, 1])


def test_zero_directions_and_one_token_have_projections_too():
    lm = tiny_lm()
    zero = SteeringVector({1: np.zeros(32)}, model=lm.identity)
    assert projections(lm, zero, "a").values[1] == [0]


def test_what_can_not_be_projected_is_said():
    lm = tiny_lm()
    front = SteeringVector({1: np.ones((2, 32))}, model=lm.identity, scope="front")
    with pytest.raises(Incompatible, match="is a front vector"):
        projections(lm, front, "a")
    with pytest.raises(BadPrompts, match="empty"):
        projections(lm, SteeringVector({1: np.ones(32)}, model=lm.identity), "")
