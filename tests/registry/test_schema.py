"""The schema: what it refuses by itself, and how it gets from version to version."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from steerlab.errors import StoreError
from steerlab.registry import Store, migrations, schema_version
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.tables import METADATA
from tests.registry.samples import vector

STORES = Path(__file__).parents[1] / "stores"


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def schema(connection):
    rows = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'alembic%'")
    )

    def parts(sql):
        inside = re.sub(r"\s+", " ", sql)
        return sorted(p.strip(" )") for p in inside.split(", CONSTRAINT ")[1:]), inside.split(
            ", CONSTRAINT "
        )[0]

    return {name: parts(sql) for name, sql in rows}


def test_the_migrations_make_the_tables_of_the_program(connection):
    for statement in (STORES / "0105.sql").read_text("utf-8").split(";\n"):
        connection.exec_driver_sql(statement)
    migrations.upgrade(connection)
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    assert compare_metadata(context, METADATA) == []
    migrated = schema(connection)
    connection.rollback()
    fresh = create_engine("sqlite://")
    with fresh.connect() as other:
        METADATA.create_all(other)
        assert schema(other) == migrated  # the CHECKs too, which Alembic does not compare
    fresh.dispose()


def test_head_is_the_newest_migration(connection):
    script = ScriptDirectory.from_config(migrations.configuration(connection))
    assert script.get_heads() == [schema_version.HEAD]


def test_the_schema_is_postgresql_too():
    for table in METADATA.sorted_tables:
        assert "typeof" not in str(CreateTable(table).compile(dialect=postgresql.dialect()))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE direction SET layer = 'abc' WHERE layer = 2",
        "UPDATE direction SET layer = -1 WHERE layer = 2",
        "UPDATE direction SET norm = 'big'",
        "UPDATE direction SET norm = -1.0",
        "UPDATE direction SET residual_norm = 'x'",
        "UPDATE direction SET positions = 0",
        "UPDATE vector SET version = 0",
        "UPDATE vector SET version = 1.5",
        "UPDATE vector SET scope = 'everywhere'",
        "UPDATE vector SET kind = 'guess'",
        "UPDATE vector SET digest = 'abc'",
        "UPDATE vector SET created = '2024-01-01 10:00:00'",
        "UPDATE vector SET created = '2024-01-01T10:00:00.000000+02:00'",
        "UPDATE vector SET path = '/etc/passwd'",
        "UPDATE vector SET path = '../x'",
        "UPDATE vector SET model_id = 77",
        "UPDATE vector SET name = 'love', version = 1",
        "UPDATE vector SET story_text = NULL",
        "UPDATE vector SET story = 'abc'",
        "UPDATE vector SET seal = ''",
        "UPDATE operand SET parent_id = child_id",
        "UPDATE operand SET child_id = 77",
        "UPDATE operand SET parent_id = 77",
        "UPDATE tag SET tag = ''",
        "UPDATE model SET n_layers = 0",
        "DELETE FROM model",
    ],
)
def test_the_schema_refuses(family, change):
    with pytest.raises(StoreError, match="constraint"), family._database.writing() as work:
        work.connection.execute(text(change))
    assert family.verify() == []


def set_version(store, version):
    with closing(sqlite3.connect(store.path / "registry.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_a_newer_store_is_refused_and_left_alone(family):
    set_version(family, "0999")
    before = (family.path / "registry.db").read_bytes()
    for action in (family.list, family.upkeep.rebuild, lambda: family.save("x", vector())):
        with pytest.raises(StoreError, match=r"newer steerlab \(schema 0999, .*upgrade steerlab"):
            action()
    assert (family.path / "registry.db").read_bytes() == before


@pytest.mark.parametrize("version", ["0999", None])
def test_a_newer_store_with_parts_that_are_unknown_here_is_newer_not_damaged(family, version):
    with closing(sqlite3.connect(family.path / "registry.db")) as raw, raw:
        raw.execute("CREATE TRIGGER later AFTER DELETE ON run BEGIN SELECT 1; END")
    if version:
        set_version(family, version)
    said = r"newer steerlab \(schema 0999" if version else "is damaged"
    for action in (family.list, lambda: family.save("x", vector())):
        with pytest.raises(StoreError, match=said):
            action()


MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{later}", "{head}"


def upgrade():
    {body}
"""


HEAD = schema_version.HEAD
LATER = f"{int(HEAD) + 1:04}"


def migration(body):
    return MIGRATION.format(body=body, head=HEAD, later=LATER)


