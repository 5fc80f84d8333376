"""The list: filters, order, pages, and no query per vector."""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from steerlab.core import record
from steerlab.core.recipe import Contrast, Imported
from steerlab.errors import BadOption, NotFound
from steerlab.registry import SORTS, Store, rebuild, text_index
from tests.registry.samples import OTHER, vector


def refs(found):
    return [summary.ref for summary in found]


def test_a_summary_says_what_a_line_needs(family):
    (love,) = family.list(name="love")
    assert (love.name, love.version, love.model) == ("love", 1, "tiny_1")
    assert (love.kind, love.scope, love.layers) == ("contrast", "broadcast", (2, 3))
    assert love.tags == ("feeling",)
    assert love.note == "the first"
    assert love.recipe == str(family.record("love").recipe)
    assert love.dose == pytest.approx(vector(1).dose(1.0))
    assert love.qualified == "tiny_1.love.v1"
    assert love.digest == vector(1).digest


def test_each_filter(family):
    family.save("far", vector(9, 5, model=OTHER, recipe=Imported("a 100%_sure file")))
    assert refs(family.list(model="other")) == refs(family.list(model=OTHER)) == ["far.v1"]
    assert refs(family.list(layer=5)) == refs(family.list(kind="imported")) == ["far.v1"]
    assert refs(family.list(tag="feeling")) == ["love.v1"]
    assert refs(family.list(text="THE FIRST")) == ["love.v1"]
    assert refs(family.list(text="0.5 * anger")) == ["warm.v1"]
    assert refs(family.list(text="0%_s")) == ["far.v1"]
    assert set(refs(family.list(text="hate you"))) == {"love.v1", "anger.v1"}
    assert refs(family.list(text="hate you", tag="feeling")) == ["love.v1"]
    assert family.list(text="hate you", tag="nobody's") == []
    assert family.list(tag="feeling", kind="imported") == []
    with pytest.raises(NotFound, match="it has: other, tiny_1"):
        family.list(model="gpt5")


def test_a_tag_of_an_old_version_does_not_bring_it_back(family):
    family.save("love", vector(5))
    assert family.list(tag="feeling") == []
    assert refs(family.list(tag="feeling", every_version=True)) == ["love.v1"]


def test_the_newest_version_that_is_left_is_listed(family, tmp_path):
    family.save("anger", vector(7))
    middle = family.save("anger", vector(8))
    elsewhere = Store(tmp_path / "elsewhere")
    elsewhere.transfer.import_(family.transfer.export("anger.v2", tmp_path / "v2.safetensors"))
    elsewhere.transfer.import_(family.transfer.export("anger.v3", tmp_path / "v3.safetensors"))
    elsewhere.save("anger", middle * 2)
    family.remove("anger")
    assert refs(family.list(name="anger")) == ["anger.v2"]
    family.rename("anger", "fury")
    assert refs(family.list(name="fury")) == ["fury.v2"]
    family.upkeep.rebuild()
    assert refs(family.list(name="fury")) == ["fury.v2"]
    assert refs(elsewhere.list()) == ["anger.v4"]
    assert family.verify() == elsewhere.verify() == []


