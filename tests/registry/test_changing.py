"""Tags, notes and names change; records and bytes don't. All of it outlives registry.db."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from steerlab.core.record import canonical_json
from steerlab.errors import BadOption, NameTaken, NotFound, StoreError
from steerlab.files import durable
from steerlab.files.payload import encode, read
from steerlab.registry import Store, files
from steerlab.registry.transfer import archive
from tests.registry.samples import OTHER, TINY, vector

NOTHING = timedelta(0)


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
    family.upkeep.gc(dry_run=False, grace=NOTHING)
    assert not list(family.path.glob(f"payloads/**/{(2 * family.load('warm')).digest}*"))


def test_forced_removal_says_what_breaks_and_keeps_the_digest(family):
    assert family.remove("love", force=True) == ["tiny_1.warm.v1"]
    love, anger = family.lineage("warm").parents
    assert (love.ref, love.stored, love.digest) == ("love.v1", False, vector(1).digest)
    assert anger.stored
    (finding,) = family.verify()
    assert finding.ref == "tiny_1.warm.v1"
    assert "its operand love.v1 is not in this store" in finding.problem
    before = records(family)
    assert records(forgotten(family)) == before


def test_a_vector_that_comes_back_is_a_parent_again(family, tmp_path):
    family.transfer.export("love", tmp_path / "love.safetensors")
    family.remove("love", force=True)
    family.transfer.import_(tmp_path / "love.safetensors")
    assert family.verify() == []
    assert [p.ref for p in family.lineage("warm").parents] == ["tiny_1.love.v1", "tiny_1.anger.v1"]


def test_a_number_never_means_another_vector(family):
    assert family.save("love", vector(5)).ref == "love.v2"
    family.remove("love.v2")
    with pytest.raises(NotFound, match=r"^love has no version 2 \(v2 was removed on 2.*\): .* v1$"):
        family.load("love.v2")
    assert family.load("love") == vector(1)
    assert [v.ref for v in family.save_many([("love", vector(6)), ("love", vector(7))])] == [
        "love.v3",
        "love.v4",
    ]
    family.remove("deep")
    with pytest.raises(NotFound, match=r"^no vector called deep \(v1 was removed on 2.*backup"):
        family.load("deep")
    with pytest.raises(NotFound, match=r"no vector called deep\.v2: `steerlab list`"):
        family.load("deep.v2")
    other = family.save("deep", vector(1, model=OTHER))
    assert (other.ref, other.model) == ("deep.v1", OTHER)  # of another model, another name
    assert family.save("deep", vector(8)).ref == "deep.v2"


def test_what_was_removed_is_known_after_a_rebuild_and_in_a_backup(family, tmp_path):
    family.remove("deep")
    family.save("sole", vector(9, model=OTHER))
    family.remove("sole")
    family.transfer.backup(tmp_path / "all.tar")
    other = Store(tmp_path / "other")
    other.transfer.restore(tmp_path / "all.tar")
    family.upkeep.rebuild()
    for store in (family, other):
        assert store.save("deep", vector(8)).ref == "deep.v2"
        assert store.save("sole", vector(9, model=OTHER)).ref == "sole.v2"


def test_what_was_removed_of_a_name_goes_with_it(family):
    family.save("love", vector(5))
    family.remove("love.v2")
    family.save("amour", vector(6))
    family.remove("amour")
    family.rename("love", "amour")
    assert family.load("amour.v1") == vector(1)
    assert family.save("amour", vector(7)).ref == "amour.v3"
    assert family.save("love", vector(8)).ref == "love.v3"  # and stays known of the old one
    family.remove("love")
    family.rename("amour", "love")
    assert family.save("love", vector(9)).ref == "love.v4"
    assert family.save("amour", vector(10)).ref == "amour.v3"


def test_a_removed_version_comes_back_under_its_number(family, tmp_path):
    family.save("love", vector(5))
    family.save("love", vector(6))
    family.transfer.export(["love.v1", "love.v2"], tmp_path / "love.safetensors")
    family.remove("love.v2")
    family.remove("love.v1", force=True)
    family.save("love", vector(7))
    assert [i.ref for i in family.transfer.import_(tmp_path / "love.safetensors")] == [
        "love.v1",
        "love.v2",
    ]
    assert [s.ref for s in family.list(name="love")] == ["love.v4"]
    assert [family.load(f"love.v{n}") for n in (1, 2)] == [vector(1), vector(5)]
    assert family.verify() == []
    assert [e.what for e in family.log("love") if e.what == "removed"] == []


def test_another_vector_does_not_get_a_removed_ones_number(family, tmp_path):
    elsewhere = Store(tmp_path / "elsewhere")
    elsewhere.save("love", vector(50))
    elsewhere.save("love", vector(51))
    elsewhere.transfer.export(["love.v1", "love.v2"], tmp_path / "love.safetensors")
    family.save("love", vector(5))
    family.remove("love.v2")
    assert [i.ref for i in family.transfer.import_(tmp_path / "love.safetensors")] == [
        "love.v3",
        "love.v4",
    ]


@pytest.fixture
def two_models(store: Store) -> Store:
    """love of two models: of one, v2 was removed; of the other, it is there. Both lost others."""
    for model in (TINY, OTHER):
        for number in (1, 2):
            store.save("love", vector(number, model=model))
        store.save("sole", vector(5, model=model))
        store.remove("sole", model=model)
    store.remove("love.v2", model=TINY)
    return store


def test_what_one_model_lost_is_not_what_another_has(two_models, tmp_path):
    with pytest.raises(NotFound, match=r"love has no version 2 \(v2 was removed on"):
        two_models.load("tiny_1.love.v2")
    with pytest.raises(NotFound, match="love has no version 7: it has v1"):
        two_models.load("love.v7", TINY)
    with pytest.raises(NotFound, match=r"no vector called sole \(v1 was removed on"):
        two_models.load("sole", OTHER)
    assert two_models.load("love.v2", OTHER) == vector(2, model=OTHER)
    told = [[(e.what, e.ref) for e in two_models.log("love", m)] for m in (TINY, OTHER)]
    assert told[0] == [("removed", "love.v2"), ("version", "love.v1")]
    assert ("removed", "love.v2") not in told[1]
    elsewhere = Store(tmp_path / "elsewhere")
    for number in (50, 51):
        elsewhere.save("love", vector(number))
    elsewhere.transfer.export("love.v2", tmp_path / "love.safetensors")
    assert [i.ref for i in two_models.transfer.import_(tmp_path / "love.safetensors")] == [
        "love.v3"
    ]


def test_a_removed_one_whose_number_a_renamed_one_took_gets_the_next(family, tmp_path):
    family.save("amour", vector(6))
    family.transfer.export("amour", tmp_path / "amour.safetensors")
    family.remove("amour")
    family.rename("love", "amour")
    assert [i.ref for i in family.transfer.import_(tmp_path / "amour.safetensors")] == ["amour.v2"]
    assert family.load("amour.v1") == vector(1)


def test_an_operand_that_was_removed_keeps_its_name_in_what_comes_back(family, tmp_path):
    family.remove("deep")
    family.transfer.export("warm", tmp_path / "warm.safetensors")
    family.remove("warm")
    family.remove("anger")
    family.transfer.import_(tmp_path / "warm.safetensors")
    assert str(family.record("warm").recipe) == "= love.v1 - 0.5 * anger.v1"


def test_the_right_one_of_two_gets_its_number_back(family, tmp_path):
    """Although the other one, which comes first, says that it had it too."""
    family.save("love", vector(5))
    elsewhere = Store(tmp_path / "elsewhere")
    for number in (50, 51):
        elsewhere.save("love", vector(number))
    mine, theirs = (
        read(store.transfer.export("love.v2", tmp_path / f"{number}.safetensors"))
        for number, store in enumerate((family, elsewhere))
    )
    family.remove("love.v2")
    older = replace(theirs[0], created="2001-01-01T00:00:00.000000+00:00")
    with archive.create(tmp_path / "both.tar") as writer:
        for pair in ((older, theirs[1]), mine):
            name = files.free_path(pair[0].digest, writer.__contains__)
            writer.add(name, encode([pair]))
    family.transfer.import_(tmp_path / "both.tar")
    assert family.load("love.v2") == vector(5)
    assert family.load("love.v3") == vector(51)


@pytest.fixture
def bulk(store: Store) -> Store:
    store.save_many([(f"n{i}", vector(i)) for i in range(10)])
    return store


def written(store, monkeypatch):
    """The files that are written from now on, relative to the store, with their bytes."""
    found = []
    write = durable.write

    def counting(path, data):
        found.append((path.relative_to(store.path).as_posix(), len(data)))
        return write(path, data)

    monkeypatch.setattr(durable, "write", counting)
    return found


def test_changes_of_one_of_many_touch_no_payload_and_outlive_the_registry(bulk, monkeypatch):
    payloads = {p: p.read_bytes() for p in bulk.path.glob("payloads/**/*.safetensors")}
    files = written(bulk, monkeypatch)
    bulk.tag("n3", add=["x"])
    bulk.note("n3", "the third")
    bulk.rename("n4", "other")
    bulk.remove("n5")
    assert {path.split("/")[0] for path, _ in files} == {"labels"}
    assert max(size for _, size in files) < 400
    assert {p: p.read_bytes() for p in payloads} == payloads
    before = records(bulk)
    assert len(before) == 9
    assert before["tiny_1.n3.v1"].note == "the third"
    assert bulk.verify() == []
    assert records(forgotten(bulk)) == before
    assert bulk.verify() == []
    assert bulk.upkeep.gc(grace=NOTHING) == []


def test_a_file_of_many_goes_once_no_row_needs_it(bulk):
    for number in range(10):
        bulk.remove(f"n{number}")
    bulk.upkeep.gc(dry_run=False, grace=NOTHING)
    assert not [p for p in bulk.path.rglob("*") if p.suffix in (".safetensors", ".json")]
    assert records(forgotten(bulk)) == {}


def test_one_that_was_removed_from_many_comes_back_under_its_labels(bulk, tmp_path):
    bulk.tag("n5", add=["x"])
    before = records(bulk)
    file = bulk.transfer.export("n5", tmp_path / "n5.safetensors")
    bulk.remove("n5")
    assert [(i.ref, i.already) for i in bulk.transfer.import_(file)] == [("n5.v1", False)]
    assert records(bulk) == before
    assert records(forgotten(bulk)) == before
    assert bulk.verify() == []


def test_a_rename_touches_no_file_of_what_was_made_from_it(family, monkeypatch):
    files = written(family, monkeypatch)
    story = family.record("love").story
    family.rename("love", "amour")
    assert len(files) == 1
    assert [p.name for p in family.path.glob(f"labels/{story[:2]}/*")] == [f"{story}.json"]
    assert str(family.record("deep").recipe) == "= 2 * warm.v1"
    assert str(family.load("warm").recipe) == "= amour.v1 - 0.5 * anger.v1"


def test_what_a_later_version_wrote_of_a_vector_stays(family):
    story = family.record("love").story
    file = family.path / f"labels/{story[:2]}/{story}.json"
    family.tag("love", add=["y"])
    said = json.loads(file.read_text())
    said["labels"][story]["aliases"] = ["prod"]
    file.write_text(canonical_json(said))
    family.tag("love", add=["x"])
    label = json.loads(file.read_text())["labels"][story]
    assert (label["aliases"], label["tags"]) == (["prod"], ["feeling", "x", "y"])
    assert family.verify() == []


def test_changes_of_a_vector_that_is_not_there(family):
    for action in (family.tag, family.remove, lambda ref: family.note(ref, "x")):
        with pytest.raises(NotFound, match="did you mean love"):
            action("lovee")


def test_text_that_is_not_unicode_is_refused(family):
    with pytest.raises(StoreError, match="not Unicode"):
        family.note("love", "\ud800")
    assert family.record("love").note == "the first"
    assert family.verify() == []


@pytest.mark.parametrize("value", [5, None, b"warm", 0.5])
def test_labels_that_are_no_text_are_refused(family, value):
    """SQLite keeps 5 as '5', which no longer matches the row's checksum."""
    for change in (
        lambda: family.note("love", value),
        lambda: family.tag("love", [value]),
        lambda: family.save("calm", vector(1), note=value),
        lambda: family.save("calm", vector(1), tags=[value]),
    ):
        with pytest.raises(BadOption, match="is text, not"):
            change()
    assert len(family.changes.list()) == 0
    assert family.verify() == []


