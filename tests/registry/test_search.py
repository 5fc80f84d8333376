"""Full-text search: what is found, in which order, and the place that says so."""

from __future__ import annotations

import pytest

from steerlab.core.prompts import Turns
from steerlab.core.recipe import Contrast
from steerlab.errors import BadOption
from steerlab.registry.search import LONGEST, snippet_of
from tests.registry.samples import vector


def prompt(text):
    return Contrast((text,), ("nothing",))


@pytest.fixture
def shop(store):
    store.save("angry_customer", vector(1, recipe=prompt("a")))
    store.save("calm", vector(2, recipe=prompt("b")), tags=["customer"], note="not angry")
    store.save("clerk", vector(3, recipe=prompt("The Angry  customer shouts")))
    store.save("other", vector(4, recipe=prompt("angry words, and a customer")))
    store.save("dog", vector(5, recipe=prompt("angrycustomers")))
    return store


def names(found):
    return [hit.vector.name for hit in found.hits]


def test_the_best_come_first(shop):
    found = shop.search("angry customer")
    assert found.total == 5
    assert names(found) == ["angry_customer", "calm", "clerk", "other", "dog"]
    assert [hit.place for hit in found.hits[2:]] == ["prompt"] * 3


def test_a_hit_shows_the_place(shop):
    hit = next(h for h in shop.search("CUSTOMER angry").hits if h.vector.name == "clerk")
    assert (hit.place, hit.snippet) == ("prompt", "The Angry customer shouts")
    assert [hit.snippet[a:b] for a, b in hit.spans] == ["Angry", "customer"]


def test_all_turns_are_searched(shop):
    up, down = (Turns("Who is there?", f"Be {how}", f"A {how} reply") for how in ("merry", "dull"))
    shop.save("cheer", vector(6, recipe=Contrast.of([up], [down], chat=True)))
    for words in ("be merry", "dull reply", "there dull merry"):
        assert names(shop.search(words)) == ["cheer"]
    assert shop.search("Be dull").hits[0].snippet == "Be dull"
    assert shop.verify() == []


def test_all_words_have_to_be_there(shop):
    assert names(shop.search("shouts customer")) == ["clerk"]
    assert shop.search("angry zebra") == ([], 0)
    assert shop.search("agrcst").total == 0  # scattered letters are for filters


def test_filters_combine(shop):
    shop.save("clerk", vector(9, 5, recipe=prompt("quiet")))
    assert names(shop.search("angry", tag="customer", kind="contrast")) == ["calm"]
    assert "clerk" not in names(shop.search("shouts"))
    assert names(shop.search("shouts", every_version=True, layer=2)) == ["clerk"]


def test_a_limit_keeps_the_total(shop):
    found = shop.search("angry", limit=2)
    assert (len(found.hits), found.total) == (2, 5)
    assert (shop.search("angry", limit=0).hits, found.total) == ([], 5)
    with pytest.raises(BadOption, match="the best -1 vectors"):
        shop.search("angry", limit=-1)


def test_a_search_without_words(shop):
    with pytest.raises(BadOption, match="at least one word"):
        shop.search("  ")


@pytest.mark.parametrize("before", [0, 10, 50, 300])
@pytest.mark.parametrize("after", [0, 10, 300])
def test_a_snippet_is_short_and_holds_the_word(before, after):
    text, spans = snippet_of("x " * (before // 2) + "needle" + " y" * (after // 2), ["needle"])
    assert len(text) <= LONGEST
    assert [text[a:b] for a, b in spans] == ["needle"]
