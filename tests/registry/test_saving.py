"""What goes into a store comes out of it, to the last bit and field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from steerlab.core.algebra import mean
from steerlab.core.recipe import Contrast, Expression, Imported
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, BadPrompts, BadVector, NameTaken, NotFound
from steerlab.registry import Store
from tests.registry.samples import OTHER, PAIRS, TINY, vector
from tests.strategies import any_vector


def test_load_is_save_by_digest(store):
    saved = store.save("love", vector())
    loaded = store.load("love")
    assert loaded == saved == vector()
    assert loaded.recipe == PAIRS
    assert loaded.model == TINY
    assert loaded.ref == "love.v1"
    assert loaded.residual_norms == {2: 4.0, 3: 4.0}
    assert loaded.diagnostics[2] == {"agreement": 0.5, "separability": 0.9}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=any_vector)
def test_any_vector_survives(store, made):
    unstored = SteeringVector(
        made.directions, model=made.model, scope=made.scope, residual_norms=made.residual_norms
    )
    saved = store.save("any", unstored)
    assert saved == unstored
    assert store.load("any") == unstored
    assert store.load("any").norm == store.record("any").norm == saved.norm


@pytest.mark.parametrize(
    "recipe",
    [
        PAIRS,
        Contrast(("only positive",), method="actadd", read="last"),
        Contrast(("a", "b"), (), read="mean", seed=-(2**63)),
        Contrast(("3",), ("4",), read=3),
        Imported("far away\n‮ <script> %s 'x' -- \x1b[2J", "repeng", "difference"),
    ],
)
def test_a_record_has_every_field_of_its_recipe(store, recipe):
    store.save("made", vector(recipe=recipe))
    assert store.record("made").recipe == recipe


def test_a_front_tensor_keeps_its_rows(store):
    rows = np.arange(24.0).reshape(3, 8)
    front = SteeringVector({0: rows}, model=TINY, scope="front")
    store.save("front", front)
    assert np.array_equal(store.load("front").directions[0], rows)
    assert store.record("front").layers[0].positions == 3


def test_a_taken_name_gets_its_next_version(store):
    for number in (1, 2, 3):
        assert store.save("love", vector(number)).ref == f"love.v{number}"
    assert store.load("love") == vector(3)
    assert store.load("love.v1") == vector(1)
    assert [s.ref for s in store.list()] == ["love.v3"]
    assert len(store.list(every_version=True)) == 3


def test_the_same_bytes_under_two_names_have_files_of_their_own(store):
    store.save("love", vector())
    store.save("amour", vector())
    assert len(list(store.path.glob("payloads/**/*.safetensors"))) == 2
    store.remove("love")
    assert store.load("amour") == vector()


def test_many_at_once_are_one_file_or_none(store):
    saved = store.save_many([(f"n{i}", vector(i)) for i in range(20)] + [("n0", vector(99))])
    assert [v.ref for v in saved][-2:] == ["n19.v1", "n0.v2"]
    assert len(list(store.path.glob("payloads/**/*.safetensors"))) == 1
    assert store.load("n7") == vector(7)
    with pytest.raises(NotFound):
        store.save_many([("fine", vector(1)), ("orphan", 2 * vector(500))])
    assert "fine" not in store.names()


def test_many_at_once_may_be_made_from_each_other(store):
    love = vector(1)
    store.save_many([("love", love), ("twice", 2 * love)])
    assert store.record("twice").recipe.text == "2 * love.v1"
    assert store.verify() == []


def test_models_do_not_share_a_file(store):
    store.save_many([("love", vector(1)), ("love", vector(1, model=OTHER))])
    assert len(list(store.path.glob("payloads/**/*.safetensors"))) == 2


@pytest.mark.parametrize("name", ["", "lo ve", "unit", "v2", "class", "nan[0]", "é", "a" * 81])
def test_names_that_cannot_be_typed_are_refused(store, name):
    with pytest.raises(NameTaken):
        store.save(name, vector())
    assert not store.path.exists()


def test_nan_inf_and_true_like_names_are_just_names(store):
    for name in ("nan", "NaN", "inf", "null", "select", "DROP"):
        store.save(name, vector(), tags=[name, "[red]x[/]"], note="'; DROP TABLE vector; \x1b[0m")
        assert store.load(name) == vector()
        assert store.list(text="[red]", name=name)[0].tags == tuple(sorted((name, "[red]x[/]")))


def test_what_the_record_cannot_hold_is_refused(store):
    with pytest.raises(BadVector, match="agreement"):
        store.save("x", vector(diagnostics={2: {"agreement": float("nan")}}))
    with pytest.raises(BadVector, match="residual norm"):
        store.save("x", vector(residual_norms={2: float("inf")}))
    with pytest.raises(BadPrompts, match="token ids"):
        store.save("x", vector(recipe=replace(PAIRS, positive_ids=((1,),))))
    with pytest.raises(BadOption, match="64 bits"):
        store.save("x", vector(recipe=replace(PAIRS, seed=2**70)))
    with pytest.raises(BadOption, match="tag"):
        store.save("x", vector(), tags=[" "])
    assert store.list() == []


# operands


def test_an_expression_names_stored_vectors(family):
    recipe = family.record("warm").recipe
    assert recipe.text == "love.v1 - 0.5 * anger.v1"
    assert [p.ref for p in family.lineage("warm").parents] == ["tiny_1.love.v1", "tiny_1.anger.v1"]
    assert [c.ref for c in family.lineage("love").children] == ["tiny_1.warm.v1"]


def test_an_unsaved_operand_is_matched_by_its_bytes(store):
    love, anger = vector(1), vector(2)
    mixed = mean(love, anger)
    assert "unsaved_" in mixed.recipe.text
    store.save("love", love)
    store.save("anger", anger)
    assert store.save("mixed", mixed).recipe.text == "mean(love.v1, anger.v1)"
    assert store.verify() == []


def test_an_unsaved_operand_is_named_in_the_refusal(store):
    store.save("love", vector(1))
    with pytest.raises(NotFound, match=r"unsaved_\w+ in love.v1 - unsaved_\w+ was never saved"):
        store.save("warm", store.load("love") - vector(2))
    assert store.names() == ["love"]


def test_an_operand_of_another_store_goes_by_its_name_there(store, tmp_path):
    far = Store(tmp_path / "far").save("passion", vector(1))
    with pytest.raises(NotFound, match=r"passion\.v1 in 2 \* passion\.v1 is not in this store"):
        store.save("twice", 2 * far)
    store.save("love", vector(1))
    assert store.save("twice", 2 * far).recipe.text == "2 * love.v1"


def test_of_two_records_with_one_digest_the_named_one_is_the_parent(store):
    store.save("love", vector(1))
    store.save("amour", vector(1))
    store.save("love", vector(1))
    for ref in ("amour.v1", "love.v1", "love.v2"):
        saved = store.save("twice", 2 * store.load(ref))
        assert saved.recipe.text == f"2 * {ref}"
        assert [p.ref for p in store.lineage(saved.ref).parents] == [f"tiny_1.{ref}"]


def test_two_placeholders_of_one_stored_vector_become_one_operand(store, tmp_path):
    far = Store(tmp_path / "far").save("passion", vector(1))
    store.save("love", vector(1))
    saved = store.save("sum", far + vector(1))
    assert isinstance(saved.recipe, Expression)
    assert saved.recipe.text == "love.v1 + love.v1"
    assert len(saved.recipe.operands) == 1


def test_a_stored_recipe_gives_the_stored_bytes(store):
    love, anger = store.save("love", vector(1)), store.save("anger", vector(2))
    unrounded = (love / 3 - anger / 7) * 0.1  # two steps in float64, one rounding
    saved = store.save("mix", unrounded)
    assert store.evaluate(saved.recipe.text) == saved
    assert store.verify() == []


def test_records_of_many_prompts_are_spread_over_files(store):
    """A file's header holds all its records and has to stay one that is read."""
    wordy = replace(PAIRS, positive=("word " * 40_000,) * 2, positive_ids=((1,) * 50_000,) * 2)
    saved = store.save_many([(f"n{i}", vector(i, recipe=wordy)) for i in range(5)])
    files = list(store.path.rglob("*.safetensors"))
    assert 1 < len(files) < 5
    assert [store.load(f"n{i}") for i in range(5)] == saved
