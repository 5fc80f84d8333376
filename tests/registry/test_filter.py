"""What a filter finds while it is typed, the best first."""

from __future__ import annotations

import pytest

from steerlab.core.recipe import Contrast
from steerlab.registry import listing, text_index
from tests.registry.samples import OTHER, vector


@pytest.fixture
def shop(store):
    store.save("vector_19", vector(1, recipe=Contrast(("calm seas",), ("storms",))))
    store.save("anger", vector(2, recipe=Contrast(("so cross",), ("calm",))), tags=["vct"])
    store.save("calm", vector(3, recipe=Contrast(("I rest",), ("I run",))), note="Zürich")
    return store


def names(store, text, **order):
    return [s.name for s in store.listing.summaries(store.listing.matching(text, **order))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("calm", ["calm", "anger", "vector_19"]),  # in a name, then elsewhere
        ("vct9", ["vector_19"]),
        ("VCT9", ["vector_19"]),
        ("vct", ["vector_19", "anger"]),  # scattered over a name, then elsewhere
        ("v9 seas", ["vector_19"]),
        ("seas v9", ["vector_19"]),
        ("19v", []),  # out of order
        ("ZÜRICH", ["calm"]),
        ("seas vec", ["vector_19"]),
        ("calm zzz", []),
        ("9", ["vector_19"]),
        ("_1", ["vector_19"]),  # not any letter
        ("v%9", []),
        ("c_m", []),
        ("a", ["anger", "calm", "vector_19"]),
        ("", ["anger", "calm", "vector_19"]),
        (" ", ["anger", "calm", "vector_19"]),
    ],
)
@pytest.mark.parametrize("frequent", [False, True])
def test_the_best_come_first(shop, text, found, frequent, monkeypatch):
    """Texts that lack a word are asked for where most contain it; what is found is the same."""
    monkeypatch.setattr(text_index, "share", lambda *_: float(frequent))
    assert names(shop, text) == found


def test_words_that_every_name_contains_need_no_text(shop, monkeypatch):
    monkeypatch.setattr(text_index, "holding", None)
    shop.rename("vector_19", "candle")
    assert names(shop, "a") == ["anger", "calm", "candle"]
    assert names(shop, "a", reverse=True) == ["anger", "candle", "calm"]


def test_among_equals_the_order_of_the_list_stays(shop):
    assert names(shop, "", reverse=True) == ["vector_19", "calm", "anger"]
    assert names(shop, "calm", reverse=True) == ["calm", "vector_19", "anger"]
    assert names(shop, "", sort="created") == ["vector_19", "anger", "calm"]


def test_only_newest_versions_are_found(shop):
    shop.save("calm", vector(4, recipe=Contrast(("now",), ("then",))))
    assert names(shop, "zürich") == []
    assert names(shop, "calm") == ["calm", "anger", "vector_19"]
    shop.save("calm", vector(4, model=OTHER))
    assert names(shop, "", sort="model") == ["calm", "vector_19", "anger", "calm"]


def test_where_many_hold_the_words_letters_are_not_looked_for(shop, monkeypatch):
    monkeypatch.setattr(listing, "ENOUGH", 1)
    assert names(shop, "vct") == ["anger"]
    assert names(shop, "vct9") == ["vector_19"]


@pytest.mark.parametrize(
    "text", ["x" * 60_000, "a" * 81, " ".join(map(str, range(3000))), "%_/" * 9, "é" * 3]
)
def test_a_text_that_no_name_could_be_finds_nothing(shop, text):
    assert names(shop, text) == []


def test_a_filter_follows_the_store(shop):
    assert names(shop, "storm") == ["vector_19"]
    shop.note("calm", "before the storm")
    shop.rename("anger", "storming")
    assert names(shop, "storm") == ["storming", "calm", "vector_19"]
    shop.tag("calm", add=["vct"])
    shop.tag("storming", remove=["vct"])
    assert names(shop, "vct") == ["vector_19", "calm"]
    shop.remove("vector_19")
    assert names(shop, "storm") == ["storming", "calm"]
    shop.upkeep.rebuild()
    assert names(shop, "storm") == ["storming", "calm"]
    assert shop.verify() == []
