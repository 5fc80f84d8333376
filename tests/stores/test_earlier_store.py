"""Stores that earlier versions wrote: brought over, as they were, and hurt by no failure."""

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
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from steerlab.errors import CorruptPayload, StoreError
from steerlab.files.header import METADATA_KEY
from steerlab.files.payload import FORMAT, read, read_records
from steerlab.registry import Store, database, migrations
from steerlab.registry.schema_version import HEAD
from tests.registry.test_read_only import freeze, thaw

EARLIER = Path(__file__).parent / "0006"


@dataclass(frozen=True)
class Earlier:
    """A store in this folder, and what the version that wrote it said of it."""

    schema: str

    @property
    def path(self) -> Path:
        return EARLIER.parent / self.schema

    @cached_property
    def said(self) -> dict[str, Any]:
        return json.loads(self.path.with_name(f"{self.schema}.json").read_text("utf-8"))


@pytest.fixture(params=["0006", "0100"], scope="module")
def earlier(request) -> Earlier:
    return Earlier(request.param)


@pytest.fixture
def store(earlier, tmp_path) -> Store:
    """A copy of the earlier store, as it was."""
    return Store(shutil.copytree(earlier.path, tmp_path / "store"))


def told(store: Store) -> dict[str, Any]:
    """Everything that the store says of what it holds, as JSON values."""
    listed = store.list(every_version=True, sort="name")
    found = {
        "records": {s.qualified: store.record(s.qualified).to_json() for s in listed},
        "lineage": {s.qualified: asdict(store.lineage(s.qualified)) for s in store.list()},
        "runs": [run.to_json() for run in store.runs.list()],
        "sweeps": [store.sweeps.get(sweep.id).to_json() for sweep in store.sweeps.list()],
        "calibrations": [one.to_json() for one in store.results.calibrations()],
        "evaluations": [one.to_json() for one in store.results.evaluations()],
    }
    return json.loads(json.dumps(found))


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


def test_it_is_of_its_schema_and_small(earlier):
    assert schema_of(earlier.path / "registry.db") == earlier.schema
    files = [p for p in earlier.path.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 120_000


def test_it_says_the_same_as_ever_and_verifies(earlier, store):
    assert known(told(store), earlier.said) == earlier.said
    assert {*told(store)["records"]} == {*earlier.said["records"]}
    assert store.verify() == []
    for ref, record in earlier.said["records"].items():
        assert store.load(ref).digest == record["digest"]
    assert store.evaluate("love.v1 - 0.5*anger") == store.load("warm")
    assert store.search("feeling").hits
    assert store.save("later", store.load("love")).ref == "later.v1"


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE vector",
        "DROP TABLE evaluation",
        "ALTER TABLE vector RENAME COLUMN path TO way",
    ],
)
def test_damage_of_an_earlier_registry_is_said_and_mended(store, damage):
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        raw.execute(damage)
        raw.commit()
    with pytest.raises(StoreError, match=r"is damaged; nothing is lost.*: run `steerlab rebuild`"):
        store.list()
    assert store.upkeep.rebuild() > 0
    assert store.verify() == []


def test_a_measurement_without_end_is_left_out_of_an_earlier_registry(store):
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        raw.execute("PRAGMA ignore_check_constraints = 1")
        (number,) = raw.execute("SELECT max(id) FROM calibration").fetchone()
        raw.execute("UPDATE calibration SET dose = 9e999 WHERE id = ?", [number])
        (others,) = raw.execute("SELECT count(*) - 1 FROM calibration").fetchone()
        raw.commit()
    assert len(store.results.calibrations()) == others
    assert store.verify() == []


def test_a_tag_of_no_vector_costs_an_earlier_registry_nothing(earlier, store):
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        raw.execute("INSERT INTO tag (vector_id, tag) VALUES (999, 'lost')")
        raw.commit()
    assert known(told(store), earlier.said) == earlier.said


def test_what_was_removed_is_still_known(store):
    assert store.save("tensor", store.load("love")).ref == "tensor.v3"
    assert store.save("one", store.load("love")).ref == "one.v2"


def test_no_payload_changes_and_none_that_no_row_needed_is_taken_in(earlier, store):
    stray = store.path / "payloads" / "stray.safetensors"
    shutil.copy(next(store.path.rglob("payloads/35/*")), stray)
    before = contents(store.path / "payloads")
    assert {*told(store)["records"]} == {*earlier.said["records"]}
    assert contents(store.path / "payloads") == before


def test_a_name_that_only_its_row_knew_gets_a_label_file(store):
    """The writer died between the payload and its row, or the other way round."""
    with closing(sqlite3.connect(store.path / "registry.db")) as raw, raw:
        raw.execute("UPDATE vector SET name = 'fury' WHERE name = 'anger'")
    assert "fury" in store.names()
    assert store.verify() == []
    (store.path / "registry.db").unlink()
    assert "fury" in Store(store.path).names()


def test_the_old_registry_stays_beside_the_new_one(earlier, store):
    store.list()
    assert schema_of(store.path / "registry.db") == HEAD
    assert schema_of(store.path / f"registry.db.before-{HEAD}") == earlier.schema


