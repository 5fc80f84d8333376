"""What a ref means, and what it says when it means nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steerlab.core.record import LAST_VERSION, record_of
from steerlab.errors import CorruptPayload, Incompatible, NameTaken, NotFound, StoreError
from steerlab.files import payload
from steerlab.registry import Store, discover
from tests.registry.samples import OTHER, TINY, vector


def test_four_ways_to_write_a_ref(store):
    store.save("love", vector(1))
    store.save("love", vector(2))
    assert store.load("love") == store.load("love.v2") == vector(2)
    assert store.load("tiny_1.love.v1") == store.load("love.v1") == vector(1)
    assert store.load("tiny_1.love") == vector(2)


@pytest.mark.parametrize(
    "ref", ["", ".", "a.b.c.d", "love.v1.x", "lo ve", "love.", "love[2]", "love.v١"]
)
def test_what_is_no_ref_is_not_found(family, ref):
    with pytest.raises(NotFound):
        family.load(ref)


def test_unknown_names_offer_the_closest(family):
    with pytest.raises(NotFound, match="no vector called lve: did you mean love"):
        family.load("lve")
    with pytest.raises(NotFound, match="did you mean love"):
        family.record("LOVE")
    with pytest.raises(NotFound, match="steerlab list"):
        family.load("xyzzy")
    with pytest.raises(NotFound, match="love has no version 7: it has v1"):
        family.load("love.v7")
    with pytest.raises(NotFound, match=r"no vectors of model 'llama' \(it has: tiny_1\)"):
        family.load("llama.love")


def test_an_empty_store_says_so(store):
    with pytest.raises(NotFound, match="the store is empty"):
        store.load("love")
    assert not store.path.exists()


@pytest.fixture
def two(store: Store) -> Store:
    """love of two models, calm of one."""
    store.save("love", vector(1))
    store.save("calm", vector(3))
    store.save("love", vector(2, model=OTHER))
    return store


def test_a_name_of_two_models_has_to_be_qualified(two):
    with pytest.raises(Incompatible, match=r"write other\.love or tiny_1\.love"):
        two.load("love")
    assert two.load("other.love").model == OTHER
    for model in ("tiny_1", "tests/Tiny-1", TINY):
        assert two.load("love", model).model == TINY
    with pytest.raises(NotFound, match=r"other has no vector called calm: other models do"):
        two.load("calm", "other")


def test_another_operand_decides_the_model(two):
    assert two.evaluate("love - calm").model == TINY
    assert two.evaluate("love", OTHER).model == OTHER
    with pytest.raises(Incompatible, match="several models"):
        two.evaluate("2*love")
    with pytest.raises(Incompatible, match="can't be combined"):
        two.evaluate("calm + other.love")


def test_an_unknown_operand_has_its_column(two):
    with pytest.raises(NotFound, match=r"did you mean calm\? \(column 8\)"):
        two.evaluate("calm - clam")


def test_each_model_has_a_short_name_of_its_own(store):
    twin = replace(TINY, source="somebody/Tiny-1", fingerprint="f9")
    copy = replace(TINY, source="/home/me/tiny copy", dtype="bfloat16")
    store.save("love", vector(1))
    store.save("love", vector(2, model=twin))
    store.save("love", vector(3, model=copy))
    assert [(m.name, m.vectors) for m in store.models()] == [("tiny_1", 2), ("tiny_1_2", 1)]
    assert store.load("tiny_1.love.v2").model == copy  # the same weights: the same model
    assert store.load("tiny_1_2.love") == vector(2, model=twin)
    assert store.verify() == []


def test_without_a_fingerprint_the_source_tells_models_apart(store):
    one = replace(TINY, fingerprint=None)
    store.save("love", vector(1, model=one))
    store.save("love", vector(1, model=replace(one, source="tests/two")))
    assert [m.name for m in store.models()] == ["tiny_1", "two"]


def test_names_for_completion(two):
    assert two.names() == ["calm", "love"]
    assert two.names(OTHER) == ["love"]
    assert two.names(replace(OTHER, fingerprint="never seen")) == []


# which store


def test_where_the_store_is_looked_for(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("STEERLAB_STORE", raising=False)
    (tmp_path / "store").mkdir()
    assert discover() not in (Path("store"), tmp_path / "store")  # not a store yet
    (tmp_path / "store" / "payloads").mkdir()
    assert discover() == tmp_path / "store"
    monkeypatch.setenv("STEERLAB_STORE", "~/mine")
    assert Store().path == Path("~/mine").expanduser()
    assert Store("given").path == tmp_path / "given"


def test_a_file_is_no_store(tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("x")
    for attempt in (Store(file).list, lambda: Store(file).save("love", vector())):
        with pytest.raises(StoreError, match="is a file, not a store"):
            attempt()


def test_the_last_version_has_none_after_it(store, tmp_path):
    """A forged file claims it: what was saved after it could not be read again."""
    for number in (LAST_VERSION, LAST_VERSION + 1):
        claims = replace(record_of(vector(1), "love", 1), version=number)
        (tmp_path / f"{number}.safetensors").write_bytes(payload.encode([(claims, vector(1))]))
    with pytest.raises(CorruptPayload, match="impossible name or version"):
        store.transfer.import_(tmp_path / f"{LAST_VERSION + 1}.safetensors")
    store.transfer.import_(tmp_path / f"{LAST_VERSION}.safetensors")
    assert store.load(f"love.v{LAST_VERSION}") == vector(1)
    store.transfer.export("love", tmp_path / "again.safetensors")
    for save in (
        lambda: store.save("love", vector(2)),
        lambda: store.save_many([("anger", vector(2)), ("love", vector(3))]),
    ):
        with pytest.raises(NameTaken, match=r"no version of love can follow love\.v9{18}: use"):
            save()
    assert store.names() == ["love"]
    store.upkeep.rebuild()
    assert store.verify() == []
