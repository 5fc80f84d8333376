"""The text index: what is a text and what is a word of it, and that it keeps up with the rows."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from steerlab.core.recipe import Contrast
from steerlab.registry import Store, text_index
from steerlab.registry.sqlite_errors import Damaged
from tests.registry.samples import vector

TEXTS = (
    "ÉCOLE naïve Straße GROẞ",
    "ПРИВЕТ Мир ΣΊΣΥΦΟΣ İstanbul",
    "日本語のテキスト 愛",
    "hi 😀😀 there 👍🏽",
    "a_b_c don't \"quote\" it's [x] (y) {z} ^ - + : * ? \\ / % AND OR NOT NEAR",
    "nul\0between and after",
    "two\nlines\ttab",
    "x",
    "",
)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {f"n{i}": t for i, t in enumerate(TEXTS)}


@pytest.fixture(scope="module")
def written(texts, tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("written") / "store")
    for i, (name, note) in enumerate(texts.items()):
        store.save(name, vector(i, recipe=Contrast(("=",), ("=",))), note=note)
    return store


def pieces():
    chosen = random.Random(3)
    for whole in TEXTS:
        for word in whole.replace("\0", " ").split():
            for _ in range(3):
                start = chosen.randrange(len(word))
                yield word[start : start + chosen.randrange(1, 9)]


@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_a_word_is_found_wherever_it_stands(written, texts, change):
    recipe = str(written.record("n0").recipe).lower()
    for piece in sorted(set(map(change, pieces()))):
        word = piece.lower()
        expected = {n for n, note in texts.items() if word in f"{n}\n{note}\n{recipe}".lower()}
        assert {summary.name for summary in written.list(text=piece)} == expected, piece
        assert {hit.vector.name for hit in written.search(piece).hits} == expected, piece


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("naïve straße", ["n0"]),
        ("école", ["n0"]),
        ("привет", ["n1"]),
        ("本語", ["n2"]),
        ("愛", ["n2"]),
        ("😀", ["n3"]),
        ("😀😀 there", ["n3"]),
        ('don\'t "quote"', ["n4"]),
        ('"', ["n4"]),
        ("AND OR NOT", ["n4"]),
        ("text:x", []),
        ("NEAR(a b)", []),
        ("a*", []),
        ("[x]", ["n4"]),
        ("*", ["n4"]),
        ("after", ["n5"]),
        ("l\0b", ["n5"]),
        ("lines tab", ["n6"]),
        ("zebra \udcff", []),
        ("a \ud800z b", []),
        ("ab " * 5000, ["n6"]),
    ],
)
def test_what_is_typed_is_plain_text(written, typed, found):
    assert sorted(hit.vector.name for hit in written.search(typed).hits) == found
    written.list(text=typed)


def test_a_text_may_span_words(written):
    assert [s.name for s in written.list(text="it's [x] (")] == ["n4"]
    assert [s.name for s in written.list(text="two\nlines")] == ["n6"]
    assert written.list(text="lines two") == []


def raw(store, sql):
    with closing(sqlite3.connect(store.path / "registry.db")) as opened, opened:
        opened.executescript(sql)


def test_rows_that_another_program_changed_are_indexed_with_the_next_write(family):
    raw(family, "UPDATE vector SET note = 'zebra' WHERE name = 'love'; DELETE FROM tag;")
    family.note("anger", "x")
    assert [s.name for s in family.list(text="zebra")] == ["love"]
    assert family.search("feeling").total == 0


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE vector_text SET text = 'zebra' WHERE rowid = 1", "not up to date"),
        ("DELETE FROM vector_text WHERE rowid = 2", "not up to date"),
        ("INSERT INTO vector_text (rowid, text) VALUES (77, 'x')", "not up to date"),
        ("DELETE FROM vector_text_data WHERE id > 10", "damaged"),
        ("DELETE FROM vector_text_config", "can't be read"),
        ("UPDATE vector_text_content SET c0 = x'ff'", "can't be read"),
        ("DROP TRIGGER tag_text_insert", "schema of tag_text_insert"),
        ("DROP TABLE vector_text", "schema of vector_text"),
    ],
)
def test_an_index_that_is_wrong_is_found_and_rebuilt(family, damage, problem):
    raw(family, damage)
    assert problem in " ".join(finding.problem for finding in family.verify())
    assert family.upkeep.rebuild() == 4
    assert family.verify() == []
    assert [s.name for s in family.list(text="hate you", tag="feeling")] == ["love"]


def test_an_index_that_can_not_be_written_stops_a_save(family):
    raw(family, "DELETE FROM vector_text_data")
    with pytest.raises(Damaged, match="steerlab rebuild"):
        family.note("love", "x")
    assert family.record("love").note == "the first"


def test_a_vector_with_many_prompts_is_indexed_once(store):
    pairs = Contrast(tuple(f"so happy {i}" for i in range(300)), tuple("x" * 300))
    store.save("many", vector(1, recipe=pairs))
    with store._database.reading() as connection:
        texts = connection.execute(text("SELECT count(*) FROM vector_text_content")).scalar()
        pending = connection.execute(text("SELECT count(*) FROM text_pending")).scalar()
    assert (texts, pending) == (1, 0)
    assert store.search("happy 299").total == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_word_is_found_through_the_index_and_without_it(written, monkeypatch, share):
    """Trigrams leave texts that do not contain the word, and a frequent word needs no index."""
    monkeypatch.setattr(text_index, "share", lambda *_: share)
    assert [s.name for s in written.list(text="école naïve")] == ["n0"]
    assert written.list(text="istanbulistanbul") == []
    assert written.list(text='"quote" it\'s "quote"') == []


def test_words_are_bounded():
    assert text_index.words_of("B a  B") == ["b", "a"]
    assert len(text_index.words_of(" ".join(map(str, range(500))))) == 100
