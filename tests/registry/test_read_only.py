"""A store that can't be written still lists and loads, and says so when asked to write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from steerlab.errors import StoreError
from steerlab.registry import Store
from steerlab.registry.transfer import backup  # noqa: F401  # before root's files can't be read
from tests.registry.samples import restored, vector


@pytest.fixture
def frozen(family: Store) -> Iterator[Store]:
    """A copy nobody can write to. Permissions do not bind root, who becomes nobody for it."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shutil.copytree(family.path, f"{place}/store")
        yield Store(f"{place}/store")
        thaw(Path(place))


def freeze(store: Store) -> None:
    for path in [*store.path.rglob("*"), store.path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() == 0:
        os.seteuid(65534)


def thaw(place: Path) -> None:
    if os.getuid() == 0:
        os.seteuid(0)
    for path in place.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def refused(store: Store) -> None:
    for action in (
        lambda: store.save("x", vector()),
        lambda: store.tag("love", add=["x"]),
        lambda: store.rename("love", "amour"),
        lambda: store.remove("deep"),
        store.upkeep.rebuild,
        lambda: store.upkeep.gc(dry_run=False),
    ):
        with pytest.raises(StoreError, match="can't write to the store") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_it_lists_and_loads(frozen):
    freeze(frozen)
    assert len(frozen.list()) == 4
    assert frozen.load("love") == vector(1)
    assert frozen.evaluate("love - 0.5*anger") == frozen.load("warm")
    assert frozen.verify() == []
    assert frozen.upkeep.gc() == []
    refused(frozen)


def test_without_a_registry_the_payloads_answer(frozen, caplog):
    for file in frozen.path.glob("registry.db*"):
        file.unlink()
    freeze(frozen)
    assert len(frozen.list()) == 4
    assert frozen.load("love") == vector(1)
    assert frozen.verify() == []
    assert caplog.text == ""
    refused(frozen)


def test_what_is_still_in_the_log_counts(frozen, tmp_path):
    """The directory was copied while a program had the registry open."""
    file = frozen.path / "registry.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("UPDATE vector SET note = 'from the log' WHERE name = 'love'")
        raw.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{file}{suffix}", tmp_path / f"copy{suffix}")
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"copy{suffix}", f"{file}{suffix}")
    freeze(frozen)
    assert frozen.record("love").note == "from the log"


def test_an_older_schema_is_read_from_the_payloads(frozen, monkeypatch):
    monkeypatch.setattr("steerlab.registry.schema_version.HEAD", "9999")
    freeze(frozen)
    assert len(frozen.list()) == 4


def test_a_backup_of_it_can_be_written(frozen, tmp_path):
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    try:
        freeze(frozen)
        copy = restored(frozen, place)
        assert copy.save("x", vector()).ref == "x.v1"
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        shutil.rmtree(place)


def test_a_parent_that_is_read_only(frozen):
    freeze(frozen)
    with pytest.raises(StoreError, match="can't write to the store"):
        Store(frozen.path / "sub").save("x", vector())
