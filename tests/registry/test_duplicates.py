"""Stored vectors that a new one duplicates."""

from __future__ import annotations

import numpy as np

from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector
from steerlab.registry import duplicates
from tests.registry.samples import OTHER, vector


def reported(store, made, **options):
    return [str(duplicate) for duplicate in store.duplicates(made, **options)]


def turned(seed, by, *layers):
    """A vector almost along that of `seed`."""
    base, noise = vector(seed, *layers), vector(99, *layers)
    return SteeringVector(
        {b: x + by * noise.directions[b] for b, x in base.directions.items()},
        model=base.model,
        recipe=Imported("x"),
    )


def test_an_equal_vector(family):
    again = family.save("again", vector(1))
    assert reported(family, again) == ["equals love.v1"]
    assert reported(family, vector(1)) == ["equals love.v1", "equals again.v1"]


def test_a_nearly_parallel_one(family):
    near = family.save("near", turned(2, 0.05))
    (duplicate,) = family.duplicates(near)
    assert duplicate.ref == "anger.v1"
    assert 0.98 < duplicate.cosine < 1
    assert str(duplicate) == f"{duplicate.cosine:.3f} cosine to anger.v1"
    assert reported(family, near, near=False) == []


def test_an_opposite_one_and_one_that_is_far(family):
    opposite = -1 * turned(2, 0.0)
    made = SteeringVector(opposite.directions, model=opposite.model, recipe=Imported("x"))
    assert reported(family, made) == ["-1.000 cosine to anger.v1"]
    assert reported(family, turned(2, 3.0)) == []


def test_an_operand_is_no_duplicate(family):
    love = family.load("love")
    assert reported(family, family.save("twice", 2 * love)) == []


def test_other_layers_and_other_models_are_no_duplicates(family):
    assert reported(family, turned(2, 0.0, 4)) == []
    assert reported(family, vector(1, model=OTHER)) == []


def test_a_damaged_candidate_is_left_to_verify(family):
    for file in (family.path / "payloads").rglob("*.safetensors"):
        file.write_bytes(b"x")
    assert reported(family, turned(2, 0.05)) == []


def test_only_the_newest_are_compared(family, monkeypatch):
    monkeypatch.setattr(duplicates, "CANDIDATES", 1)
    family.save("far", SteeringVector({2: np.ones(8), 3: np.ones(8)}, model=vector(1).model))
    assert reported(family, turned(2, 0.05)) == []
