"""Stores that earlier versions wrote: opened, migrated, as they were, and hurt by no failure."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from steerlab.errors import CorruptPayload, StoreError
from steerlab.files.header import METADATA_KEY
from steerlab.files.payload import FORMAT, read, read_records
from steerlab.registry import Store, database, migrations
from steerlab.registry.database import HEAD
from tests.registry.test_read_only import freeze, thaw
from tests.stores.write import told

HERE = Path(__file__).parent
SCHEMAS = sorted(path.name for path in HERE.iterdir() if path.name.isdigit())
EARLIER = [schema for schema in SCHEMAS if schema < HEAD]


def said(schema: str) -> dict:
    """What the version that wrote a store said of it."""
    return json.loads((HERE / f"{schema}.json").read_text("utf-8"))


def opened(schema: str, place: Path) -> Store:
    return Store(shutil.copytree(HERE / schema, place / "store"))


@pytest.fixture(params=SCHEMAS)
def schema(request) -> str:
    return request.param


@pytest.fixture(params=EARLIER)
def earlier(request) -> str:
    return request.param


def schema_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as raw:
        return raw.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def known(now: object, then: object) -> object:
    """What is said now, of that which was already said then; later versions know more."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: known(now.get(key), then[key]) for key in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [known(x, y) for x, y in zip(now, then, strict=True)]
    return now


def test_there_is_a_store_of_every_schema_before_this_one():
    assert [f"{n:04}" for n in range(1, int(HEAD))] == EARLIER
    for schema in SCHEMAS:
        assert schema_of(HERE / schema / "registry.db") == schema
        files = [p for p in (HERE / schema).rglob("*") if p.is_file()]
        assert sum(p.stat().st_size for p in files) < 100_000


def test_it_says_the_same_as_ever_and_verifies(schema, tmp_path):
    store = opened(schema, tmp_path)
    then = said(schema)
    assert known(told(store), then) == then
    assert {*told(store)["records"]} == {*then["records"]}
    assert store.verify() == []
    for ref, record in then["records"].items():
        assert store.load(ref).digest == record["digest"]
    assert store.evaluate("love.v1 - 0.5*anger") == store.load("warm")
    assert store.search("feeling").hits
    assert store.save("later", store.load("love")).ref == "later.v1"


def test_the_old_registry_stays_beside_the_new_one(earlier, tmp_path):
    store = opened(earlier, tmp_path)
    store.list()
    assert schema_of(store.path / "registry.db") == HEAD
    assert schema_of(store.path / f"registry.db.before-{HEAD}") == earlier


def test_what_is_new_can_be_kept(earlier, tmp_path):
    """The results of a store that had none yet are those of one that was made with them."""
    store, newest = opened(earlier, tmp_path), opened(SCHEMAS[-1], tmp_path / "newest")
    for run in newest.runs.list() if earlier < "0002" else ():
        store.runs.save(run)
    for made in newest.results.evaluations() if earlier < "0003" else ():
        store.results.save_evaluation(made)
    assert len(store.runs.list()) == len(newest.runs.list())
    assert store.verify() == []


def test_a_rebuild_gives_the_same(schema, tmp_path):
    store = opened(schema, tmp_path)
    then = said(schema)
    assert store.upkeep.rebuild() == len(then["records"])
    assert known(told(store), then) == then
    assert store.verify() == []


def test_its_payloads_alone_are_enough(schema, tmp_path, caplog):
    store = opened(schema, tmp_path)
    (store.path / "registry.db").unlink()
    assert told(store)["records"] == said(schema)["records"]
    assert store.verify() == []
    assert caplog.text.count("restored 9 vectors") == 1


@pytest.fixture
def frozen(schema, tmp_path) -> Iterator[Store]:
    """Nobody can write to it; root, whom permissions do not bind, becomes nobody for it."""
    store = opened(schema, tmp_path)
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    freeze(store)
    yield store
    thaw(store.path)


def test_it_is_read_where_nobody_may_write(frozen, schema):
    before = sorted(p.name for p in frozen.path.iterdir())
    assert told(frozen)["records"] == said(schema)["records"]
    assert frozen.load("warm") == frozen.evaluate("love.v1 - 0.5*anger")
    assert frozen.verify() == []
    with pytest.raises(StoreError, match=r"read-only|can't write"):
        frozen.tag("love", add=["x"])
    assert sorted(p.name for p in frozen.path.iterdir()) == before


