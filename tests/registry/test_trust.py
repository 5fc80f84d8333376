"""verify, rebuild and gc: what a store can prove about itself, and what it clears away."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from steerlab.core.recipe import Expression
from steerlab.core.record import Labels, record_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import Cancelled, CorruptPayload, NotFound, StoreError
from steerlab.files import durable, payload
from steerlab.registry import Store, files
from steerlab.registry.tables import VECTOR
from steerlab.registry.upkeep.verify import Damage
from tests.registry.samples import TINY, vector


def exported(record, vector):
    """A payload file, which says what its vector is called."""
    return payload.encode([(record, vector)])


def file_of(store, ref):
    return next(store.path.glob(f"payloads/**/{store.record(ref).digest}.safetensors"))


def records(store):
    return {s.qualified: store.record(s.qualified) for s in store.list(every_version=True)}


def problems(store):
    return {f.ref: f.problem for f in store.verify()}


def test_nothing_is_wrong_with_a_fresh_store(family):
    seen = []
    assert family.verify(lambda done, of: seen.append((done, of))) == []
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_altered_payload_is_found_and_not_loaded(family):
    file = file_of(family, "anger")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptPayload, match="altered"):
        family.load("anger")
    found = problems(family)
    assert "altered" in found["tiny_1.anger.v1"]
    assert "can't be re-evaluated" in found["tiny_1.warm.v1"]
    assert set(found) == {"tiny_1.anger.v1", "tiny_1.warm.v1"}


@pytest.mark.parametrize("wrong", ["newest = 0", "first_layer = 0"])
def test_a_vector_that_is_not_listed_as_it_is_is_found(family, wrong):
    with family._database.writing() as work:
        work.connection.execute(text(f"UPDATE vector SET {wrong} WHERE name = 'love'"))
    assert problems(family) == {
        "registry.db": "1 vectors are not listed as they are: run `steerlab rebuild`"
    }
    family.upkeep.rebuild()
    assert family.verify() == []


def test_a_load_reads_no_record_of_the_others_in_its_file(store, monkeypatch):
    store.save_many([(f"n{i}", vector(i)) for i in range(3)])

    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr(payload, "_records", refuse)
    assert store.load("n1") == vector(1)


def test_a_cut_payload_is_found(family):
    file = file_of(family, "deep")
    file.write_bytes(file.read_bytes()[:-5])
    assert set(problems(family)) == {"tiny_1.deep.v1"}
    with pytest.raises(CorruptPayload):
        family.load("deep")


def test_a_missing_payload_is_found(family):
    file_of(family, "deep").unlink()
    assert problems(family) == {
        "tiny_1.deep.v1": f"its payload {file_path(family, 'deep')} is missing"
    }
    with pytest.raises(NotFound, match=r"the payload of tiny_1\.deep\.v1 is missing"):
        family.load("deep")
    assert family.remove("deep") == []
    assert family.verify() == []


def file_path(store, ref):
    digest = store.record(ref).digest
    return f"payloads/{digest[:2]}/{digest}.safetensors"


def test_findings_are_told_as_they_are_met(family):
    for ref in ("anger", "love"):
        (file,) = family.path.glob(f"payloads/**/{family.record(ref).digest}.safetensors")
        file.write_bytes(b"junk")
    heard, checked = [], []
    found = family.verify(lambda *a: checked.append((len(heard), *a)), heard.append)
    assert heard == list(found)
    assert {f.ref.partition(".")[2] for f in found} >= {"love.v1", "anger.v1", "warm.v1"}
    assert checked[0][1:] == (1, 4)
    assert 0 < checked[1][0] <= checked[-1][0] == len(found)


def test_a_verification_can_be_cancelled(family):
    def stop(done, of):
        raise Cancelled(f"after {done} of {of}")

    with pytest.raises(Cancelled, match="after 1 of 4"):
        family.verify(stop)
    assert family.verify() == []


def test_a_tampered_expression_is_found(family):
    """Record, payload and checksum agree with each other, but not with the arrays."""
    stored = family.record("warm")
    assert isinstance(stored.recipe, Expression)
    recipe = replace(stored.recipe, text="love.v1 - 0.6 * anger.v1")
    forged = replace(stored, recipe=recipe)
    durable.write(file_of(family, "warm"), exported(forged, family.load("warm")))
    assert problems(family) == {"tiny_1.warm.v1": "registry and payload differ in its recipe"}
    family.upkeep.rebuild()
    assert problems(family) == {
        "tiny_1.warm.v1": "its recipe = love.v1 - 0.6 * anger.v1 gives other bytes than are stored"
    }


def test_a_row_that_was_changed_by_hand_is_found(family):
    with family._database.writing() as work:
        row = VECTOR.c.name == "love"
        work.connection.execute(update(VECTOR).where(row).values(norm=99.0))
    assert problems(family) == {"tiny_1.love.v1": "registry and payload differ in its norm"}
    with pytest.raises(
        StoreError, match=r"row of tiny_1.love.v1 was altered: run `steerlab rebuild`"
    ):
        family.load("love")


def test_a_damaged_vector_of_a_file_with_many_is_the_only_one_named(store):
    saved = store.save_many([(f"n{i}", vector(i)) for i in range(5)])
    (file,) = store.path.glob("payloads/**/*.safetensors")
    bytes_of = saved[3].float32()[2].tobytes()
    file.write_bytes(file.read_bytes().replace(bytes_of, bytes(len(bytes_of))))
    assert set(problems(store)) == {"tiny_1.n3.v1"}
    assert store.load("n2") == vector(2)


# labels


def label_of(store, ref):
    story = store.record(ref).story
    return store.path / f"labels/{story[:2]}/{story}.json"


LABEL_DAMAGE = {
    "another name": lambda text: text.replace("anger", "fury"),
    "another version": lambda text: text.replace('"version":1', '"version":7'),
    "other tags": lambda text: text.replace('"tags":[]', '"tags":["x"]'),
    "no JSON": lambda text: text[:-5],
    "removed": lambda text: re.sub(r'(":){"edits.*?}', r'\1{"removed_from":"payloads/x"}', text),
    "a format to come": lambda text: text.replace('"format":1', '"format":9'),
}


@pytest.mark.parametrize("change", LABEL_DAMAGE.values(), ids=LABEL_DAMAGE)
def test_a_label_file_that_contradicts_its_row_is_named_and_mended(family, change):
    family.note("anger", "calm")
    before = records(family)
    file = label_of(family, "anger")
    file.write_text(change(file.read_text()))
    (finding,) = family.verify()
    assert (finding.ref, finding.damage) == ("tiny_1.anger.v1", Damage.LABEL)
    assert "label file" in finding.problem
    assert records(family) == before
    assert family.upkeep.rebuild() == 4
    assert records(family) == before
    assert family.verify() == []


def test_missing_label_files_are_named_and_written_anew(family):
    for ref in ("love", "anger", "warm", "deep"):
        family.note(ref, "changed")
    before = records(family)
    shutil.rmtree(family.path / "labels")
    assert {f.damage for f in family.verify()} == {Damage.LABEL}
    assert set(problems(family).values()) == {"its label file is missing: run `steerlab rebuild`"}
    family.upkeep.rebuild()
    assert family.verify() == []
    (family.path / "registry.db").unlink()
    assert records(Store(family.path)) == before


def test_without_registry_and_labels_the_vectors_are_as_they_were_saved(family):
    before = records(family)
    family.rename("anger", "fury")
    shutil.rmtree(family.path / "labels")
    (family.path / "registry.db").unlink()
    assert records(Store(family.path)) == before
    assert Store(family.path).verify() == []


def test_vectors_whose_names_nobody_knows_are_still_there(family):
    """Revision 0100 wrote no labels to payloads."""
    digests = {record.digest for record in records(family).values()}
    for ref, record in records(family).items():
        unknown = record.labelled(Labels("", 0))
        durable.write(file_of(family, ref), exported(unknown, family.load(ref)))
    (family.path / "registry.db").unlink()
    again = Store(family.path)
    assert {record.digest for record in records(again).values()} == digests
    assert all(name.startswith("unnamed_") for name in again.names())
    assert again.verify() == []
    again.rename(again.names()[0], "found")


# rebuild


def test_a_rebuild_gives_the_former_rows(family):
    family.tag("love", add=["x"])
    before = records(family)
    lineage = family.lineage("warm")
    assert family.upkeep.rebuild() == 4
    assert records(family) == before
    assert family.lineage("warm") == lineage
    assert family.verify() == []


def test_a_rebuild_from_tags_and_times_that_others_wrote_is_sound(family):
    """Rows have tags sorted and times in UTC; a payload may have come with others."""
    theirs = replace(family.record("deep"), tags=("b", "a", "b"), created="2024-01-01T00:00")
    durable.write(file_of(family, "deep"), exported(theirs, family.load("deep")))
    assert family.upkeep.rebuild() == 4
    assert family.record("deep").tags == ("a", "b")
    assert family.verify() == []


@pytest.mark.parametrize("other", ["00", "zz"])
def test_a_rebuild_takes_the_copy_of_a_vector_that_is_whole(family, other):
    file, love = file_of(family, "love"), family.load("love")
    (family.path / f"payloads/{other}.safetensors").write_bytes(file.read_bytes())
    numbers = love.float32()[2].tobytes()
    file.write_bytes(file.read_bytes().replace(numbers, bytes(len(numbers))))
    assert {f.damage for f in family.verify() if f.ref == "tiny_1.love.v1"} == {Damage.MOVED}
    assert family.upkeep.rebuild() == 4
    assert family.load("love") == love
    assert family.verify() == []


def test_the_same_numbers_of_another_model_are_not_where_a_vector_was_moved(store):
    store.save("love", vector(1))
    store.save("love", vector(1, model=replace(TINY, fingerprint="f9")))
    first, _ = sorted(store.path.glob("payloads/**/*.safetensors"))
    first.write_bytes(b"junk")
    assert [f.damage for f in store.verify()] == [Damage.ALTERED]


def test_what_a_rebuild_can_not_take_is_not_where_a_vector_was_moved(family):
    timeless = replace(family.record("deep"), created="yesterday")
    data = exported(timeless, family.load("deep"))
    (family.path / "payloads" / "other.safetensors").write_bytes(data)
    file_of(family, "deep").write_bytes(b"junk")
    assert {f.ref: f.damage for f in family.verify()} == {"tiny_1.deep.v1": Damage.ALTERED}


def test_a_clone_without_registry_answers_at_once(family, caplog):
    before = records(family)
    for file in family.path.glob("registry.db*"):
        file.unlink()
    assert records(Store(family.path)) == before
    assert caplog.text.count("had no registry.db: restored 4 vectors") == 1


def test_a_rebuild_leaves_out_what_it_can_not_read(family, caplog):
    file_of(family, "deep").write_bytes(b"junk")
    (family.path / "payloads" / "stray.safetensors").write_bytes(b"")
    assert family.upkeep.rebuild() == 3
    assert caplog.text.count("left out") == 2
    assert family.names() == ["anger", "love", "warm"]


def test_a_rebuild_survives_a_record_that_the_schema_refuses(family, caplog):
    impossible = replace(family.record("deep"), name="odd", norm=-1.0)
    data = exported(impossible, family.load("deep"))
    durable.write(family.path / "payloads" / "odd.safetensors", data)
    assert family.upkeep.rebuild() == 4
    assert "odd.v1" in caplog.text


def test_of_two_claims_to_a_version_the_acknowledged_one_stays(family, caplog):
    """A crash leaves an older payload of the same version; a colleague's file is younger."""
    ours = family.record("love")
    for number, created in enumerate(("2020-01-01", "2090-01-01")):
        other = vector(50 + number)
        theirs = replace(ours, digest=other.digest, created=f"{created}T00:00:00.000000+00:00")
        durable.write(
            family.path / f"payloads/x{number}.safetensors",
            exported(theirs, other),
        )
    assert family.upkeep.rebuild() == 4
    assert family.load("love") == vector(1)
    assert caplog.text.count("love.v1 is already another vector") == 2