def test_an_equal_vector_takes_the_place_of_a_removed_operand(family):
    """A vector that is extracted again, say: no rebuild is needed."""
    family.remove("love", force=True)
    assert family.save("love", vector(1)).ref == "love.v2"
    assert [p.ref for p in family.lineage("warm").parents] == ["tiny_1.love.v2", "tiny_1.anger.v1"]
    assert family.verify() == []


def test_one_of_two_equal_operands_can_be_removed(family):
    """What was made from it can still be re-evaluated, with the other."""
    family.save("adore", vector(1))
    assert family.remove("love") == []
    assert str(family.record("warm").recipe) == "= adore.v1 - 0.5 * anger.v1"
    assert family.verify() == []
    with pytest.raises(StoreError, match=r"can't remove tiny_1\.adore\.v1: tiny_1\.warm\.v1 was"):
        family.remove("adore")


def test_what_equals_its_own_ancestor_is_no_operand_in_its_place(family):
    family.save("again", 0.5 * family.save("double", 2 * family.load("love")))
    assert family.record("again").digest == family.record("love").digest
    with pytest.raises(StoreError, match="made from it"):
        family.remove("love")
    assert family.verify() == []


def test_a_file_that_goes_while_usage_is_measured_is_left_out(family, monkeypatch):
    before, found = family.upkeep.usage(), Path.rglob
    gone = family.path / "payloads" / ".tmp-0123"
    monkeypatch.setattr(Path, "rglob", lambda path, what: [*found(path, what), gone])
    assert family.upkeep.usage() == before