class Backwards(datetime):
    moment = datetime(2030, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        cls.moment -= timedelta(hours=1)
        return cls.moment


def test_a_clock_that_runs_backwards_changes_no_newest_version(store, monkeypatch):
    monkeypatch.setattr(record, "datetime", Backwards)
    monkeypatch.setattr(rebuild, "_BATCH", 1)
    for seed in (1, 2, 3):
        store.save("love", vector(seed))
    assert refs(store.list()) == ["love.v3"]
    store.upkeep.rebuild()
    assert refs(store.list()) == ["love.v3"]
    assert refs(store.list(every_version=True)) == ["love.v3", "love.v2", "love.v1"]
    assert store.verify() == []


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_pages_are_the_list_in_pieces(store, sort, reverse):
    store.save_many(
        [(f"n{i % 7}", vector(i % 3, 1 + i % 4, model=(OTHER if i % 5 else vector().model)))
         for i in range(23)]
    )  # fmt: skip
    whole = store.list(sort=sort, reverse=reverse, every_version=True)
    assert len(whole) == 23
    pages, after = [], None
    while page := store.list(sort=sort, reverse=reverse, every_version=True, limit=4, after=after):
        pages += page
        after = page[-1]
    assert pages == whole


@pytest.mark.parametrize("sort", ["created", "norm"])
def test_pages_of_what_holds_a_text_are_the_list_in_pieces(store, sort):
    store.save_many([(f"n{i}", vector(i)) for i in range(12)], note="angry")
    store.save_many([(f"m{i}", vector(i + 20)) for i in range(12)], note="calm")
    everything = store.list(sort=sort)
    for text in ("ANGRY", "calm", "n1", "nothing"):
        expected = [s for s in everything if text.lower() in f"{s.name} {s.note}"]
        pages, after = [], None
        while page := store.list(sort=sort, text=text, limit=5, after=after):
            pages += page
            after = page[-1]
        assert pages == store.list(sort=sort, text=text) == expected


@pytest.mark.parametrize("sort", ["created", "norm"])
def test_pages_of_a_tag_are_the_list_in_pieces(store, sort):
    """Whether those at the start of the list have it, or only others further on."""
    store.save_many([(f"n{i}", vector(i)) for i in range(20)], tags=["warm", "odd"])
    store.save_many([(f"m{i}", vector(i + 20)) for i in range(20)], tags=["calm", "odd"])
    store.save_many([("n3", vector(90)), ("m3", vector(91))], tags=["odd"])
    everything = store.list(sort=sort)
    for tag in ("warm", "calm", "odd", "rare"):
        expected = [s for s in everything if tag in s.tags]
        pages, after = [], None
        while page := store.list(sort=sort, tag=tag, limit=2, after=after):
            pages += page
            after = page[-1]
        assert pages == store.list(sort=sort, tag=tag) == expected


def test_sorting_by_norm_and_layer(store):
    store.save("high", vector(1, 4))
    store.save("low", vector(2, 1))
    assert refs(store.list(sort="layer")) == ["low.v1", "high.v1"]
    norms = [s.norm for s in store.list(sort="norm", reverse=True)]
    assert norms == sorted(norms, reverse=True)
    with pytest.raises(BadOption, match="can't sort by 'colour': choose created"):
        store.list(sort="colour")


def queries_of(action):
    """The statements, with their parameters, that something reads with."""
    seen = []

    def note(*arguments):
        seen.append(arguments[2:4])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return [(text, parameters) for text, parameters in seen if text.startswith("SELECT")]


def count_queries(action):
    return len(queries_of(action))


def test_a_list_asks_as_much_of_ten_vectors_as_of_one(store):
    store.save_many([("n0", vector(0))])
    one = count_queries(store.list)
    store.save_many(
        [
            (
                f"n{i}",
                vector(i),
            )
            for i in range(1, 11)
        ]
    )
    assert count_queries(store.list) == one <= 4


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    ("few", "way"),
    [({"text": "hate"}, "INTEGER PRIMARY KEY (rowid=?)"), ({"name": "love"}, "ix_vector_name")],
)
def test_few_are_looked_up_rather_than_looked_for_along_all(family, sort, few, way):
    asked = queries_of(lambda: family.list(sort=sort, limit=20, **few))
    with contextlib.closing(sqlite3.connect(family.path / "registry.db")) as opened:
        for statement, parameters in asked:
            plan = str(list(opened.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)))
            assert "ix_vector_listing" not in plan
            assert way in plan or "newest" not in statement