def test_a_rebuild_gives_the_same(earlier, store):
    assert store.upkeep.rebuild() == len(earlier.said["records"])
    assert known(told(store), earlier.said) == earlier.said
    assert store.verify() == []


def test_its_files_alone_are_enough(earlier, store, caplog):
    (store.path / "registry.db").unlink()
    assert told(store)["records"] == earlier.said["records"]
    assert store.verify() == []
    assert caplog.text.count(f"restored {len(earlier.said['records'])} vectors") == 1


@pytest.fixture
def frozen(store, tmp_path) -> Iterator[Store]:
    """Nobody can write to it; root, whom permissions do not bind, becomes nobody for it."""
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.owner() == "root" and str(path).startswith(("/tmp/", "/dev/shm/")):
            path.chmod(0o755)
    freeze(store)
    yield store
    thaw(store.path)


def test_it_is_read_where_nobody_may_write(earlier, frozen):
    before = sorted(p.name for p in frozen.path.iterdir())
    assert told(frozen)["records"] == earlier.said["records"]
    assert frozen.load("warm") == frozen.evaluate("love.v1 - 0.5*anger")
    assert frozen.verify() == []
    with pytest.raises(StoreError, match=r"read-only|can't write"):
        frozen.tag("love", add=["x"])
    assert sorted(p.name for p in frozen.path.iterdir()) == before


# failures on the way


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def left_as_it_was(earlier: Earlier, store: Store) -> None:
    """The old registry is what it was, and there is nothing that an old program does not know."""
    with closing(sqlite3.connect(store.path / "registry.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (earlier.schema,)
        ]
        rows = [line for line in raw.iterdump() if "alembic" not in line]
    with closing(sqlite3.connect(earlier.path / "registry.db")) as raw:
        assert [line for line in raw.iterdump() if "alembic" not in line] == rows
    names = {name for name in contents(store.path) if name.startswith("registry.db")}
    assert names <= {"registry.db", f"registry.db.before-{HEAD}"}


def comes_over_after_all(earlier: Earlier, store: Store) -> None:
    assert known(told(store), earlier.said) == earlier.said
    assert store.verify() == []
    assert schema_of(store.path / f"registry.db.before-{HEAD}") == earlier.schema


def test_an_error_in_the_middle_changes_nothing(earlier, store, monkeypatch):
    bring_over = migrations.bring_over

    def broken(connection: Connection, *rest: Any) -> None:
        bring_over(connection, *rest)
        connection.exec_driver_sql("DELETE FROM vector")
        connection.exec_driver_sql("SELECT nonsense")

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "bring_over", broken)
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                store.list()
            assert "\n" not in str(caught.value)
            left_as_it_was(earlier, store)
    comes_over_after_all(earlier, store)


@pytest.mark.parametrize("pages", [0, 30])
def test_a_full_disk_changes_nothing(earlier, store, monkeypatch, pages):
    """The registry may grow by so many pages and no more."""
    bring_over = migrations.bring_over

    def cramped(connection: Connection, *rest: Any) -> None:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {size + pages}")
        connection.exec_driver_sql("CREATE TABLE large AS SELECT zeroblob(9000000)")
        bring_over(connection, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "bring_over", cramped)
        with pytest.raises(StoreError, match=r"the disk of .* is full: nothing was changed"):
            store.list()
        left_as_it_was(earlier, store)
    comes_over_after_all(earlier, store)


def test_a_full_disk_before_it_begins_changes_nothing(earlier, store, monkeypatch):
    """Not even the copy of the old registry fits."""

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"SQLite format 3\x00 and a half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(database, "copy_database", full)
        with pytest.raises(StoreError, match="No space left on device"):
            store.list()
        left_as_it_was(earlier, store)
    comes_over_after_all(earlier, store)


KILLED = """
import os, signal, sys
from steerlab.registry import Store, database, migrations

bring_over, copy = migrations.bring_over, database.copy_database

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def killed(connection, *rest):
    bring_over(connection, *rest)
    connection.exec_driver_sql("DELETE FROM tag")
    die()

def half_a_copy(source, target):
    target.write_bytes(source.read_bytes()[:5000])
    die()

if sys.argv[2] == "copying":
    database.copy_database = half_a_copy
else:
    migrations.bring_over = killed
Store(sys.argv[1]).list()
"""


@pytest.mark.parametrize("when", ["copying", "bringing over"])
def test_a_kill_changes_nothing(earlier, store, when):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.path), when],
        env=os.environ,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    comes_over_after_all(earlier, store)


# formats of payload files


@pytest.mark.parametrize(("number", "why"), [(FORMAT + 1, "upgrade steerlab"), (0, "never was")])
def test_a_payload_of_another_format_is_refused_in_words(tmp_path, number, why):
    file = next((EARLIER / "payloads").rglob("*.safetensors"))
    data = file.read_bytes()
    assert b'{\\"format\\":1,' in data
    other = tmp_path / "p.safetensors"
    other.write_bytes(data.replace(b'{\\"format\\":1,', b'{\\"format\\":%d,' % number))
    assert METADATA_KEY.encode() in data
    for reading in (read, read_records, Store(tmp_path / "store").transfer.import_):
        with pytest.raises(CorruptPayload, match=why) as caught:
            reading(other)
        assert "\n" not in str(caught.value)
