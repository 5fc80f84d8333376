"""The next version of a composition whose operands got newer ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steerlab.core.vector import SteeringVector
from steerlab.errors import Incompatible, NotFound
from steerlab.lab.recipes import rederive
from tests.registry.samples import vector


def refs(made):
    return [(m.before.ref, m.after.ref, m.operands) for m in made]


def test_nothing_is_made_where_nothing_is_newer(family):
    assert rederive(family, "warm") == []
    family.save("love", vector(1))  # the same bytes under a new version
    assert rederive(family, "warm") == []


def test_the_next_version_has_the_newest_operands(family):
    family.tag("warm", ["kept"])
    family.note("warm", "what it is for")
    love = family.save("love", vector(8))
    (made,) = rederive(family, "warm")
    assert refs([made]) == [("warm.v1", "warm.v2", {"love.v1": "love.v2"})]
    assert family.load("warm") == made.after == family.evaluate("love - 0.5*anger")
    assert made.before == family.load("warm.v1")
    assert made.cosines == family.load("warm.v1").cosines(family.load("warm.v2"))
    record = family.record("warm")
    assert str(record.recipe) == "= love.v2 - 0.5 * anger.v1"
    assert (record.tags, record.note) == (("kept",), "what it is for")
    assert love.ref == "love.v2"
    assert family.verify() == []
    assert rederive(family, "warm") == []


def test_a_dry_run_stores_nothing(family):
    family.save("love", vector(8))
    assert refs(rederive(family, "warm", dry_run=True))[0][:2] == ("warm.v1", "warm.v2")
    assert family.record("warm").version == 1


def test_the_number_of_a_removed_version_is_not_given_again(family):
    family.save("warm", vector(7))
    family.remove("warm.v2")
    family.save("love", vector(8))
    assert refs(rederive(family, "warm", dry_run=True))[0][1] == "warm.v3"
    assert refs(rederive(family, "warm"))[0][1] == "warm.v3"


def test_ancestors_are_made_first_when_asked(family):
    family.save("love", vector(8))
    assert rederive(family, "deep") == []
    made = rederive(family, "deep", deep=True)
    assert refs(made) == [
        ("warm.v1", "warm.v2", {"love.v1": "love.v2"}),
        ("deep.v1", "deep.v2", {"warm.v1": "warm.v2"}),
    ]
    assert str(family.record("deep").recipe) == "= 2 * warm.v2"
    assert family.load("deep") == family.evaluate("2*warm.v2")
    assert family.verify() == []


def test_a_shared_ancestor_is_made_once(family):
    family.save("both", family.evaluate("warm + deep"))
    family.save("love", vector(8))
    made = rederive(family, "both", deep=True)
    assert [m.after.ref for m in made] == ["warm.v2", "deep.v2", "both.v2"]
    assert str(family.record("both").recipe) == "= warm.v2 + deep.v2"
    assert family.verify() == []


def test_versions_that_a_recipe_compares_stay(family):
    family.save("love", vector(8))
    family.save("drift", family.evaluate("love.v2 - love.v1"))
    family.save("love", vector(9))
    assert rederive(family, "drift") == []


def test_names_that_are_made_of_each_other_come_to_rest(family):
    family.save("love", family.evaluate("warm + anger"))  # warm itself is made of love.v1
    assert rederive(family, "warm", deep=True) == []
    family.save("warm", family.evaluate("2*warm"))
    assert rederive(family, "warm") == []
    family.save("anger", vector(9))
    assert refs(rederive(family, "love", deep=True))[-1] == (
        "love.v2",
        "love.v3",
        {"anger.v1": "anger.v2"},
    )


def test_names_of_models_of_one_name_are_told_apart(family):
    """Vectors whose weights are unknown belong to a model of their own in the store."""
    known = family.load("love").model
    unknown = replace(known, fingerprint=None)
    assert known.name == unknown.name

    def bound(text, model):
        made = family.evaluate(text)
        return SteeringVector(made.directions, model=model, recipe=made.recipe)

    there = next(m.name for m in family.models())
    family.save("love", bound("2*warm", unknown))
    here = next(m.name for m in family.models() if m.name != there)
    family.save("anger", bound(f"{here}.love + {there}.love", known))
    assert rederive(family, f"{there}.warm") == []  # anger is made of it, by way of the other love


def test_what_is_no_composition_has_nothing_to_rederive(family):
    with pytest.raises(Incompatible, match=r"love.v1 is no composition"):
        rederive(family, "love")


def test_an_operand_that_is_gone(family):
    family.remove("love", force=True)
    with pytest.raises(NotFound, match=r"its operand love.v1 is not in this store"):
        rederive(family, "warm")


def test_ancestors_on_many_ways_are_looked_at_once(family, monkeypatch):
    for n in range(8):
        x, y = ("love", "anger") if not n else (f"x{n - 1}", f"y{n - 1}")
        family.save(f"x{n}", family.evaluate(f"{x} + {y}"))
        family.save(f"y{n}", family.evaluate(f"{x} - {y}"))
    asked, record = [], type(family).record
    monkeypatch.setattr(type(family), "record", lambda *given: asked.append(1) or record(*given))
    assert rederive(family, "x7") == []
    assert len(asked) < 100