def test_a_label_file_that_claims_the_name_of_another_takes_it_from_none(family):
    """A hand wrote it; the rows of both are sound."""
    before = records(family)
    family.note("anger", "mine")
    (file,) = family.path.glob("labels/??/*.json")
    claims = file.read_text().replace('"anger"', '"love"').replace('"edits":1', '"edits":9')
    file.write_text(claims)
    family.note("love", "also mine")
    assert family.upkeep.rebuild() == 4
    assert records(family).keys() == before.keys()
    assert (family.record("anger").note, family.record("love").note) == ("mine", "also mine")
    assert family.verify() == []
    after = records(family)
    for file in family.path.glob("registry.db*"):
        file.unlink()
    assert records(Store(family.path)) == after


def test_a_row_whose_payload_is_gone_is_named_by_a_rebuild(family, caplog):
    file_of(family, "deep").unlink()
    assert family.upkeep.rebuild() == 3
    assert "left out: tiny_1.deep.v1: its payload payloads/" in caplog.text
    caplog.clear()
    assert family.upkeep.rebuild() == 3
    assert "left out" not in caplog.text


def test_a_stray_file_takes_no_name_of_a_model(family, caplog):
    """It may claim to be older than all that is here, and of a model that is called the same."""
    before = records(family)
    elsewhere = replace(family.record("love").model, fingerprint="other")
    other = SteeringVector({2: [1.0] * 8}, model=elsewhere, ref="love.v1")
    forged = replace(record_of(other, "love", 1), created="2001-01-01T00:00:00.000000+00:00")
    durable.write(family.path / "payloads/x.safetensors", exported(forged, other))
    assert family.upkeep.rebuild() == 5
    assert {ref: record for ref, record in records(family).items() if ref in before} == before
    assert family.load("tiny_1.love") == vector(1)


