"""What a filter finds while it is typed: word by word, packed or not, the best first."""

from __future__ import annotations

import random

import pytest

from steerlab.core.recipe import Contrast
from steerlab.registry.haystack import Haystack, Names
from tests.registry.samples import vector

ALPHABET = "ab9é\n €\U0001f600"
WORDS = ("ab", "a9", "ba", "9é", "é€", "€", "\U0001f600a", "aba", "b9a", "zz", "a\x00", "a", "")


@pytest.fixture(scope="module")
def texts() -> dict[int, str]:
    """Among many of few letters some that are empty, or far longer than what is compared."""
    chosen = random.Random(5)
    lengths = [*(chosen.randrange(12) for _ in range(3000)), 300_000, 0, 1]
    return {7 * k + 2: "".join(chosen.choices(ALPHABET, k=n)) for k, n in enumerate(lengths)}


@pytest.mark.parametrize("word", WORDS)
def test_a_packed_word_is_found_wherever_it_stands(texts, word):
    rare = {row: text if row % 5 else "x" * len(text) for row, text in texts.items()}
    for held in (texts, rare):
        found = Haystack(held).holding(word)
        assert found is None or found == [row for row, text in held.items() if word in text]
    assert len(word) < 2 or found is not None


def test_a_word_that_most_texts_hold_is_left_to_be_looked_for_one_by_one():
    assert Haystack(dict.fromkeys(range(100), "many many")).holding("many") is None
    assert Haystack({}).holding("many") == []


@pytest.mark.parametrize("word", ["ab", "aa", "a.b", "b9a", "é9", "[^", "zz"])
def test_letters_stand_scattered_over_a_name(texts, word):
    names = {row: text.replace("\n", ".") for row, text in texts.items()}

    def is_over(name: str) -> bool:
        letters = iter(name)
        return all(letter in letters for letter in word)

    assert Names(names).under(word) == [row for row, name in names.items() if is_over(name)]


@pytest.fixture
def shop(store):
    store.save("vector_19", vector(1, recipe=Contrast(("calm seas",), ("storms",))))
    store.save("anger", vector(2, recipe=Contrast(("so cross",), ("calm",))), tags=["vct"])
    store.save("calm", vector(3, recipe=Contrast(("I rest",), ("I run",))), note="Zürich")
    return store


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("calm", ["calm", "anger", "vector_19"]),  # in a name, then elsewhere
        ("vct9", ["vector_19"]),
        ("vct", ["vector_19", "anger"]),  # scattered over a name, then elsewhere
        ("ZÜRICH", ["calm"]),
        ("seas vec", ["vector_19"]),
        ("calm zzz", []),
        ("", ["anger", "calm", "vector_19"]),
    ],
)
def test_what_is_packed_changes_nothing_that_is_found(shop, text, found):
    for _ in range(2):
        assert [s.name for s in shop.summaries(shop.matching(text=text))] == found
        shop.read_texts()
