"""What was tagged, noted, renamed or removed is undone, exactly, or refused with the reason."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import select

from steerlab.errors import NotFound, StoreError
from steerlab.registry import Store, undo_log
from steerlab.registry.tables import REMOVAL, RUN_OPERAND
from tests.registry.operations import RUN
from tests.registry.operations import family as grown
from tests.registry.samples import OTHER, vector
from tests.registry.survival import state

NOTHING = timedelta(0)

CHANGES = {
    "tag": lambda s: s.tag("love.v1", add=["x"], remove=["feeling"]),
    "note": lambda s: s.note("n1", "one of a file of three"),
    "rename": lambda s: s.rename("love", "amour"),
    "rename in a shared file": lambda s: s.rename("n1", "m1"),
    "remove": lambda s: s.remove("alone"),
    "remove from a shared file": lambda s: s.remove("n1"),
    "remove a parent": lambda s: s.remove("love.v1", force=True),
    "remove several": lambda s: s.remove(["deep", "warm", "n0", "love"]),
    "remove a version in the middle": lambda s: s.remove("love.v1", force=True),
}


@pytest.fixture
def lived(tmp_path):
    return grown(tmp_path)


def linked(store):
    """Which vectors runs and compositions point at."""
    with store._database.reading() as connection:
        runs = connection.execute(select(RUN_OPERAND.c.ref, RUN_OPERAND.c.digest)).all()
    return runs, [store.lineage(name).parents for name in ("warm", "deep")]


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_undone_to_the_last_label(lived, what):
    before, joined = state(lived), linked(lived)
    CHANGES[what](lived)
    assert state(lived) != before
    change = lived.changes.undo()
    assert (change.what, change.undone) == (what.split()[0], True)
    assert state(lived) == before
    assert linked(lived) == joined
    assert lived.verify() == []
    for file in lived.path.glob("registry.db*"):
        file.unlink()
    again = state(Store(lived.path))
    assert {k: v for k, v in again.items() if "." in k} == {
        k: v for k, v in before.items() if "." in k
    }


def test_changes_are_undone_from_the_newest_on_by_whichever_process(lived):
    before = state(lived)
    for change in ("tag", "note", "rename", "remove"):
        CHANGES[change](Store(lived.path))
    told = [change.text for change in lived.changes.list()]
    assert told == [
        "remove other.alone.v1",
        "rename tiny_1.love to amour",
        "note tiny_1.n1.v1",
        "tag tiny_1.love.v1 +x -feeling",
    ]
    undone = [Store(lived.path).changes.undo().text for _ in told]
    assert undone == told
    assert state(lived) == before
    with pytest.raises(NotFound, match=r"^there is nothing to undo$"):
        lived.changes.undo()


def test_one_change_is_undone_by_its_number_and_once(family):
    family.tag("love", add=["x"])
    family.note("anger", "loud")
    assert family.changes.undo(1).text == "tag tiny_1.love.v1 +x"
    assert (family.record("love").tags, family.record("anger").note) == (("feeling",), "loud")
    with pytest.raises(StoreError, match=r"change 1 \(tag tiny_1\.love\.v1 \+x\) was undone"):
        family.changes.undo(1)
    with pytest.raises(NotFound, match="there is no change 7"):
        family.changes.undo(7)
    assert [c.undone for c in family.changes.list()] == [False, True]


def test_other_labels_than_the_change_changed_stay_as_they_are_now(family):
    family.tag("love", add=["x"])
    family.note("love", "later")
    family.rename("love", "amour")
    family.changes.undo(1)
    record = family.record("amour")
    assert (record.tags, record.note) == (("feeling",), "later")


def test_what_changed_nothing_is_not_logged(family):
    family.tag("love", add=["feeling"])
    family.note("love", "the first")
    assert family.changes.list() == []


REFUSED = {
    "tagged again": (
        lambda s: (s.tag("love", add=["x"]), s.tag("love", add=["y"])),
        "the tags of love.v1 changed again since",
    ),
    "removed since": (
        lambda s: (s.note("deep", "x"), s.remove("deep")),
        "deep.v1 was removed since: undo that first",
    ),
    "a new version of the new name": (
        lambda s: (s.rename("love", "amour"), s.save("amour", vector(5))),
        "amour.v2 came since: `steerlab rename amour love` renames all",
    ),
    "the old name is taken": (
        lambda s: (s.rename("love", "amour"), s.save("love", vector(5))),
        "tiny_1 already has a vector called love",
    ),
    "gc": (
        lambda s: (s.remove("deep"), s.upkeep.gc(dry_run=False, grace=NOTHING)),
        "gc deleted the payload of deep.v1: only a backup or an export has it",
    ),
    "the number is another's": (
        lambda s: (s.save("x", vector(5)), s.remove("x"), s.rename("deep", "x")),
        "another vector is called x.v1 now: rename it first",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_undone_exactly_is_refused(family, case):
    change, why = REFUSED[case]
    change(family)
    before = state(family)
    with pytest.raises(StoreError, match=rf"can't undo change 1 \(.*\): {re.escape(why)}"):
        family.changes.undo(1)
    assert state(family) == before
    assert family.verify() == []


def test_one_that_was_imported_again_is_not_brought_back_twice(family, tmp_path):
    file = family.transfer.export("deep", tmp_path / "deep.safetensors")
    family.remove("deep")
    family.transfer.import_(file)
    with pytest.raises(StoreError, match=r"deep\.v1 is in the store again"):
        family.changes.undo()
    (left,) = family.upkeep.gc(grace=NOTHING)  # the file that the removed one left
    assert (left.holds, left.removed) == ((), ())
    family.upkeep.gc(dry_run=False, grace=NOTHING)
    assert family.verify() == []


def test_several_come_back_together_or_not_at_all(lived):
    lived.remove(["n0", "deep"])
    path = next(p for p in lived.upkeep.gc(grace=NOTHING) if p.removed)
    (lived.path / path.path).unlink()
    with pytest.raises(StoreError, match="gc deleted the payload of deep"):
        lived.changes.undo()
    assert "n0" not in lived.names()


def test_removed_vectors_wait_for_gc_and_its_hour_counts_from_the_removal(family):
    file = next(family.path.glob(f"payloads/*/{family.record('deep').digest}*"))
    os.utime(file, (1, 1))
    family.remove("deep")
    assert family.upkeep.gc() == []
    garbage = family.upkeep.gc(grace=NOTHING)
    assert [(g.holds, g.removed) for g in garbage] == [((), ("tiny_1.deep.v1",)), ((), ())]
    family.upkeep.rebuild()
    assert "deep" not in family.names()
    for left in family.path.glob("registry.db*"):
        left.unlink()
    assert "deep" not in Store(family.path).names()


def test_the_mark_of_a_removal_stays_while_its_payload_does(family):
    """Without an old label file, a rebuild would bring a vector of a young payload back."""
    story = family.record("deep").story
    family.remove("deep")
    os.utime(family.path / f"labels/{story[:2]}/{story}.json", (1, 1))
    assert family.upkeep.gc(dry_run=False) == []
    for left in family.path.glob("registry.db*"):
        left.unlink()
    assert "deep" not in Store(family.path).names()


def test_a_rename_undone_leaves_no_removals_to_the_other_name(family):
    family.save("love", vector(5))
    family.remove("love.v2")
    with family._database.reading() as connection:
        before = connection.execute(select(REMOVAL)).all()
    family.rename("love", "amour")
    family.changes.undo()
    with family._database.reading() as connection:
        assert connection.execute(select(REMOVAL)).all() == before


def test_the_log_survives_a_rebuild_and_a_backup(family, tmp_path):
    family.tag("love", add=["x"])
    family.remove("deep")
    family.upkeep.rebuild()
    other = Store(tmp_path / "other")
    other.transfer.restore(family.transfer.backup(tmp_path / "all.tar").path)
    for store in (family, other):
        store.changes.undo()
        store.changes.undo()
        assert store.record("love").tags == ("feeling",)
        assert store.load("deep") == 2 * store.load("warm")


def test_the_log_keeps_the_newest_and_no_number_is_given_again(family, monkeypatch):
    monkeypatch.setattr(undo_log, "KEPT", 3)
    for number in range(5):
        family.note("love", f"{number}")
    assert [c.number for c in family.changes.list()] == [5, 4, 3]
    family.changes.undo()
    family.note("love", "x")
    assert [c.number for c in family.changes.list(2)] == [6, 5]


@pytest.mark.parametrize(
    "steps",
    [
        {},
        [],
        [{}],
        [
            {
                "story": "s",
                "was": {"name": "x", "version": 1},
                "now": None,
                "path": "../x",
                "key": "",
            }
        ],
        [{"story": "s", "was": {"name": "x", "version": -1}, "now": None, "path": "", "key": ""}],
    ],
)
def test_a_forged_log_is_damage_not_a_crash(family, steps):
    family.remove("deep")
    with closing(sqlite3.connect(family.path / "registry.db")) as raw, raw:
        raw.execute("UPDATE undo SET steps = ?", (json.dumps(steps),))
    with pytest.raises(StoreError, match="change 1 of the registry's log can't be read"):
        family.changes.undo()


def test_vectors_of_two_models_are_removed_and_brought_back_together(family):
    family.save("love", vector(1, model=OTHER))
    family.remove(["tiny_1.love", "other.love"], force=True)
    assert "love" not in family.names()
    family.runs.save(RUN)
    family.changes.undo()
    assert family.load("love", OTHER) == vector(1, model=OTHER)
    assert family.verify() == []
