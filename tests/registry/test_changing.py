"""Tags, notes and names change; records and bytes don't. All of it outlives registry.db."""

from __future__ import annotations

import pytest

from steerlab.errors import BadOption, NameTaken, NotFound, StoreError
from steerlab.payload import read_records
from steerlab.registry import Store
from tests.registry.samples import OTHER, vector


def records(store):
    return {s.qualified: store.record(s.qualified) for s in store.list(every_version=True)}


def forgotten(store):
    """The same store after its registry was lost."""
    (store.path / "registry.db").unlink()
    return Store(store.path)


def test_tags_and_notes_outlive_the_registry(family, caplog):
    family.tag("love", add=["b", "a"], remove=["feeling", "never there"])
    family.note("love", "second\nthoughts")
    before = records(family)
    assert before["tiny_1.love.v1"].tags == ("a", "b")
    assert before["tiny_1.love.v1"].note == "second\nthoughts"
    assert records(forgotten(family)) == before
    assert "restored 4 vectors" in caplog.text


def test_a_tag_changes_no_digest(family):
    before = family.load("love")
    assert family.tag("love", add=["x"]).digest == before.digest
    assert family.load("love") == before
    assert family.verify() == []


def test_all_versions_of_a_name_move_together(family):
    family.save("love", vector(7))
    assert family.rename("love", "amour") == "tiny_1.amour"
    assert family.load("amour.v1") == vector(1)
    assert family.load("amour") == vector(7)
    with pytest.raises(NotFound):
        family.load("love")


def test_what_was_made_from_it_says_the_new_name(family):
    digest = family.record("warm").digest
    family.rename("love", "amour")
    record = family.record("warm")
    assert record.recipe.text == "amour.v1 - 0.5 * anger.v1"
    assert record.digest == digest
    assert family.list(name="warm")[0].recipe == "= amour.v1 - 0.5 * anger.v1"
    assert family.evaluate(record.recipe.text) == family.load("warm")
    assert family.verify() == []


def test_a_new_name_outlives_the_registry(family):
    family.rename("love", "amour")
    before = records(family)
    assert records(forgotten(family)) == before
    assert family.verify() == []


def test_a_name_in_use_is_not_given_twice(family):
    with pytest.raises(NameTaken, match="tiny_1 already has a vector called anger"):
        family.rename("love", "anger")
    with pytest.raises(NameTaken):
        family.rename("love", "unit")
    with pytest.raises(BadOption, match="renamed together: say love"):
        family.rename("love.v1", "amour")
    family.rename("love", "love")
    family.save("calm", vector(3, model=OTHER))
    family.rename("love", "calm")  # taken, but by another model
    assert family.verify() == []


def test_removing_what_others_were_made_from_is_refused(family):
    with pytest.raises(
        StoreError, match=r"can't remove tiny_1\.love\.v1: tiny_1\.warm\.v1 was made"
    ):
        family.remove("love")
    assert family.load("love") == vector(1)
    assert family.remove("deep") == []
    assert not list(family.path.glob(f"payloads/**/{(2 * family.load('warm')).digest}*"))


def test_forced_removal_says_what_breaks_and_keeps_the_digest(family):
    assert family.remove("love", force=True) == ["tiny_1.warm.v1"]
    love, anger = family.parents("warm")
    assert (love.ref, love.stored, love.digest) == ("love.v1", False, vector(1).digest)
    assert anger.stored
    (finding,) = family.verify()
    assert finding.ref == "tiny_1.warm.v1"
    assert "its operand love.v1 is not in this store" in finding.problem
    before = records(family)
    assert records(forgotten(family)) == before


def test_a_vector_that_comes_back_is_a_parent_again(family, tmp_path):
    family.export("love", tmp_path / "love.safetensors")
    family.remove("love", force=True)
    family.import_(tmp_path / "love.safetensors")
    assert family.verify() == []
    assert [p.ref for p in family.parents("warm")] == ["tiny_1.love.v1", "tiny_1.anger.v1"]


@pytest.fixture
def bulk(store: Store) -> Store:
    store.save_many([(f"n{i}", vector(i)) for i in range(10)])
    return store


def test_a_file_of_many_is_kept_up_to_date(bulk):
    bulk.tag("n3", add=["x"])
    bulk.rename("n4", "other")
    bulk.remove("n5")
    before = records(bulk)
    assert len(before) == 9
    (file,) = bulk.path.glob("payloads/**/*.safetensors")
    assert len(read_records(file)) == 9
    assert records(forgotten(bulk)) == before
    assert bulk.verify() == []


def test_changes_of_a_vector_that_is_not_there(family):
    for action in (family.tag, family.remove, lambda ref: family.note(ref, "x")):
        with pytest.raises(NotFound, match="did you mean love"):
            action("lovee")


def test_text_that_is_not_unicode_is_refused(family):
    with pytest.raises(StoreError, match="not Unicode"):
        family.note("love", "\ud800")
    assert family.record("love").note == "the first"
    assert family.verify() == []