# migrations that fail


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def left_as_it_was(store: Store, schema: str) -> None:
    """The old registry is what it was, and there is nothing that an old program does not know."""
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema,)]
        rows = [line for line in raw.iterdump() if "alembic" not in line]
    with closing(sqlite3.connect(HERE / schema / "registry.db")) as raw:
        assert [line for line in raw.iterdump() if "alembic" not in line] == rows
    names = {name for name in contents(store.path) if name.startswith("registry.db")}
    assert names <= {"registry.db", f"registry.db.before-{HEAD}"}


def migrates_after_all(store: Store, schema: str) -> None:
    then = said(schema)
    assert known(told(store), then) == then
    assert store.verify() == []
    assert schema_of(store.path / f"registry.db.before-{HEAD}") == schema


def test_an_error_in_the_middle_of_a_migration_changes_nothing(earlier, tmp_path, monkeypatch):
    store = opened(earlier, tmp_path)
    upgrade = migrations.upgrade

    def broken(connection: Connection) -> None:
        upgrade(connection)
        connection.exec_driver_sql("DELETE FROM vector")
        connection.exec_driver_sql("SELECT nonsense")

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "upgrade", broken)
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                store.list()
            assert "\n" not in str(caught.value)
            left_as_it_was(store, earlier)
    migrates_after_all(store, earlier)


@pytest.mark.parametrize(
    ("earlier", "pages"), [*((s, 0) for s in EARLIER), ("0001", 30), ("0002", 30)]
)
def test_a_full_disk_in_a_migration_changes_nothing(earlier, tmp_path, monkeypatch, pages):
    """The registry may grow by so many pages and no more."""
    store = opened(earlier, tmp_path)
    upgrade = migrations.upgrade

    def cramped(connection: Connection) -> None:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {size + pages}")
        upgrade(connection)

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "upgrade", cramped)
        with pytest.raises(StoreError, match=r"the disk of .* is full: nothing was changed"):
            store.list()
        left_as_it_was(store, earlier)
    migrates_after_all(store, earlier)


def test_a_full_disk_before_a_migration_changes_nothing(earlier, tmp_path, monkeypatch):
    """Not even the copy of the old registry fits."""
    store = opened(earlier, tmp_path)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"SQLite format 3\x00 and a half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(database, "copy_database", full)
        with pytest.raises(StoreError, match="No space left on device"):
            store.list()
        left_as_it_was(store, earlier)
    migrates_after_all(store, earlier)


KILLED = """
import os, signal, sys
from steerlab.registry import Store, database, migrations

upgrade, copy = migrations.upgrade, database.copy_database

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def killed(connection):
    upgrade(connection)
    connection.exec_driver_sql("DELETE FROM tag")
    die()

def half_a_copy(source, target):
    target.write_bytes(source.read_bytes()[:5000])
    die()

if sys.argv[2] == "copying":
    database.copy_database = half_a_copy
else:
    migrations.upgrade = killed
Store(sys.argv[1]).list()
"""


@pytest.mark.parametrize(
    ("earlier", "when"), [("0001", "copying"), *((s, "migrating") for s in EARLIER)]
)
def test_a_kill_in_a_migration_changes_nothing(earlier, tmp_path, when):
    store = opened(earlier, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.path), when],
        env=os.environ,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    migrates_after_all(store, earlier)


# formats of payload files


@pytest.mark.parametrize(("number", "why"), [(FORMAT + 1, "upgrade steerlab"), (0, "never was")])
def test_a_payload_of_another_format_is_refused_in_words(tmp_path, number, why):
    file = next((HERE / "0001" / "payloads").rglob("*.safetensors"))
    data = file.read_bytes()
    assert b'{\\"format\\":1,' in data
    other = tmp_path / "p.safetensors"
    other.write_bytes(data.replace(b'{\\"format\\":1,', b'{\\"format\\":%d,' % number))
    assert METADATA_KEY.encode() in data
    for reading in (read, read_records, Store(tmp_path / "store").transfer.import_):
        with pytest.raises(CorruptPayload, match=why) as caught:
            reading(other)
        assert "\n" not in str(caught.value)
