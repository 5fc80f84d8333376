"""A clock that runs backwards: what was made later claims to be older."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from steerlab.core import record
from steerlab.registry import Store
from tests.registry.samples import vector


class Backwards:
    """Each look at it finds it a day earlier."""

    def __init__(self):
        self.days = 0

    def now(self, zone=UTC):
        self.days += 1
        return datetime(2026, 1, 1, tzinfo=zone) - timedelta(days=self.days)


@pytest.fixture
def backwards(store, monkeypatch) -> Store:
    """love, anger, warm = love - 0.5*anger and love.v2, each a day older than the one before."""
    monkeypatch.setattr(record, "datetime", Backwards())
    love = store.save("love", vector(1))
    anger = store.save("anger", vector(2))
    store.save("warm", love - 0.5 * anger)
    store.save("love", vector(3))
    return store


def whole(store):
    assert store.verify() == []
    assert store.load("love") == vector(3)
    assert [node.ref for node in store.lineage("warm").parents] == [
        "tiny_1.love.v1",
        "tiny_1.anger.v1",
    ]
    assert store.evaluate("love.v1 - 0.5*anger") == store.load("warm")


def test_the_newest_version_is_the_one_with_the_highest_number(backwards):
    assert backwards.load("love").ref == "love.v2"
    whole(backwards)


def test_a_list_says_when_each_says_it_was_made(backwards):
    listed = [s.name for s in backwards.list(sort="created")]
    assert listed == ["love", "warm", "anger"]
    first = backwards.list(sort="created", limit=2)
    rest = backwards.list(sort="created", limit=2, after=first[-1])
    assert [s.name for s in (*first, *rest)] == listed


def test_a_rebuild_joins_children_to_parents_that_claim_to_be_younger(backwards):
    backwards.upkeep.rebuild()
    whole(backwards)
    for file in backwards.path.glob("registry.db*"):
        file.unlink()
    whole(Store(backwards.path))


def test_an_operand_that_comes_later_under_another_name_and_claims_to_be_younger(
    backwards, tmp_path
):
    """warm arrives where `love` and `anger` are other vectors, then what it was made from."""
    other = Store(tmp_path / "other")
    other.save("love", vector(30))
    other.save("anger", vector(31))
    other.transfer.import_(backwards.transfer.export("warm", tmp_path / "warm.safetensors"))
    for name in ("love.v1", "anger"):
        backwards.transfer.export(name, tmp_path / f"{name}.safetensors")
        other.transfer.import_(tmp_path / f"{name}.safetensors")
    assert [node.ref for node in other.lineage("warm").parents] == [
        "tiny_1.love.v2",
        "tiny_1.anger.v2",
    ]
    assert other.verify() == []


def test_equal_vectors_never_become_each_others_ancestors(store, monkeypatch):
    monkeypatch.setattr(record, "datetime", Backwards())
    first = store.save("first", vector(1))
    second = store.save("second", 1 * first)
    store.save("third", 1 * second)
    store.remove("first", force=True)
    store.upkeep.rebuild()
    refs, ref = set(), "third"
    while (parents := store.lineage(ref).parents) and parents[0].stored:
        refs.add(ref)
        ref = parents[0].ref
        assert ref not in refs


def test_files_of_the_future_are_collected_once_they_are_no_accident(family):
    family.remove("deep")
    loose = family.path / "payloads" / "zz"
    loose.mkdir()
    file = loose / f"{'z' * 64}.safetensors"
    file.write_bytes(b"half")
    later = time.time() + 7200
    os.utime(file, (later, later))
    assert family.upkeep.gc(grace=timedelta(hours=3)) == []
    assert [g.size for g in family.upkeep.gc(dry_run=False)] == [4]
    assert not file.exists()
