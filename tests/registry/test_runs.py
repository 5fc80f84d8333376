"""Runs: the texts that were written are kept, found by vector, rated, and survive a rebuild."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.core.run import Generation, Run
from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption, NotFound, StoreError
from steerlab.registry import Store
from tests.registry.samples import TINY, restored, vector

TEXTS = (Generation(0.0, 0.0, " a plain text", "stop", 4), Generation(2.0, 0.4, " [b]warm[/b]\x1b"))


WARM = Sampling(temperature=0.7, top_k=5, chat=True)


def run(expression: str = "love - 0.5*anger", **more) -> Run:
    return Run(expression, "I think", TINY.source, TEXTS, **more)


def test_a_run_takes_the_place_of_another_while_that_is_there(family):
    first = family.runs.save(run())
    later = family.runs.replace(first, run("love"))
    assert (later.id, later.created) == (first.id, first.created)
    assert family.runs.list() == [later]
    family.runs.remove(first.id)
    other = family.runs.save(run())  # may get the number that is free again
    last = family.runs.replace(later, run("anger"))
    assert family.runs.list() == [last, other]


def test_a_run_comes_back_as_it_was(family):
    made = run(layers="2", positions="generated", seed=7, sampling=WARM)
    kept = family.runs.save(made)
    assert kept == made
    assert kept.id is not None
    assert family.runs.get(kept.id) == kept
    assert list(family.runs.list()) == [kept]


@settings(max_examples=20)
@given(prompt=st.text(max_size=50), written=st.text(max_size=50), expression=st.text(max_size=20))
def test_any_text_is_kept_or_refused_in_words(tmp_path_factory, prompt, written, expression):
    store = Store(tmp_path_factory.mktemp("runs") / "store")
    made = Run(expression, prompt, "m", (Generation(1.0, None, written),))
    assert store.runs.get(store.runs.save(made).id) == made


def test_lone_surrogates_are_refused_in_one_line(family):
    with pytest.raises(StoreError, match="not Unicode"):
        family.runs.save(replace(run(), prompt="\ud800"))
    assert not family.runs.list()


def test_runs_are_found_by_every_vector_they_name_newest_first(family):
    first, second = family.runs.save(run()), family.runs.save(run("love"))
    assert list(family.runs.list("love")) == [second, first]
    assert list(family.runs.list("tiny_1.anger.v1")) == [first]
    assert list(family.runs.list("warm")) == []
    family.save("love", vector(42))  # the next version has none yet
    assert list(family.runs.list("love")) == []
    assert list(family.runs.list("love.v1")) == [second, first]
    with pytest.raises(NotFound):
        family.runs.list("nobody")


def test_runs_are_paged(family):
    kept = [family.runs.save(run(seed=seed)) for seed in range(5)]
    page = family.runs.list(limit=2)
    assert list(page) == kept[:2:-1]
    assert list(family.runs.list(limit=2, before=page[-1])) == kept[2:0:-1]


@pytest.mark.parametrize("expression", ["", "nobody + love", "love +", "2 * (", "\x00"])
def test_what_names_no_vector_is_kept_all_the_same(family, expression):
    assert family.runs.get(family.runs.save(run(expression)).id).expression == expression


def test_texts_are_rated_and_may_have_settings_of_their_own(family):
    own = Generation(2.0, 0.2, " fine", expression="warm", layers="1")
    kept = family.runs.save(replace(run("love"), generations=(*TEXTS, own)))
    last = len(kept.generations) - 1
    rated = family.runs.rate_text(kept.id, last, 4)
    assert rated.generations[last] == replace(own, rating=4)
    assert family.runs.get(kept.id) == rated
    assert [run.id for run in family.runs.list("warm")] == [kept.id]  # a column names it
    assert family.runs.rate_text(kept.id, last, None).generations[last].rating is None
    for index, rating in ((last + 1, 1), (-1, 1), (0, 0), (0, 6)):
        with pytest.raises(BadOption):
            family.runs.rate_text(kept.id, index, rating)


def test_the_best_text_is_said_and_taken_back(family):
    kept = family.runs.save(run())
    assert family.runs.rate(kept.id, 1).best == 1
    assert family.runs.get(kept.id).best == 1
    assert family.runs.rate(kept.id, None).best is None
    with pytest.raises(BadOption, match="texts 0 to 1"):
        family.runs.rate(kept.id, 2)
    with pytest.raises(NotFound, match="steerlab runs"):
        family.runs.rate(999, 0)


def test_a_run_is_forgotten(family):
    kept = family.runs.save(run())
    family.runs.remove(kept.id)
    assert not family.runs.list()
    with pytest.raises(NotFound):
        family.runs.remove(kept.id)
    with closing(sqlite3.connect(family.path / "registry.db")) as raw:
        for table in ("generation", "run_operand"):
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_removed_vector_leaves_its_runs(family):
    kept = family.runs.save(run("sad"))
    family.save("sad", vector(8))
    again = family.runs.save(run("sad"))
    family.remove("sad")
    assert {r.id for r in family.runs.list()} == {kept.id, again.id}


def test_a_renamed_vector_keeps_its_runs(family):
    kept = family.runs.save(run())
    family.rename("love", "affection")
    assert list(family.runs.list("affection")) == [kept]


def test_a_rebuild_keeps_runs_and_links_them_again(family):
    kept = family.runs.save(run())
    family.upkeep.rebuild()
    assert list(family.runs.list("love")) == [kept]
    family.runs.save(run())
    assert len(family.runs.list("love")) == 2


def test_a_damaged_registry_gives_back_what_can_be_read_of_runs(family):
    kept = family.runs.save(run())
    file = family.path / "registry.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        (page,) = raw.execute(
            "SELECT rootpage FROM sqlite_master WHERE name='direction'"
        ).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 64] = b"\xff" * 64
    file.write_bytes(data)
    assert Store(family.path).upkeep.rebuild() == 4
    assert list(Store(family.path).runs.list("love")) == [kept]


def test_a_lost_registry_loses_its_runs_but_no_vector(family):
    family.runs.save(run())
    for file in family.path.glob("registry.db*"):
        file.unlink()
    assert not Store(family.path).runs.list()
    assert len(Store(family.path).list()) == 4


def test_a_backup_has_the_runs(family, tmp_path):
    kept = family.runs.save(run())
    assert list(restored(family, tmp_path).runs.list("love")) == [kept]


def test_an_equal_vector_has_the_runs_of_a_removed_one(family, tmp_path):
    """Saved again, imported again, or under another name; before a rebuild and after it."""
    number = family.runs.save(run()).id
    family.transfer.export("love", tmp_path / "love.safetensors")
    family.save("adore", vector(1))
    for again in (
        lambda: None,
        lambda: family.upkeep.rebuild(),
        lambda: family.remove("love"),
        lambda: family.transfer.import_(tmp_path / "love.safetensors"),
    ):
        again()
        names = ["adore", *(["love"] if "love" in family else [])]
        assert [[r.id for r in family.runs.list(name)] for name in names] == [[number]] * len(names)
        assert number in {event.number for event in family.log("adore")}
