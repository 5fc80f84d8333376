"""The map of a store: its arithmetic against a slow reference, and what is on it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.errors import Cancelled, NotFound
from steerlab.plots import store_map as maps
from steerlab.plots.store_map import principal_plane, store_map
from steerlab.registry import Store
from tests.registry.samples import OTHER, vector


def slow_plane(rows):
    """PCA by power iteration on the covariance, in plain Python."""
    units = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    n, d = len(units), len(units[0])
    means = [sum(u[i] for u in units) / n for i in range(d)]
    centred = [[u[i] - means[i] for i in range(d)] for u in units]
    cov = [[sum(c[i] * c[j] for c in centred) for j in range(d)] for i in range(d)]
    total, axes, shares = sum(cov[i][i] for i in range(d)), [], []
    for _ in range(2):
        axis = [1.0 + 0.1 * i for i in range(d)]
        for _ in range(3000):
            axis = [sum(cov[i][j] * axis[j] for j in range(d)) for i in range(d)]
            size = math.sqrt(sum(x * x for x in axis))
            axis = [x / size for x in axis]
        shares.append(size / total)
        cov = [[cov[i][j] - size * axis[i] * axis[j] for j in range(d)] for i in range(d)]
        axes.append(axis)
    columns = [[sum(c[i] * axis[i] for i in range(d)) for c in centred] for axis in axes]
    flip = [1 if max(col, key=abs) > 0 else -1 for col in columns]
    return [[flip[k] * columns[k][r] for k in range(2)] for r in range(n)], shares


def test_the_plane_is_that_of_a_slow_reference():
    rows = np.random.default_rng(3).normal(size=(9, 5)) * np.geomspace(1, 50, 9)[:, None]
    coordinates, shares = principal_plane(rows)
    expected, variance = slow_plane(rows.tolist())
    np.testing.assert_allclose(coordinates, expected, atol=1e-6)
    np.testing.assert_allclose(shares, variance, atol=1e-6)


def test_length_does_not_move_a_vector_and_distances_are_never_too_large():
    rows = np.random.default_rng(1).normal(size=(12, 40))
    coordinates, _ = principal_plane(rows)
    scaled, _ = principal_plane(rows * np.linspace(0.1, 9, 12)[:, None])
    np.testing.assert_allclose(coordinates, scaled, atol=1e-12)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for i in range(12):
        for j in range(i):
            true = math.sqrt(2 - 2 * units[i] @ units[j])
            assert np.linalg.norm(coordinates[i] - coordinates[j]) <= true + 1e-12


def test_two_vectors_need_one_axis_and_equal_ones_none():
    coordinates, shares = principal_plane(np.eye(2, 6))
    assert shares == pytest.approx((1.0, 0.0))
    assert abs(coordinates[0, 0] - coordinates[1, 0]) == pytest.approx(math.sqrt(2))
    coordinates, shares = principal_plane(np.ones((3, 4)))
    assert not coordinates.any()
    assert shares == (0.0, 0.0)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed, name in enumerate(("love", "hate", "calm")):
        store.save(name, vector(seed, 2, 3), tags=["mood"] if name != "calm" else [])
    store.save("late", vector(5, 4))
    store.save("love", vector(8, 2))
    store.save("other", vector(9, 2, model=OTHER))
    return store


def test_the_map_takes_the_newest_versions_of_one_model_at_the_commonest_layer(store):
    found = store_map(store)
    assert (found.model, found.layer) == ("tiny_1", 2)
    assert [point.ref for point in found.points] == ["calm", "hate", "love.v2"]
    assert found.left_out == {"without layer 2": 1}
    rows = np.stack([store.load(p.ref).directions[2][0] for p in found.points])
    expected, shares = principal_plane(rows)
    np.testing.assert_allclose([[p.x, p.y] for p in found.points], expected)
    assert found.variance == pytest.approx(shares)
    assert [p.tags for p in found.points] == [(), ("mood",), ()]


def test_versions_tags_and_layers_can_be_asked_for(store):
    found = store_map(store, every_version=True)
    assert [p.ref for p in found.points] == ["calm.v1", "hate.v1", "love.v1", "love.v2"]
    assert {p.ref for p in store_map(store, "tests/Tiny-1", 3).points} == {"calm", "hate"}
    with pytest.raises(NotFound, match="1 vector of tiny_1 at layer 4: a map takes at least two"):
        store_map(store, layer=4)
    with pytest.raises(NotFound, match=r"no vectors of a model 'x': the store has .*tiny_1"):
        store_map(store, "x")
    with pytest.raises(NotFound, match="nothing to map"):
        store_map(Store(store.path.parent / "empty"))


def test_what_is_no_single_direction_is_left_out_and_counted(store):
    store.save("front", vector(1, 2, scope="front"))
    zero = store.load("calm")[2] - store.load("calm")[2]
    store.save("zero", zero)
    assert store_map(store).left_out == {
        "of scope front": 1,
        "without layer 2": 1,
        "damaged or zero": 1,
    }


def test_of_too_many_the_newest_are_taken(store, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 2)
    found = store_map(store)
    assert [p.ref for p in found.points] == ["calm", "love.v2"]
    assert found.left_out["older"] == 1


def test_reading_can_be_watched_and_cancelled(store):
    seen = []
    store_map(store, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Cancelled, match="after 0 of 3"):
        store_map(store, should_stop=lambda: True)