@pytest.fixture
def newer_program(tmp_path, monkeypatch):
    """The program as it will be one migration later; gives where that migration is written."""
    later = tmp_path / "later"
    later.mkdir()
    own = migrations.configuration

    def configuration(connection):
        config = own(connection)
        config.set_main_option("path_separator", "newline")
        versions = f"{config.get_main_option('script_location')}/versions"
        config.set_main_option("version_locations", f"{versions}\n{later}")
        return config

    monkeypatch.setattr(migrations, "configuration", configuration)
    monkeypatch.setattr(schema_version, "HEAD", LATER)
    return later / f"{LATER}_later.py"


@pytest.mark.parametrize("version", ["0101", "0102"])
def test_tables_and_index_of_an_earlier_revision_give_way_to_smaller_ones(family, version):
    """The fixtures hold the text index as SQLite kept it, and direction and tag with row ids."""
    records = [family.record(name) for name in family.names()]
    with closing(sqlite3.connect(family.path / "registry.db")) as raw, raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.executescript("DROP TABLE vector_text; DROP TABLE text_pending; DROP TABLE undo")
        for file in ("rowids.sql", f"{version}.sql"):
            raw.executescript((STORES / file).read_text("utf-8"))
        raw.execute("UPDATE alembic_version SET version_num = ?", (version,))
    store = Store(family.path)
    assert store.search("feeling").total == family.search("feeling").total > 0
    assert [store.record(name) for name in store.names()] == records
    assert store.verify() == []
    with closing(sqlite3.connect(family.path / "registry.db")) as raw:
        smaller = raw.execute("SELECT name FROM pragma_table_list WHERE wr AND schema = 'main'")
        assert {"direction", "tag"} < {name for (name,) in smaller}
    assert (family.path / f"registry.db.before-{HEAD}").is_file()


def test_a_store_of_the_last_earlier_revision_keeps_what_only_rows_hold(family):
    family.tag("love", add=["fond"])
    removed = family.load("deep").digest
    family.remove("deep")
    set_version(family, "0104")
    store = Store(family.path)
    assert [change.what for change in store.changes.list()] == ["remove", "tag"]
    store.changes.undo()
    assert store.load("deep").digest == removed
    store.changes.undo()
    assert "fond" not in store.record("love").tags
    assert store.verify() == []


def test_an_older_store_is_copied_then_migrated(family, newer_program):
    newer_program.write_text(
        migration(
            """with op.batch_alter_table("vector") as batch:
        batch.add_column(sa.Column("pinned", sa.Integer(), nullable=True))
        batch.alter_column("note", nullable=True)"""
        )
    )
    before = family.record("love")
    assert len(family.list()) == 4
    assert family.record("love") == before  # its directions, pairs and tags are still there
    assert [c.ref for c in family.lineage("love").children] == ["tiny_1.warm.v1"]
    copy = family.path / f"registry.db.before-{LATER}"
    with closing(sqlite3.connect(copy)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert raw.execute("SELECT count(*) FROM vector").fetchone() == (4,)
    with closing(sqlite3.connect(family.path / "registry.db")) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(LATER,)]
        assert raw.execute("SELECT count(pinned), count(*) FROM vector").fetchone() == (0, 4)
    family.save("later", vector(9))


def test_a_migration_that_orphans_rows_is_rolled_back(family, newer_program):
    newer_program.write_text(migration('op.execute("DELETE FROM vector WHERE id = 1")'))
    with pytest.raises(StoreError, match="rows point at rows that are gone"):
        family.list()
    with closing(sqlite3.connect(family.path / "registry.db")) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert raw.execute("SELECT count(*) FROM vector").fetchone() == (4,)


def test_a_version_that_never_was_is_one_line(family):
    set_version(family, "0007")
    said = (
        r"can't be brought up to date: it has a schema that no steerlab writes.*`steerlab rebuild`$"
    )
    with pytest.raises(StoreError, match=said):
        Store(family.path).list()
    Store(family.path).upkeep.rebuild()
    assert len(Store(family.path).list()) == 4


@pytest.mark.parametrize(
    "versions",
    [
        [],
        ["102"],
        [102],
        ["00102"],
        ["0102\n"],
        ["٠١٠٢"],
        ["9" * 5000],
        ["0102", "0103"],
        [b"0102"],
    ],
    ids=lambda versions: f"{versions!r:.16}",
)
def test_a_version_that_is_not_one_of_four_digits_is_damage(versions):
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num)")
        raw.executemany("INSERT INTO alembic_version VALUES (?)", [(v,) for v in versions])
        with pytest.raises(Damaged, match="run `steerlab rebuild`"):
            schema_version.version_of(raw, Path("store"))
