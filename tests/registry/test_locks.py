"""A store on a file system without locks is refused with the reason, never used without them."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from steerlab.errors import StoreError
from steerlab.registry import Store
from steerlab.registry.database import Database
from tests.registry.samples import vector

REASON = "file system has no locks .* keep it on a local disk"


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def take_locks_away(request, monkeypatch):
    """From the call on, locking fails as it does on some network file systems."""
    code = getattr(errno, request.param)

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    def take_away():
        monkeypatch.setattr(fcntl, "flock", refuse)
        monkeypatch.setattr(fcntl, "lockf", refuse)

    return take_away


def test_no_store_is_made_without_locks(store, take_locks_away):
    take_locks_away()
    with pytest.raises(StoreError, match=REASON):
        store.save("love", vector())
    assert [path.name for path in store.path.rglob("*")] in ([], [".lock"])


def test_no_store_is_written_without_locks(family, take_locks_away):
    take_locks_away()
    for action in (
        lambda: family.save("new", vector(9)),
        lambda: family.tag("love", add=["x"]),
        family.upkeep.rebuild,
        lambda: family.upkeep.gc(dry_run=False),
    ):
        with pytest.raises(StoreError, match=REASON):
            action()


def test_a_reader_is_told_the_reason_too(family, take_locks_away, monkeypatch):
    """SQLite says "busy" where locks are missing."""
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorname = "SQLITE_BUSY"

    def wait_in_vain(self, stack):
        raise OperationalError("", {}, busy)

    monkeypatch.setattr(Database, "_snapshot", wait_in_vain)
    with pytest.raises(StoreError, match="another program is using"):
        Store(family.path).list()
    take_locks_away()
    with pytest.raises(StoreError, match=REASON):
        Store(family.path).list()
