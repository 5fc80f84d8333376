"""Payload files of more text than is written today: earlier versions set no limit to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from steerlab.errors import CorruptPayload, StoreError
from steerlab.files import header
from steerlab.registry import Store, files
from tests.registry.samples import PAIRS, vector

WORDY = replace(PAIRS, positive=("愛する " * 30_000, "love " * 20_000), positive_ids=())
"""Prompts that make 0.7 MB of a file's header."""


def old_batches(entries):
    """As version 0.1 put vectors together: by their number and arrays only."""
    yield list(entries)


@pytest.fixture
def low_limit(monkeypatch):
    """Headers are long from a tenth of the size on, which takes a tenth of the time."""
    monkeypatch.setattr(header, "LONGEST_SHARED", header.LONGEST_SHARED // 10)


@pytest.fixture
def old(store, monkeypatch, low_limit):
    """A store with a file of two vectors and a header too long for both, and those vectors."""
    monkeypatch.setattr("steerlab.registry.saving.batches", old_batches)
    with monkeypatch.context() as patch:
        patch.setattr(header, "check_size", lambda *args: None)
        patch.setattr(header, "length_of", lambda *args: None)
        patch.setattr(header, "check_memory", lambda *args: None)
        saved = store.save_many([(f"n{i}", vector(i, recipe=WORDY)) for i in range(2)])
    return store, saved


def test_a_file_of_many_prompts_is_used_like_any_other(old, tmp_path):
    store, saved = old
    (file,) = files.payload_files(store.path)
    assert file.stat().st_size > 1.2 * header.LONGEST_SHARED
    assert [store.load("n0"), store.load("n1")] == saved
    store.tag("n0", add=["kept"])
    store.rename("n1", "m1")
    assert (store.record("n0").tags, store.load("m1")) == (("kept",), saved[1])
    assert store.verify() == []
    assert store.upkeep.rebuild() == 2
    assert store.load("n0") == saved[0]
    store.remove("n0")
    assert store.verify() == []
    other = Store(tmp_path / "other")
    other.transfer.import_(store.transfer.export(["m1"], tmp_path / "x.safetensors"))
    assert other.load("m1") == saved[1]


def test_what_is_too_large_to_be_read_is_kept_and_never_called_altered(old, monkeypatch, caplog):
    store, saved = old
    small = store.save("small", vector(7, recipe=replace(PAIRS, positive=("a", "b"))))
    with monkeypatch.context() as patch:
        patch.setattr(header, "LONGEST_HEADER", 100_000)
        with pytest.raises(CorruptPayload, match="larger than this steerlab reads") as caught:
            store.load("n0")
        assert "altered" not in str(caught.value)
        assert "remove" not in str(caught.value)
        (problem,) = [found for found in store.upkeep.diagnose() if found.wrong]
        assert problem.refs == ("tiny_1.n0.v1", "tiny_1.n1.v1")
        assert "larger than this steerlab reads" in problem.what
        assert problem.fix.startswith("keep the file")
        assert store.upkeep.rebuild() == 3
        assert [s.name for s in store.list(sort="name")] == ["n0", "n1", "small"]
        assert store.load("small") == small
    assert [store.load("n0"), store.load("n1")] == saved
    assert store.verify() == []


def test_without_a_registry_a_file_that_is_too_large_is_left_where_it_is(old, monkeypatch, caplog):
    store, saved = old
    (store.path / "registry.db").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(header, "LONGEST_HEADER", 1000)
        bare = Store(store.path)
        assert bare.list() == []
        assert "larger than this steerlab reads" in caplog.text
        assert bare.upkeep.gc(dry_run=False, grace=timedelta(0)) == []
        assert not any("--delete" in found.fix for found in bare.upkeep.diagnose())
    assert bare.upkeep.rebuild() == 2
    assert bare.load("n1") == saved[1]


def test_one_vector_may_have_a_recipe_of_any_size(store):
    many = replace(PAIRS, positive=("愛する " * 600_000, "love " * 200_000))
    saved = store.save("love", vector(recipe=many))
    assert max(file.stat().st_size for file in files.payload_files(store.path)) > 14e6
    assert store.load("love") == saved
    assert store.record("love").recipe == many
    assert store.verify() == []


def test_many_notes_and_tags_are_spread_over_files(store):
    tags = tuple(f"{'t' * 100_000}{i}" for i in range(2))
    saved = store.save_many(
        [(f"n{i}", vector(i)) for i in range(10)], tags=tags, note="note " * 80_000
    )
    assert 1 < len(list(files.payload_files(store.path))) < 10
    assert store.load("n3") == saved[3]


def test_too_many_for_one_file_are_asked_for_as_an_archive(store, tmp_path):
    wordier = replace(WORDY, positive=tuple(10 * text for text in WORDY.positive))
    for name in "ab":
        store.save(name, vector(ord(name), recipe=wordier))
    with pytest.raises(StoreError, match=r"too large for a file .* NAME\.tar"):
        store.transfer.export(["a", "b"], tmp_path / "x.safetensors")
    store.transfer.export(["a", "b"], tmp_path / "x.tar")


def test_a_note_that_is_too_long_is_to_be_shortened(store):
    with pytest.raises(StoreError, match=r"note of tiny_1\.love\.v1 .* shorten"):
        store.save("love", vector(), note="x" * 13_000_000)