def test_an_old_registry_is_kept(family):
    family.upkeep.rebuild()
    family.upkeep.rebuild()
    assert len(list(family.path.glob("registry.db.before-rebuild-*"))) >= 2


def test_there_is_nothing_to_rebuild_where_there_is_no_store(store):
    with pytest.raises(StoreError, match="no store at"):
        store.upkeep.rebuild()


# gc


def stray(store, name="payloads/aa/stray.safetensors", hours=2.0):
    path = store.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))
    return path


def test_garbage_is_named_first_and_deleted_when_told(family):
    old, half = stray(family), stray(family, "payloads/aa/.tmp-0123")
    young = stray(family, "payloads/aa/young.safetensors", hours=0.5)
    names = {"payloads/aa/stray.safetensors", "payloads/aa/.tmp-0123"}
    assert {g.path for g in family.upkeep.gc()} == names
    assert old.exists()
    assert {(g.path, g.size) for g in family.upkeep.gc(dry_run=False)} == {(n, 5) for n in names}
    assert not old.exists()
    assert not half.exists()
    assert young.exists()
    assert family.upkeep.gc() == []
    assert [g.path for g in family.upkeep.gc(grace=timedelta(0))] == [
        "payloads/aa/young.safetensors"
    ]
    assert family.verify() == []


