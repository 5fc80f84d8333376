"""A registry.db whose schema no steerlab made: views without an end, triggers, made-up columns.

SQLite runs them for whoever reads or writes: a registry with any of them is damaged.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from steerlab.errors import CorruptPayload
from steerlab.registry import Store
from steerlab.registry.sqlite_errors import Damaged

ENDLESS = "AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
VIEW = f"CREATE VIEW tag {ENDLESS} SELECT x AS vector_id, x AS tag FROM c WHERE x < 0"

FOREIGN = {
    "a version that never comes": "DROP TABLE alembic_version; CREATE VIEW alembic_version "
    f"{ENDLESS} SELECT x AS version_num FROM c WHERE x < 0",
    "tags without an end": f"DROP TABLE tag; {VIEW}",
    "a view that says it is a table": f"DROP TABLE tag; {VIEW}; PRAGMA writable_schema = ON;"
    " UPDATE sqlite_master SET type = 'table', rootpage = 2 WHERE name = 'tag'",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON tag BEGIN DELETE FROM vector; END",
    "a name that is not UTF-8": "PRAGMA writable_schema = ON;"
    " UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT) WHERE name = 'tag'",
    "a virtual table": "CREATE VIRTUAL TABLE extra USING fts5(x)",
}


def change(store: Store, sql: str) -> None:
    with closing(sqlite3.connect(store.path / "registry.db")) as raw, raw:
        raw.executescript(sql)


@pytest.mark.parametrize("sql", FOREIGN.values(), ids=FOREIGN)
def test_it_is_asked_nothing_and_made_anew_of_the_payloads(family, tmp_path, sql):
    change(family, sql)
    backup = family.transfer.backup(tmp_path / "b.tar")
    assert backup.damaged == ("registry.db is damaged",)
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(backup.path)
    for look in (copy.list, copy.verify, lambda: copy.tag("love", add=["x"])):
        with pytest.raises(Damaged, match="run `steerlab rebuild`"):
            look()
    assert "steerlab rebuild" in {problem.fix for problem in copy.upkeep.diagnose()}
    assert copy.upkeep.rebuild() == 4
    assert copy.verify() == []


def test_an_index_of_which_sqlite_speaks_in_bytes_is_said_and_mended(family):
    file = family.path / "registry.db"
    change(family, "PRAGMA journal_mode = DELETE; CREATE INDEX x ON vector (note COLLATE NOCASE)")
    file.write_bytes(file.read_bytes().replace(b"NOCASE", b"\xff" * 6))
    (finding,) = family.verify()
    assert "not UTF-8" in finding.problem
    assert family.upkeep.rebuild() == 4
    assert family.verify() == []


def test_a_backup_with_a_column_that_is_made_up_is_refused(family, tmp_path):
    change(family, "ALTER TABLE vector ADD COLUMN x TEXT AS (hex(zeroblob(400000000)))")
    backup = family.transfer.backup(tmp_path / "b.tar")
    with pytest.raises(CorruptPayload, match="whose table vector makes up what it says"):
        Store(tmp_path / "copy").transfer.restore(backup.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "store"]
