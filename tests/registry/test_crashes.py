"""A full disk, a kill, two writers at once: what was acknowledged is there, the rest is not."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine.default import DefaultDialect

from steerlab.errors import NotFound, StoreError
from steerlab.registry import Store, connections, files, labels, removals
from tests.registry.samples import vector

ROOT = Path(__file__).parents[2]


def whole(store: Store, garbage: int = 0) -> None:
    assert store.verify() == []
    assert len(store.upkeep.gc(grace=timedelta(0))) == garbage


class Full:
    """Lets `good` calls through, then says that the disk is full."""

    def __init__(self, real, good):
        self.real, self.good = real, good

    def __call__(self, *arguments, **options):
        self.good -= 1
        if self.good < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(*arguments, **options)


@pytest.mark.parametrize("step", ["open", "os.fsync", "os.replace", "os.mkdir"])
@pytest.mark.parametrize("good", range(4))
def test_a_full_disk_leaves_the_store_as_it_was(family, monkeypatch, step, good):
    names = family.names()
    record = family.record("love")
    with monkeypatch.context() as patch:
        owner = "builtins" if step == "open" else "os"
        real = getattr(sys.modules[owner], step.rpartition(".")[2])
        patch.setattr(f"{owner}.{step.rpartition('.')[2]}", Full(real, good))
        failed = 0
        for action in (
            lambda: family.save("new", vector(60)),
            lambda: family.tag("love", add=["x"]),
            lambda: family.rename("love", "amour"),
        ):
            try:
                action()
            except StoreError as error:
                failed += re.fullmatch(r".*No space left on device", str(error)) is not None
    assert failed or good
    if failed == 3:
        assert family.names() == names
        assert family.record("love") == record
    whole(family)


def test_a_full_disk_under_sqlite_is_one_line_too(family, monkeypatch):
    opened = connections.opened

    def full(*arguments, **options):
        connection = opened(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # as full as it is
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(connections, "opened", full)
        connections.engine_of.cache_clear()
        with pytest.raises(StoreError, match="is full: nothing was changed"):
            family.save_many([(f"n{i}", vector(i)) for i in range(300)])
    connections.engine_of.cache_clear()
    whole(family)
    assert "n0" not in family.names()


def test_a_commit_that_fails_keeps_the_payload(family, monkeypatch):
    """Whether it was written is then unknown: a file too many is better than one too few."""
    opened, asked = connections.opened, []

    def refused(action, what, *_):
        if action == sqlite3.SQLITE_TRANSACTION:
            asked.append(what)
        return sqlite3.SQLITE_DENY if what == "COMMIT" else sqlite3.SQLITE_OK

    def refusing(*arguments, **options):
        connection = opened(*arguments, **options)
        connection.set_authorizer(refused)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(connections, "opened", refusing)
        connections.engine_of.cache_clear()
        with pytest.raises(StoreError, match="not authorized"):
            family.save("new", vector(60))
    connections.engine_of.cache_clear()
    assert asked == ["BEGIN", "COMMIT", "ROLLBACK"]
    assert "new" not in family.names()
    whole(family, garbage=1)


def test_an_interrupt_before_commit_undoes_the_file(family, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("steerlab.registry.saving.add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            family.save("new", vector(60))
    whole(family)


def killed_after(monkeypatch, step, action):
    """A change whose writer dies: before COMMIT, or before its labels are put in place."""
    with monkeypatch.context() as patch:
        if step == "commit":
            patch.setattr(labels, "_put_in_place", lambda *_: None)
            action()
        else:
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill runs no undo
            patch.setattr(removals, "copy", Full(removals.copy, 0))
            with pytest.raises(StoreError, match="No space left"):
                action()


@pytest.mark.parametrize("step", ["stage", "commit"])
def test_what_a_writer_left_staged_is_finished_as_the_rows_have_it(family, monkeypatch, step):
    family.save("love", vector(5))
    killed_after(monkeypatch, step, lambda: family.rename("love", "amour"))
    name = "amour" if step == "commit" else "love"
    assert len(labels.staged(family.path)) == 1
    assert family.load(name).ref == f"{name}.v2"  # to look needs no label
    family.save("calm", vector(60))
    assert labels.staged(family.path) == []
    whole(family)
    before = family.names()
    (family.path / "registry.db").unlink()
    assert Store(family.path).names() == before
    assert {"amour", "love"} & set(before) == {name}


def test_what_was_staged_counts_where_the_registry_is_lost(family, monkeypatch):
    family.save("love", vector(5))
    killed_after(monkeypatch, "commit", lambda: family.rename("love", "amour"))
    (family.path / "registry.db").unlink()
    again = Store(family.path)
    assert [again.load(f"amour.v{n}") for n in (1, 2)] == [vector(1), vector(5)]
    whole(again)


def test_a_vector_that_is_half_removed_from_its_file_is_forgotten_all_the_same(store, monkeypatch):
    store.save_many([(f"n{i}", vector(i)) for i in range(3)])
    killed_after(monkeypatch, "commit", lambda: store.remove("n1"))
    assert store.names() == ["n0", "n2"]
    store.tag("n0", add=["x"])
    whole(store)
    (store.path / "registry.db").unlink()
    assert Store(store.path).names() == ["n0", "n2"]


def family_path(store, ref):
    digest = store.record(ref).digest
    return f"payloads/{digest[:2]}/{digest}.safetensors"


WRITER = """
import sys
from steerlab.registry import Store
from tests.registry.samples import vector
store = Store(sys.argv[1])
first, count = int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    saved = store.save("love", vector(number))
    print(saved.ref, saved.digest, flush=True)
