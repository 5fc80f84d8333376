"""Rows that no program wrote: no crash, no other vector; verify names them, rebuild mends.

Damage to the file, or a hand in the database, can leave what the schema forbids.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from steerlab.errors import SteerlabError, StoreError
from steerlab.registry import Store, rows
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.upkeep.verify import Damage
from tests.registry.samples import vector
from tests.registry.test_runs import run
from tests.registry.test_sweeps import CELLS, PLAN, calibrated, evaluated

NO_TEXT = "CAST(x'ff' AS TEXT)"


def other(column: str) -> str:
    """SQL that gives a hexadecimal column another first digit."""
    digit = f"CASE substr({column}, 1, 1) WHEN 'a' THEN 'b' ELSE 'a' END"
    return f"{column} = ({digit}) || substr({column}, 2)"


CHANGES = {
    "a name that is not UTF-8": f"UPDATE vector SET name = {NO_TEXT} WHERE name = 'anger'",
    "a note that is not UTF-8": f"UPDATE vector SET note = {NO_TEXT} WHERE name = 'anger'",
    "a tag that is not UTF-8": f"UPDATE tag SET tag = {NO_TEXT}",
    "a name of bytes": "UPDATE vector SET name = x'00ff' WHERE name = 'anger'",
    "a recipe of bytes": "UPDATE vector SET summary = x'00ff' WHERE name = 'anger'",
    "a model's name of bytes": "UPDATE model SET name = x'00ff'",
    "another model's key": "UPDATE model SET identity = 'another'",
    "a model's shape": "UPDATE model SET d_model = 9",
    "a norm of text": "UPDATE vector SET norm = 'big' WHERE name = 'anger'",
    "a norm below zero": "UPDATE vector SET norm = -1.0 WHERE name = 'anger'",
    "another norm": "UPDATE direction SET norm = 9.0",
    "a layer of text": "UPDATE direction SET layer = 'abc' WHERE layer = 3",
    "a version of text": "UPDATE vector SET version = 'x' WHERE name = 'anger'",
    "another version": "UPDATE vector SET version = 7 WHERE name = 'anger'",
    "another name": "UPDATE vector SET name = 'angel' WHERE name = 'anger'",
    "a kind that never was": "UPDATE vector SET kind = 'guess' WHERE name = 'anger'",
    "another kind": "UPDATE vector SET kind = 'imported' WHERE name = 'anger'",
    "a scope that never was": "UPDATE vector SET scope = 'all' WHERE name = 'anger'",
    "a story that is no JSON": "UPDATE vector SET story_text = '{' WHERE name = 'anger'",
    "a story that is a number": "UPDATE vector SET story_text = '-1' WHERE name = 'anger'",
    "a story that is empty": "UPDATE vector SET story_text = '{}' WHERE name = 'anger'",
    "a story of bytes": "UPDATE vector SET story_text = x'00ff' WHERE name = 'anger'",
    "a story that is not UTF-8": f"UPDATE vector SET story_text = {NO_TEXT} WHERE name = 'anger'",
    "a story too deep": "UPDATE vector SET story_text = replace(hex(zeroblob(9999)), '0', '[')"
    " WHERE name = 'anger'",
    "a story of another vector": "UPDATE vector SET story_text ="
    " (SELECT story_text FROM vector WHERE name = 'love') WHERE name = 'anger'",
    "another checksum of a story": f"UPDATE vector SET {other('story')} WHERE name = 'anger'",
    "another checksum of labels": f"UPDATE vector SET {other('seal')} WHERE name = 'anger'",
    "a truth value of text": "UPDATE vector SET story_text ="
    """ replace(story_text, '"chat":true', '"chat":"no"') WHERE name = 'anger'""",
    "a layer's norm of text": "UPDATE vector SET story_text ="
    """ replace(story_text, '"norm":', '"norm":"x","was":') WHERE name = 'anger'""",
    "a number without end": "UPDATE vector SET story_text ="
    """ replace(story_text, '"norm":', '"norm":9e999,"was":') WHERE name = 'anger'""",
    "a note of bytes": "UPDATE vector SET note = x'00ff' WHERE name = 'anger'",
    "a tag of bytes": "UPDATE tag SET tag = x'00ff'",
    "another prompt": "UPDATE vector SET story_text ="
    " replace(story_text, 'hate', 'loathe') WHERE name = 'love'",
    "an expression that is none": "UPDATE vector SET story_text ="
    " replace(story_text, '_1 - 0.5', 'love -') WHERE name = 'warm'",
    "an expression of two lines": "UPDATE vector SET summary = 'a'||char(10)||'b'"
    " WHERE name = 'warm'",
    "a norm without end": "UPDATE direction SET residual_norm = 9e999 WHERE layer = 3",
    "another expression": "UPDATE vector SET story_text ="
    " replace(story_text, '_1 - 0.5', '_1 + 0.5') WHERE name = 'warm'",
    "another text of a recipe": "UPDATE vector SET summary = '= love' WHERE name = 'warm'",
    "a path elsewhere": "UPDATE vector SET path = '../../etc/passwd' WHERE name = 'anger'",
    "another digest": f"UPDATE vector SET {other('digest')} WHERE name = 'anger'",
    "a digest that is none": "UPDATE vector SET digest = 'abc' WHERE name = 'anger'",
    "an operand's digest that is none": "UPDATE operand SET digest = '1e+300 or so'"
    " WHERE ordinal = 0",
    "another operand": f"UPDATE operand SET {other('digest')}",
    "another parent": "UPDATE operand SET parent_id = child_id + 1 WHERE ordinal = 0",
    "no parent": "UPDATE operand SET parent_id = NULL",
    "an owner that is gone": "UPDATE tag SET vector_id = 999",
    "a moment that never was": "UPDATE vector SET created = 'yesterday' WHERE name = 'anger'",
    "a run that is not UTF-8": f"UPDATE generation SET text = {NO_TEXT}",
    "a run of bytes": "UPDATE generation SET text = x'00ff'",
    "a run of another kind": "UPDATE run SET positions = 'nowhere'",
    "a run of an operation that never was": "UPDATE run SET operation = 'adD'",
    "a text of an operation that never was": "UPDATE generation SET operation = 'bdd'",
    "an operation's parameters that are a number": "UPDATE generation SET parameters = '7'",
    "a temperature below zero": "UPDATE run SET temperature = -1.0",
}


def tamper(store: Store, change: str) -> None:
    with closing(sqlite3.connect(store.path / "registry.db")) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        assert raw.execute(change).rowcount > 0


def try_to_read(store: Store) -> None:
    """Everything that looks into rows, or changes them, gives what is there or says why not."""
    for look in (
        store.list,
        store.names,
        store.models,
        store.runs.list,
        lambda: store.list(sort="layer", text="love"),
        lambda: store.search("love"),
        lambda: store.log("anger"),
        lambda: store.lineage("warm"),
        lambda: store.record("anger"),
        lambda: store.load("love"),
        lambda: store.load("anger"),
        lambda: store.load("warm"),
        lambda: store.upkeep.usage(),
        lambda: store.tag("anger", add=["new"]),
    ):
        with contextlib.suppress(SteerlabError):
            look()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_noticed_reaches_no_payload_and_is_mended(family, change):
    family.runs.save(run())
    before = {s.ref: family.record(s.ref) for s in family.list()}
    tamper(family, change)
    for ref, number in (("love", 1), ("anger", 2)):
        with contextlib.suppress(SteerlabError):
            assert family.load(ref) == vector(number)
    with contextlib.suppress(Damaged):
        findings = family.verify()
        assert findings
        assert {f.damage for f in findings} <= {Damage.REGISTRY, Damage.ROW, Damage.MOVED}
    assert "steerlab rebuild" in {problem.fix for problem in family.upkeep.diagnose()}
    try_to_read(family)
    assert family.upkeep.rebuild() == 4
    after = {s.ref: family.record(s.ref) for s in family.list()}
    assert {ref: replace(record, tags=()) for ref, record in after.items()} == {
        ref: replace(record, tags=()) for ref, record in before.items()
    }
    assert after["anger.v1"].tags in ((), ("new",))
    assert family.verify() == []
    assert (family.load("love"), family.load("anger")) == (vector(1), vector(2))


@pytest.mark.parametrize("version", ["²", "٣", ""])
def test_a_schema_of_no_version_is_damaged(family, version):
    tamper(family, f"UPDATE alembic_version SET version_num = '{version}'")
    with pytest.raises(Damaged):
        family.list()
    assert family.upkeep.rebuild() == 4


@pytest.mark.parametrize(
    "what",
    [
        "a version of text",
        "a norm of text",
        "a layer of text",
        "a name of bytes",
        "a recipe of bytes",
        "a model's name of bytes",
        "a tag of bytes",
    ],
)
def test_no_list_has_text_where_numbers_belong_or_bytes_where_text_does(family, what):
    tamper(family, CHANGES[what])
    with pytest.raises(Damaged):
        family.list(every_version=True)


@pytest.mark.parametrize("files", ["with", "without"])
@pytest.mark.parametrize("damage", ["'{\"curve\":[[0.1'", "''", "x'00ff'"])
def test_a_measurement_that_is_no_json_is_damage_and_comes_back_from_its_file(
    family, damage, files
):
    first, second = calibrated(family), calibrated(family)
    evaluated(family)
    tamper(family, f"UPDATE calibration SET data = {damage} WHERE id = {second.id}")
    with pytest.raises(Damaged):
        family.results.calibrations()
    assert family.verify()[0].damage is Damage.REGISTRY
    if files == "without":
        shutil.rmtree(family.path / "results")
    family.upkeep.rebuild()
    expected = [second, first] if files == "with" else [first]
    assert family.results.calibrations() == expected
    assert len(family.results.evaluations("love")) == 1
    assert family.verify() == []


@pytest.mark.parametrize("files", ["with", "without"])
def test_a_measurement_without_end_is_damage_and_comes_back_from_its_file(family, files):
    first, second = calibrated(family), calibrated(family)
    tamper(family, f"UPDATE calibration SET dose = 9e999 WHERE id = {second.id}")
    assert family.verify()[0].damage is Damage.REGISTRY
    if files == "without":
        shutil.rmtree(family.path / "results")
    family.upkeep.rebuild()
    assert family.results.calibrations() == ([second, first] if files == "with" else [first])
    assert family.verify() == []


def test_a_number_that_became_text_does_not_keep_a_rebuild_from_its_neighbours(family):
    family.runs.save(run())
    family.runs.save(run())
    tamper(family, "UPDATE generation SET coefficient = '' WHERE run_id = 1 AND ordinal = 0")
    assert family.upkeep.rebuild() == 4
    assert family.verify() == []
    assert len(list(family.runs.list())) == 2


def test_a_sweep_that_lost_a_setting_is_dropped_as_its_cells_count_by_place(family):
    family.sweeps.add(family.sweeps.begin(PLAN), CELLS)
    other = family.sweeps.begin(replace(PLAN, plan_digest="c" * 64))
    family.sweeps.add(other, CELLS)
    tamper(family, "UPDATE sweep_setting SET operation = 'adD' WHERE sweep_id = 1 AND ordinal = 1")
    assert "sweep_setting" in str(family.verify()[0])
    family.upkeep.rebuild()
    [found] = family.sweeps.list()
    assert (found.id, found.cells or family.sweeps.get(found.id).cells) == (other.id, tuple(CELLS))
    assert family.verify() == []


def test_a_run_that_lost_a_text_has_no_star_that_would_mean_another(family):
    family.runs.save(run())
    family.runs.save(run())
    for number in (1, 2):
        family.runs.rate(number, 1)
    tamper(family, "UPDATE generation SET operation = 'adD' WHERE run_id = 1 AND ordinal = 0")
    family.upkeep.rebuild()
    by_number = {one.id: one for one in family.runs.list()}
    assert {number: one.best for number, one in by_number.items()} == {1: None, 2: 1}
    assert len(by_number[1].generations) == len(by_number[2].generations) - 1
    assert family.verify() == []


def test_a_schema_with_a_damaged_word_is_damage(family):
    with closing(sqlite3.connect(family.path / "registry.db")) as raw, raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'typeof(version)', 'tqpeof(version)')"
        )
    with pytest.raises(Damaged):
        family.save("more", vector(9))
    assert family.upkeep.rebuild() == 4


def test_a_row_that_cannot_be_read_keeps_no_other_from_being_verified(family):
    [file] = {family.path / family._stored("love", None).path}
    file.write_bytes(file.read_bytes()[:-1])
    tamper(family, "UPDATE vector SET note = x'00ff' WHERE name = 'anger'")
    told = []
    found = family.verify(on_finding=told.append)
    assert told == found
    assert {"tiny_1.love.v1", "tiny_1.anger.v1"} <= {finding.ref for finding in found}


def test_a_disk_that_fails_while_rows_are_read_is_no_damage_to_them(family, monkeypatch):
    tamper(family, "UPDATE model SET d_model = 9")  # something is found before
    failing = sqlite3.OperationalError("disk I/O error")

    def fail(*arguments):
        raise OperationalError("SELECT", {}, failing)

    monkeypatch.setattr(rows, "_read", fail)
    with pytest.raises(StoreError, match="disk I/O error"):
        family.verify()


def test_a_damaged_expression_does_not_keep_its_operands_from_being_renamed(family):
    changed = "summary = '= _1 -', story_text = replace(story_text, '_1 - 0.5 * _2', '_1 -')"
    tamper(family, f"UPDATE vector SET {changed} WHERE name = 'warm'")
    family.rename("love", "amour")
    assert family.load("amour") == vector(1)
    with pytest.raises(Damaged, match="warm"):
        family.load("warm")
    assert "tiny_1.warm.v1" in {finding.ref for finding in family.verify()}
    family.upkeep.rebuild()
    assert str(family.load("warm").recipe) == "= amour.v1 - 0.5 * anger.v1"
    assert family.verify() == []
