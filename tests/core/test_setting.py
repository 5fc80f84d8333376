"""Setting and Operation: one way to steer, with its vector and without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steerlab.core.operation import ADD, Operation
from steerlab.core.setting import BASELINE, Setting, settings_of
from steerlab.errors import BadOption, SteeringError
from steerlab.interventions.runtime import injection
from tests.registry.samples import vector


def test_a_setting_comes_back_when_its_vector_does():
    love = vector(1, 2)
    kept = Setting(love, -2.0, strength=-0.5).without_vector()
    assert (kept.vector, kept.layers, kept.layer, kept.strength) == (None, (2,), 2, -0.5)
    assert kept.dose == -love.dose(2.0)
    assert replace(kept, vector=love) == Setting(love, -2.0, strength=-0.5)


def test_a_setting_without_its_vector_steers_nothing_silently():
    assert injection(BASELINE, 0, "all") is None
    with pytest.raises(SteeringError, match="without its vector"):
        injection(Setting(vector(1, 2), 1.0).without_vector(), 0, "all")


def test_settings_of_a_vector_are_layer_by_layer_behind_the_baseline():
    love = vector(1, 2, 3)
    made = settings_of(love, doses=[0.2, 0, -0.1], label="x")
    assert made[0] == BASELINE
    assert [(s.layer, s.strength, s.label) for s in made[1:]] == [
        (b, d, "x") for b in (2, 3) for d in (0.2, -0.1)
    ]
    assert [s.dose for s in made[1:]] == pytest.approx([0.2, -0.1] * 2)


def test_add_is_the_operation_so_far():
    assert BASELINE.operation == ADD == Operation("add")
    with pytest.raises(BadOption, match="there are add"):
        Operation("ablate")
