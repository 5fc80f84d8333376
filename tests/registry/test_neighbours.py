"""Neighbours by cosine."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab.core.vector import SteeringVector
from steerlab.registry import Store
from tests.registry.samples import OTHER, TINY, vector


def test_neighbours_are_the_cosines_over_shared_layers(store):
    made = {
        name: vector(seed, *layers)
        for seed, (name, layers) in enumerate(
            {"a": (1, 2), "b": (2, 3), "c": (4,), "d": (1, 2)}.items()
        )
    }
    store.save_many(list(made.items()))
    store.save("e", vector(9, model=OTHER))
    found = {n.ref: n for n in store.similar("a")}
    assert set(found) == {"tiny_1.b.v1", "tiny_1.d.v1"}  # c shares no layer, e no model
    flat = {
        name: np.concatenate([made[name].float32()[b].ravel() for b in layers]).astype(float)
        for name, layers in (("a", (1, 2)), ("d", (1, 2)))
    }
    cosine = flat["a"] @ flat["d"] / np.linalg.norm(flat["a"]) / np.linalg.norm(flat["d"])
    assert found["tiny_1.d.v1"].cosine == pytest.approx(cosine, abs=1e-9)
    assert found["tiny_1.b.v1"].layers == (2,)
    assert found["tiny_1.b.v1"].cosine == pytest.approx(
        store.load("a").cosines(store.load("b"))[2], abs=1e-9
    )


def test_opposites_are_neighbours_and_only_newest_versions_count(store):
    love = store.save("love", vector(1))
    store.save("hate", -love)
    store.save("noise", vector(5))
    store.save("noise", vector(6))
    found = store.similar("love")
    assert [(n.ref, round(n.cosine, 6)) for n in found[:1]] == [("tiny_1.hate.v1", -1.0)]
    assert [n.ref for n in found[1:]] == ["tiny_1.noise.v2"]
    assert len(store.similar("love", limit=1)) == 1


def test_each_layer_has_its_cosine_and_a_vector_need_not_be_stored(store):
    made = [vector(1, 1, 2), vector(2, 1, 2)]
    kept = store.save_many(list(zip("ab", made, strict=True)))
    (found,) = store.similar("a")
    assert dict(zip(found.layers, found.cosines, strict=True)) == pytest.approx(
        kept[0].cosines(kept[1]), abs=1e-9
    )
    both = {n.ref.split(".")[1]: n.cosine for n in store.similar(kept[0] - kept[1])}
    assert both["a"] > 0 > both["b"]


def test_front_tensors_of_different_lengths_are_padded(store):
    rng = np.random.default_rng(0)
    rows = {3: rng.normal(size=(3, 8)), 5: rng.normal(size=(5, 8))}
    for length, array in rows.items():
        made = SteeringVector({1: array}, model=TINY, scope="front")
        store.save(f"front_{length}", made)
    (found,) = store.similar("front_3")
    expected = store.load("front_3").cosines(store.load("front_5"))[1]
    assert found.cosine == pytest.approx(expected, abs=1e-9)


def test_a_damaged_payload_is_left_out_and_a_stop_keeps_what_came(family):
    digest = family.record("anger").digest
    (hurt,) = family.path.glob(f"payloads/*/{digest}*")
    hurt.write_bytes(hurt.read_bytes()[:-5])
    seen = []
    found = family.similar("love", progress=lambda done, total: seen.append((done, total)))
    assert {n.ref for n in found} == {"tiny_1.warm.v1", "tiny_1.deep.v1"}
    assert seen == [(4, 4)]
    family.save("new", vector(9))
    stopped = family.similar("love", should_stop=lambda: True)
    assert {n.ref for n in stopped} == {"tiny_1.warm.v1", "tiny_1.deep.v1"}


def test_a_lone_vector_has_no_neighbours(store: Store):
    store.save("love", vector(1))
    assert list(store.similar("love")) == []