def test_a_collection_tells_how_far_it_is_and_can_be_cancelled(family):
    old, seen = stray(family), []
    family.upkeep.gc(progress=lambda *a: seen.append(a))
    assert seen == [(n, 5) for n in range(1, 6)]

    def stop(done, of):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        family.upkeep.gc(dry_run=False, progress=stop)
    assert old.exists()
    assert family.verify() == []


def test_only_what_was_listed_is_deleted(family):
    listed = stray(family)
    paths = {garbage.path for garbage in family.upkeep.gc()}
    later = stray(family, "payloads/aa/later.safetensors")
    links = family.path / f"{files.LINKS}0123"
    links.mkdir()
    os.utime(links, (0, 0))
    assert [g.path for g in family.upkeep.gc(dry_run=False, only=paths)] == [*paths]
    assert not listed.exists()
    assert later.exists()
    assert links.exists()


def test_what_rows_point_at_is_no_garbage(family):
    assert family.upkeep.gc(dry_run=False, grace=timedelta(0)) == []


def test_a_store_that_is_not_there_has_no_garbage(store):
    assert store.upkeep.gc() == []
    assert not store.path.exists()


def test_a_damaged_registry_is_found_and_rebuilt(family):
    before = records(family)
    file = family.path / "registry.db"
    data = bytearray(file.read_bytes())
    data[4096 * 2 : 4096 * 6] = os.urandom(4096 * 4)
    file.write_bytes(data)
    with pytest.raises(StoreError, match="steerlab rebuild"):
        family.verify()
    assert family.upkeep.rebuild() == 4
    assert records(family) == before


def test_a_registry_of_junk_says_what_to_do(family):
    before = records(family)
    for junk in (b"", b"not a database at all" * 500):
        (family.path / "registry.db").write_bytes(junk)
        for action in (family.list, lambda: family.save("x", vector())):
            with pytest.raises(
                StoreError, match=r"damaged; nothing is lost.*run `steerlab rebuild`"
            ):
                action()
        assert family.upkeep.rebuild() == 4
        assert records(family) == before


def test_the_log_of_an_old_registry_is_not_replayed_onto_a_new_one(family):
    (family.path / "registry.db").unlink()
    (family.path / "registry.db-wal").write_bytes(b"\x37\x7f\x06\x82 some old log")
    assert len(family.list()) == 4
    with family._database.reading() as connection:
        assert connection.execute(text("PRAGMA quick_check")).scalar() == "ok"