def test_lineage_both_ways(family):
    lineage = family.lineage("warm")
    assert lineage.ref == "tiny_1.warm.v1"
    assert [n.ref for n in lineage.parents] == ["tiny_1.love.v1", "tiny_1.anger.v1"]
    assert [n.ref for n in lineage.children] == ["tiny_1.deep.v1"]
    (warm,) = family.lineage("deep").parents
    assert [n.ref for n in warm.branches] == ["tiny_1.love.v1", "tiny_1.anger.v1"]
    assert warm.recipe == "= love.v1 - 0.5 * anger.v1"


def test_a_lineage_that_branches_and_joins_stays_small(store):
    a, b = store.save("a", vector(1)), store.save("b", vector(2))
    for i in range(14):
        a, b = store.save(f"a{i}", a + b), store.save(f"b{i}", a - b)

    def size(nodes):
        return sum(1 + size(node.branches) for node in nodes)

    assert size(store.lineage("a13").parents) < 100
    assert size(store.lineage("a").children) < 100


def test_threads_may_read_a_store_that_is_not_there_yet(store):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: store.list(), range(40))) == [[]] * 40
    assert not store.path.exists()


def test_threads_may_read_a_store_that_is(family):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: (len(family.list()), family.load("love")), range(40)))
    assert found == [(4, vector(1))] * 40


def test_a_commit_while_a_list_is_read_is_in_the_next(family, monkeypatch):
    read, late = family._database.reading, iter([vector(9)])

    @contextlib.contextmanager
    def reading():
        with read() as connection:
            connection.exec_driver_sql("SELECT 1 FROM vector")  # what is read is settled here
            for one in late:
                Store(family.path).save("late", one)
            yield connection

    with contextlib.closing(sqlite3.connect(family.path / "registry.db")) as other:
        other.execute("SELECT 1 FROM vector")  # nobody who leaves is the last
        monkeypatch.setattr(family._database, "reading", reading)
        before = len(family.listing.matching())
        assert len(family.listing.matching()) == before + 1


def test_a_negative_number_of_vectors_is_refused(family):
    with pytest.raises(BadOption, match="-1"):
        family.list(limit=-1)
    assert family.list(limit=0) == []


@pytest.mark.parametrize("frequent", [True, False])
def test_a_page_is_the_same_however_it_is_found(store, monkeypatch, frequent):
    """By reading all texts or in the text index; by looking a tag up or by joining it."""
    store.save_many(
        (f"n{i}", vector(i, recipe=Contrast((f"so calm {i}",)) if i % 3 else Imported("y.npz")))
        for i in range(12)
    )
    for i in range(0, 12, 2):
        store.tag(f"n{i}", add=["even"])
    store.tag("n4", add=["rare"])
    monkeypatch.setattr(text_index, "share", lambda *_: float(frequent))
    for text, sort, reverse, tag in product(
        ("n00", "calm", "calm 1", "zebra"),
        ("created", "kind"),
        (False, True),
        (None, "even", "rare"),
    ):
        order = {"sort": sort, "reverse": reverse, "text": text, "tag": tag}
        pages, last = [], None
        while page := store.list(**order, limit=2, after=last):
            pages += page
            last = page[-1]
        assert pages == store.list(**order)


def test_doses_of_several_layers_are_of_sums_and_unknown_where_no_record_has_them(
    tmp_path, monkeypatch
):
    store, made = Store(tmp_path / "store"), vector(1)
    store.save("summed", made)
    monkeypatch.setattr(type(made), "reaches", lambda vector: {})  # as earlier versions stored
    store.save("earlier", vector(2))
    monkeypatch.undo()
    earlier, summed = store.list(sort="name")
    assert summed.doses == made.doses()
    assert earlier.doses == {2: None, 3: None}
    assert earlier.dose is None
    assert store.load("earlier").dose(1.0) > 0
    record = store.record("earlier")
    assert not record.summed
    assert record.doses() == {f.layer: f.norm / 4 for f in record.layers}
    assert list(store.verify()) == []