"""


def writer(store: Store, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", WRITER, str(store.path), str(first), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_get_consecutive_versions(store):
    both = [writer(store, 0, 25), writer(store, 100, 25)]
    said = [line.split() for p in both for line in p.communicate(timeout=120)[0].splitlines()]
    assert [p.returncode for p in both] == [0, 0]
    assert sorted(ref for ref, _ in said) == sorted(f"love.v{n}" for n in range(1, 51))
    for ref, digest in said:
        assert store.load(ref).digest == digest
    whole(store)


def test_threads_of_one_process_too(store):
    def save():
        for number in range(5):
            store.save("love", vector(number))

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load("love").ref == "love.v20"
    whole(store)


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.031, 0.047])
def test_nothing_acknowledged_dies_with_its_writer(store, delay):
    process = writer(store, 0, 10_000)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    acknowledged = [line.split() for line in said if len(line.split()) == 2]
    for ref, digest in acknowledged:
        if len(digest) == 64:  # the last line may be cut
            assert store.load(ref).digest == digest
    assert store.verify() == []
    assert store.save("after", vector(5)).ref == "after.v1"
    store.upkeep.gc(dry_run=False, grace=timedelta(0))
    whole(store)
    kept = {s.ref for s in store.list(every_version=True)}
    for file in store.path.glob("registry.db*"):
        file.unlink()
    assert {s.ref for s in Store(store.path).list(every_version=True)} == kept


def test_readers_do_not_wait_for_a_writer(family):
    quick = Store(family.path, timeout=0.2)
    with family._database.writing():
        assert len(quick.list()) == 4
        assert quick.load("love") == vector(1)
        with pytest.raises(StoreError, match="another steerlab process has been writing to"):
            quick.save("x", vector())
    assert quick.save("x", vector()).ref == "x.v1"


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_a_change_is_one_transaction(family, error):
    noted = text("INSERT INTO tag SELECT id, 'a' FROM vector WHERE name = 'love'")
    caught = pytest.raises(error) if error else contextlib.nullcontext()
    with caught, family._database.writing() as work:
        work.connection.execute(noted)
        assert family.record("love").tags == ("feeling",)  # others see none of it yet
        with contextlib.closing(sqlite3.connect(family.path / "registry.db")) as other:
            other.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        if error:
            raise error
    assert work.connection.closed
    assert family.record("love").tags == (("feeling",) if error else ("a", "feeling"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_statement_ends_as_what_it_is(family, monkeypatch, error):
    """SQLAlchemy closes the connection that it was on."""
    real, left = DefaultDialect.do_execute, [1]

    def interrupted(self, *arguments, **options):
        if not left:
            raise error
        left.pop()
        return real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(DefaultDialect, "do_execute", interrupted)
        with pytest.raises(error):
            family.tag("love", ["x"])
    assert family.record("love").tags == ("feeling",)
    assert family.tag("love", ["x"]).tags == ("feeling", "x")


def meanwhile(monkeypatch, module, name, action):
    """The next call of a function comes after what another process does."""
    real = getattr(module, name)

    def late(*arguments, **options):
        monkeypatch.setattr(module, name, real)
        action()
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, late)


def removed_for_good(store, ref):
    store.remove(ref)
    store.upkeep.gc(dry_run=False, grace=timedelta(0))


def test_what_is_removed_while_it_is_loaded_was_never_there(family, monkeypatch):
    """Not a payload that is missing and to be restored."""
    other = Store(family.path)
    meanwhile(monkeypatch, files, "load", lambda: removed_for_good(other, "deep"))
    with pytest.raises(NotFound, match="no vector"):
        family.load("deep")
    other.save_many([("n1", vector(11)), ("n2", vector(12))])
    meanwhile(monkeypatch, files, "load", lambda: other.remove("n1"))
    assert family.load("n1") == vector(11)  # its numbers are still in the file
    with pytest.raises(NotFound, match="no vector"):
        family.load("n1")


def test_what_is_replaced_while_it_is_loaded_is_the_new_one(family, monkeypatch):
    other = Store(family.path)

    def replace():
        removed_for_good(other, "deep")
        other.save("deep", vector(77))

    meanwhile(monkeypatch, files, "load", replace)
    assert family.load("deep") == vector(77)


def test_verify_finds_nothing_wrong_with_what_others_change_meanwhile(family, monkeypatch):
    other = Store(family.path)

    def change():
        other.tag("love", add=["x"])
        other.remove("deep")

    meanwhile(monkeypatch, files, "load", change)
    assert family.verify() == []


def test_verify_still_finds_what_is_wrong_while_others_write(family, monkeypatch):
    other = Store(family.path)
    file = family.path / family_path(family, "anger")
    file.write_bytes(file.read_bytes()[:-1])
    meanwhile(monkeypatch, files, "load", lambda: other.tag("love", add=["x"]))
    assert {f.ref for f in family.verify()} == {"tiny_1.anger.v1", "tiny_1.warm.v1"}


def test_a_rebuild_under_a_reader(family):
    """Reading goes on while the registry is replaced again and again."""
    errors = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            try:
                assert len(Store(family.path).list()) == 4
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(stop.set)
        for _ in range(10):
            family.upkeep.rebuild()
    assert errors == []
