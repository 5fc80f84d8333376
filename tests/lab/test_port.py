"""Recipes on another model, with their ancestry; and again on their own."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab import Lab, LanguageModel, Store
from steerlab.core.recipe import Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible
from steerlab.lab.port import layer_at_same_depth, port
from steerlab.lab.recipes import rerun
from tests.saved import ANGER, LOVE, save_model
from tests.tiny import tiny_lm, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def models():
    """4 layers of 32, and 8 layers of 16."""
    small = LanguageModel(tiny_model(), tiny_tokenizer(), source="small")
    deep = LanguageModel(
        tiny_model(seed=3, num_hidden_layers=8, hidden_size=16), tiny_tokenizer(), source="deep"
    )
    return small, deep


@pytest.fixture
def store(models, tmp_path):
    """love and anger at layers 1 and 2, warm = love - anger, hot = 2*warm[1]."""
    lab = Lab(Store(tmp_path / "store"), models[0])
    love = lab.extract("love", LOVE, layers=[1, 2], tags=["kind"], note="why")
    anger = lab.extract("anger", ANGER, layers=[1, 2])
    warm = lab.store.save("warm", love - anger)
    lab.store.save("hot", 2 * warm[1:3])
    return lab.store


def test_a_layer_keeps_its_depth():
    assert [layer_at_same_depth(b, 4, 8) for b in range(4)] == [0, 2, 4, 6]
    assert [layer_at_same_depth(b, 8, 4) for b in range(8)] == [0, 1, 1, 2, 2, 3, 3, 3]
    assert layer_at_same_depth(29, 30, 30) == 29
    assert layer_at_same_depth(15, 30, 12) == 6


def test_a_contrast_recipe_is_run_on_the_other_model(store, models):
    deep = models[1]
    (made,) = port(Lab(store, deep), "love")
    assert (made.before, made.layers, made.new) == ("small.love.v1", {1: 2, 2: 4}, True)
    assert made.after == deep.extract(LOVE, layers=[2, 4])
    record = store.record("love", "deep")
    assert (record.tags, record.note, record.version) == (("kind",), "why", 1)
    assert store.load("love", "small").layers == (1, 2)


def test_layers_whose_pairs_disagree_are_named(store, models):
    lab = Lab(store, models[1])
    turned = [(b, a) if i % 2 else (a, b) for i, (a, b) in enumerate(2 * LOVE)]
    Lab(store, models[0]).extract("nothing", turned, layers=[1, 2])
    (made,) = port(lab, "nothing")
    shares = {b: d["agreement"] for b, d in made.after.diagnostics.items()}
    assert made.poor_layers == [2, 4] == made.to_json()["poor_layers"], shares
    (fine,) = port(lab, "love")
    assert all(fine.after.diagnostics[b]["agreement"] == 1 for b in (2, 4)) == (
        not fine.poor_layers
    )


def test_a_composition_brings_its_ancestry(store, models):
    lab = Lab(store, models[1])
    made = port(lab, "warm")
    assert [(m.before, m.after.ref) for m in made] == [
        ("small.love.v1", "love.v1"),
        ("small.anger.v1", "anger.v1"),
        ("small.warm.v1", "warm.v1"),
    ]
    assert store.load("deep.warm") == store.evaluate("deep.love - deep.anger")
    assert store.verify() == []


def test_selected_layers_are_mapped_though_they_have_gaps_then(store, models):
    made = port(Lab(store, models[1]), "hot")
    assert str(made[-1].after.recipe) == "= 2 * (warm.v1[2] + warm.v1[4])"
    assert made[-1].after == store.evaluate("2*deep.warm")
    assert store.verify() == []


def test_what_is_there_is_used(store, models):
    lab = Lab(store, models[1])
    port(lab, "hot")
    again = port(lab, "hot")
    assert [m.new for m in again] == [False] * 4
    assert len(store.list(model="deep", every_version=True)) == 4
    assert port(lab, "warm", layers=[5])[-1].after.ref == "warm.v2"


def test_layers_can_be_chosen(store, models):
    made = port(Lab(store, models[1]), "warm", layers=[3, 7])
    assert made[-1].after.layers == (3, 7)
    assert made[-1].layers == {}
    with pytest.raises(Incompatible, match="selects its layers itself"):
        port(Lab(store, models[1]), "hot", layers=[3])


def test_front_tensors_are_ported(store, models):
    Lab(store, models[0]).extract("front", [("Love", "Hate")], layers=1, method="actadd")
    (made,) = port(Lab(store, models[1]), "front")
    assert (made.after.scope, made.after.layers) == ("front", (2,))


def test_an_imported_vector_has_no_recipe(store, models):
    arrays = {1: np.ones(32)}
    found = SteeringVector(arrays, model=models[0].identity, recipe=Imported("a file"))
    store.save("found", found)
    store.save("mixed", store.evaluate("found + love"))
    for name in ("found", "mixed"):
        with pytest.raises(Incompatible, match=r"found.v1 was imported and has no recipe"):
            port(Lab(store, models[1]), name)
    assert [m.name for m in store.models()] == ["small"]


def test_its_own_model_is_no_other(store, models):
    with pytest.raises(BadOption, match=r"love.v1 is of small already"):
        port(Lab(store, models[0]), "love")


@pytest.fixture
def own(tmp_path):
    """A store whose vectors' model can be loaded by its source."""
    source = save_model(tmp_path / "model")
    lab = Lab(Store(tmp_path / "own"), source=str(source))
    lab.extract("love", LOVE, layers=[1, 2])
    return lab.store


def test_recipes_give_what_is_stored(own):
    (found,) = rerun(Lab(own))
    assert found.problem == ""
    assert found.cosine == pytest.approx(1)


def test_a_vector_that_its_recipe_does_not_give(own):
    love, other = own.load("love"), own.load("love")
    forged = SteeringVector(
        {b: x + 3 * np.eye(1, 32) for b, x in other.directions.items()},
        model=love.model,
        recipe=love.recipe,
    )
    own.save("forged", forged)
    found = {r.ref: r for r in rerun(Lab(own))}
    assert found["model.forged.v1"].problem == "its recipe gives another vector today"
    assert found["model.forged.v1"].cosine < 0.999
    assert not found["model.love.v1"].problem


def test_a_model_that_is_another_or_gone_by_now(own, tmp_path):
    tiny_lm(seed=9).model.save_pretrained(tmp_path / "model")
    (found,) = rerun(Lab(own))
    assert "has other weights today" in found.problem
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    (found,) = rerun(Lab(own))
    assert found.cosine is None
    assert "can't be loaded" in found.problem
