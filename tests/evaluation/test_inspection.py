"""What is said of a direction, from the store and from the model."""

from functools import cache

import numpy as np
import pytest

from steerlab import Lab, SteeringVector, Store
from steerlab.core.algebra import random_like
from steerlab.core.recipe import Imported
from steerlab.errors import BadOption, ModelMismatch
from steerlab.evaluation.inspection.agreement import agreement
from steerlab.evaluation.inspection.inspect import illegible, inspect
from steerlab.evaluation.inspection.logit_lens import _chance, logit_lens
from steerlab.evaluation.inspection.projection import projections
from steerlab.extraction.runner import read_pairs
from tests.tiny import tiny_lm

PAIRS = [("I love you so", "I hate you so"), ("what joy", "what pain"), ("so kind", "so cruel")]


@pytest.fixture
def lab(tmp_path):
    lab = Lab(Store(tmp_path / "store"), tiny_lm())
    love = lab.extract("love", PAIRS, layers=[1, 2])
    anger = lab.extract("anger", [(b, a) for a, b in PAIRS[:2]], layers=[1, 2])
    lab.store.save("warm", love - anger)
    lab.extract("front", [("Love", "Hate")], layers=1, method="actadd")
    return lab


@pytest.fixture
def no_model(lab, monkeypatch):
    """The same store, where loading a model fails the test."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    lab = Lab(lab.store)
    monkeypatch.setattr(lab, "load", load)
    return lab


def test_without_a_model_it_says_what_the_store_knows(no_model):
    found = inspect(no_model, "love", tokens=0)
    love = no_model.store.load("love")
    assert {n.ref for n in found.neighbours} == {"tiny.anger.v1", "tiny.warm.v1"}
    assert found.agreement == {"love.v1": dict(love.diagnostics)}
    assert found.lens == ()
    assert found.projections is None
    assert found.notes == ()


@pytest.mark.parametrize("pairs", [False, True])
def test_some_of_its_layers_have_their_own_figures(lab, pairs):
    love = lab.store.load("love")
    (found,) = inspect(lab, "love", layers=[2], pairs=pairs).agreement.values()
    assert list(found) == [2]
    assert love.diagnostics[2].items() <= found[2].items()


def test_an_expression_is_traced_to_the_pairs_it_was_made_of(no_model):
    found = inspect(no_model, "2*warm - love[1]", tokens=0)
    assert set(found.agreement) == {"love.v1", "anger.v1"}
    assert set(found.operands) == {"warm.v1", "love.v1"}
    assert found.operands["love.v1"] == pytest.approx(
        found.vector.cosines(no_model.store.load("love"))
    )
    assert "tiny.warm.v1" in {n.ref for n in found.neighbours}
    assert found.name == "2 * warm.v1 - love.v1[1]"


def test_with_the_model_it_is_the_same_calls_in_python(lab):
    found = inspect(lab, "love", tokens=3, prompt="hello you", pairs=True)
    love = lab.store.load("love")
    assert list(found.lens) == logit_lens(lab.model, love, top=3)
    assert found.agreement["love.v1"] == agreement(lab.model, love.recipe, [1, 2])
    assert list(found.projections.values) == [1, 2]
    assert len(found.projections.tokens) == 9


def test_layers_that_it_lacks_are_made_of_its_recipe(lab):
    found = inspect(lab, "love", layers=[2, 3], tokens=1)
    assert found.vector.layers == (2, 3)
    assert found.name == "love.v1"
    assert set(found.agreement["love.v1"]) == {2, 3}
    assert [lens.layer for lens in found.lens] == [2, 3]
    assert "tiny.love.v1" not in {n.ref for n in found.neighbours}
    assert set(inspect(lab, "love - anger", layers=3, pairs=True).agreement) == {
        "love.v1",
        "anger.v1",
    }


def test_what_can_not_be_said_is_said_in_words(lab):
    ones = SteeringVector({1: np.ones(32)}, model=lab.model.identity, recipe=Imported("a.pt"))
    lab.store.save("foreign", ones)
    assert any("imported" in note for note in inspect(lab, "foreign", pairs=True).notes)
    front = inspect(lab, "front", pairs=True)
    assert any("one pair" in note for note in front.notes)
    assert {lens.row for lens in front.lens} > {1}
    lab.store.remove("anger", force=True)
    mixed = inspect(lab, "warm + foreign", tokens=0)
    assert [note.split(":")[0] for note in mixed.notes] == [
        "the pairs of anger.v1 are unknown",
        "foreign.v1 was imported",
    ]
    assert set(mixed.agreement) == {"love.v1"}


def test_a_direction_like_any_other_is_called_so(lab):
    rows = lab.model.model.get_output_embeddings().weight.detach().numpy()
    planted = SteeringVector({1: rows[77] * 9}, model=lab.model.identity)
    found = inspect(lab, planted, tokens=1)
    assert found.lens[0].promoted[0].id == 77
    assert not any("stands out" in note for note in found.notes)
    noise = np.random.default_rng(5).standard_normal((40, 32))
    plain = [SteeringVector({1: x}, model=lab.model.identity) for x in noise]
    said = [inspect(lab, v, tokens=1, neighbours=0).notes for v in plain]
    assert any("no token stands out" in note for notes in said for note in notes)


@pytest.mark.parametrize("layers", [(1,), (0, 1, 2)])
def test_few_random_directions_stand_out_however_many_layers_are_read(monkeypatch, lab, layers):
    monkeypatch.setattr(f"{logit_lens.__module__}._chance", cache(_chance))  # 14 s, not 0.3
    rng = np.random.default_rng(11)
    made = [
        SteeringVector({b: rng.standard_normal(32) for b in layers}, model=lab.model.identity)
        for _ in range(100)
    ]
    lenses = [logit_lens(lab.model, vector, top=1) for vector in made]
    silent = sum(not list(illegible(lab, v, x)) for v, x in zip(made, lenses, strict=True))
    assert silent <= 12


def test_a_prompt_is_projected_from_the_midpoint_of_the_pairs(lab):
    for name, pairs_of in (("love", ["love"]), ("love - anger", ["love", "anger"])):
        vector = lab.evaluate(name)
        found = inspect(lab, name, tokens=0, prompt="hello you").projections
        plain = projections(lab.model, vector, "hello you")
        read = [read_pairs(lab.model, lab.store.load(n).recipe, vector.layers) for n in pairs_of]
        assert found.centred
        assert found.to_json()["centred"]
        for b in vector.layers:
            middle = np.mean(np.concatenate([np.concatenate(one[b]) for one in read]), axis=0)
            v = vector.directions[b][0]
            scale = vector.residual_norms[b]
            moved = middle @ v / np.linalg.norm(v) / scale
            assert found.values[b] == pytest.approx(plain.values[b] - moved)
    lab.store.save("found", random_like(lab.store.load("love"), 0))
    alone = inspect(lab, "found", tokens=0, prompt="hello you").projections
    assert not alone.centred


def test_other_weights_are_refused_unless_asked_for(lab):
    other = Lab(lab.store, tiny_lm(seed=1))
    with pytest.raises(ModelMismatch, match="other weights"):
        inspect(other, lab.store.load("love"))
    assert inspect(other, lab.store.load("love"), allow_other_weights=True).lens
    assert inspect(other, lab.store.load("love"), tokens=0).neighbours
    with pytest.raises(BadOption, match="can't be negative"):
        inspect(lab, "love", tokens=-1)


def test_everything_is_json(lab):
    import json

    text = json.dumps(inspect(lab, "warm", prompt="hi", pairs=True).to_json(), allow_nan=False)
    data = json.loads(text)
    assert data["vector"] == "warm.v1"
    assert data["recipe"] == {"kind": "expression", "text": "= love.v1 - anger.v1"}
    assert len(data["tokens"][0]["promoted"]) == 10
    assert data["agreement"]["love.v1"]["1"]["split_half"] <= 1
    assert len(data["projections"]["projections"]["1"]) == 2
