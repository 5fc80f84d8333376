"""Backup and restore: a whole store as one file."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from steerlab.errors import CorruptPayload, StoreError
from steerlab.registry import Store, files
from steerlab.registry.transfer import backup
from tests.registry.samples import restored, vector


def file_of(store, ref):
    return next(store.path.glob(f"payloads/**/{store.record(ref).digest}.safetensors"))


def records(store):
    return {s.ref: store.record(s.ref) for s in store.list(every_version=True)}


def left(directory):
    return sorted(p.name for p in directory.rglob("*") if p.name.startswith(".tmp"))


def pressed(done, of):
    raise KeyboardInterrupt


def unpacked(file, place):
    place.mkdir()
    subprocess.run(["tar", "xf", file, "-C", place], check=True)
    return place


def test_a_backup_comes_back_as_it_was(family, tmp_path):
    family.tag("love", add=["new"])
    seen = []
    made = family.transfer.backup(tmp_path / "b.tar", progress=lambda *a: seen.append(a))
    assert (made.payloads, made.damaged) == (4, ())
    assert seen == [(n, 5) for n in range(1, 6)]  # four payloads and a label file
    before = records(family)
    family.save("later", vector(40))
    copy = Store(tmp_path / "copy")
    assert copy.transfer.restore(made.path) is None
    assert copy.verify() == []
    assert records(copy) == before
    assert copy.save("other", vector(41)).ref == "other.v1"
    assert left(tmp_path) == []


def test_nothing_is_overwritten_unless_told(family, tmp_path):
    made = family.transfer.backup(tmp_path / "b.tar")
    with pytest.raises(StoreError, match="exists"):
        family.transfer.backup(made.path)
    family.remove("deep")
    assert family.transfer.backup(made.path, force=True).payloads == 4  # it may be brought back
    family.upkeep.gc(dry_run=False, grace=timedelta(0))
    assert family.transfer.backup(made.path, force=True).payloads == 3


@pytest.mark.parametrize("name", ["registry.db", "payloads/b.tar", "labels/b.tar", ".lock", "link"])
def test_no_backup_or_export_takes_the_place_of_the_stores_own_files(family, name):
    """By force neither: the runs in registry.db are nowhere else."""
    (family.path / "link").symlink_to("registry.db")
    for write in (family.transfer.backup, partial(family.transfer.export, "love")):
        with pytest.raises(StoreError, match="where the store keeps its files: choose another"):
            write(family.path / name, force=True)
    assert family.verify() == []
    assert family.transfer.backup(family.path / "beside.tar").payloads == 4


def test_a_dated_name_is_proposed_beside_the_store_and_a_way_back(family, tmp_path):
    first = backup.proposal(family.path)
    assert re.fullmatch(r"store-\d{4}-\d\d-\d\d\.tar", first.name)
    assert first.parent == tmp_path.resolve()
    made = family.transfer.backup(first)
    second, third = first.with_name(f"{first.stem}-2.tar"), first.with_name(f"{first.stem}-3.tar")
    assert backup.proposal(family.path) == second
    second.symlink_to("nowhere")
    assert backup.proposal(family.path) == third
    assert made.way_back == shlex.join(["steerlab", "restore", str(first)])


def test_a_home_that_nobody_has_is_no_crash(family, tmp_path, monkeypatch):
    """It is taken as typed, as a shell takes it."""
    monkeypatch.chdir(tmp_path)
    assert family.transfer.backup("~nobody_knows/b.tar").path == Path("~nobody_knows/b.tar")
    assert Store("~nobody_knows").path == tmp_path / "~nobody_knows"


def test_there_must_be_something_to_back_up(store, tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        store.transfer.backup(tmp_path / "copy.tar")


def test_a_backup_that_fails_or_is_cancelled_leaves_nothing(family, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        family.transfer.backup(tmp_path / "b.tar", progress=pressed)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            family.transfer.backup(tmp_path / "b.tar")
    assert [p.name for p in tmp_path.iterdir() if p.name != "store"] == []
    assert left(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_writers_go_on_while_it_is_made(family, tmp_path, monkeypatch, links):
    """What they change meanwhile is not in it: it is the store of one moment."""

    def none(*arguments):
        raise OSError(1, "Operation not permitted")

    if not links:  # a file system that has none: then they have to wait
        monkeypatch.setattr("os.link", none)
    before = records(family)
    other = Store(family.path, timeout=0.1)
    waited = []

    def write(done, of):
        if done == 1:
            try:
                other.tag("love", add=["later"])
                other.remove("deep")
                other.save("new", vector(40))
            except StoreError:
                waited.append(True)

    made = family.transfer.backup(tmp_path / "b.tar", progress=write)
    assert waited == ([] if links else [True])
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(made.path)
    assert made.damaged == ()
    assert records(copy) == before
    assert copy.verify() == []


def test_damage_is_said_and_all_else_is_saved(family, tmp_path):
    file_of(family, "love").write_bytes(b"junk")
    missing = file_of(family, "anger")
    missing.unlink()
    made = family.transfer.backup(tmp_path / "b.tar")
    gone, broken = made.damaged
    assert gone == f"{missing.relative_to(family.path)} is missing"
    assert re.fullmatch(r"payloads/\S+ is not a whole safetensors file.*", broken)
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(made.path)
    assert copy.load("deep") == family.load("deep")
    assert {f.ref for f in copy.verify()} == {f.ref for f in family.verify()}


@pytest.mark.parametrize("first", [0, 3])
def test_a_damaged_registry_is_said_too(family, tmp_path, first):
    registry = family.path / "registry.db"
    data = bytearray(registry.read_bytes())
    data[4096 * first : 4096 * (first + 4)] = b"\x55" * 4096 * 4
    registry.write_bytes(data)
    made = family.transfer.backup(tmp_path / "b.tar")
    assert "registry.db is damaged" in made.damaged
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(made.path)
    assert copy.upkeep.rebuild() == 4
    assert copy.verify() == []


def test_a_backup_that_is_not_whole_is_refused_before_anything_changes(family, tmp_path):
    made = family.transfer.backup(tmp_path / "b.tar")
    data = made.path.read_bytes()
    before = records(family)
    for broken in (data[: len(data) // 2], data.replace(b"love", b"lave", 1), data[:-3000]):
        made.path.write_bytes(broken)
        with pytest.raises(CorruptPayload):
            family.transfer.restore(made.path, force=True)
        with pytest.raises(CorruptPayload):
            Store(tmp_path / "new").transfer.restore(made.path)
    assert records(family) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "store"]


def test_a_cancelled_restore_leaves_nothing(family, tmp_path):
    made = family.transfer.backup(tmp_path / "b.tar")
    with pytest.raises(KeyboardInterrupt):
        family.transfer.restore(made.path, force=True, progress=pressed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "store"]
    assert len(family.list()) == 4


def test_a_backup_of_a_newer_steerlab_is_refused(family, tmp_path, monkeypatch):
    made = family.transfer.backup(tmp_path / "b.tar")
    monkeypatch.setattr("steerlab.registry.schema_version.HEAD", "0001")
    with pytest.raises(StoreError, match="newer steerlab"):
        Store(tmp_path / "new").transfer.restore(made.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "store"]


def test_an_unpacked_backup_is_a_store_and_can_be_restored(family, tmp_path):
    place = unpacked(family.transfer.backup(tmp_path / "b.tar").path, tmp_path / "unpacked")
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(place)
    assert records(copy) == records(family) == records(Store(place))
    assert copy.verify() == []


def test_payloads_alone_are_enough(family, tmp_path):
    """An export has no registry.db. What is restored stays as it is."""
    file = family.transfer.export(family.list(), tmp_path / "x.tar")
    place = unpacked(file, tmp_path / "unpacked")
    for number, source in enumerate((file, place)):
        copy = Store(tmp_path / f"copy{number}")
        copy.transfer.restore(source)
        assert records(copy) == records(family)
    assert not (place / "registry.db").exists()


def test_what_a_killed_backup_held_on_to_is_garbage(family, tmp_path):
    links = family.path / f"{files.LINKS}0123"
    backup._linked([("x", file_of(family, "love"))], links)
    assert family.upkeep.gc() == []
    (found,) = family.upkeep.gc(dry_run=False, grace=timedelta(0))
    assert (found.path, found.size) == (links.name, 0)
    assert not links.exists()
    assert family.verify() == []
    assert restored(family, tmp_path).verify() == []


def test_a_look_at_what_a_backup_left_does_not_make_it_young(family):
    """It was killed before it held on to anything."""
    links = family.path / f"{files.LINKS}0123"
    links.mkdir()
    os.utime(links, (0, 0))
    for dry_run in (True, True, False):
        assert [found.path for found in family.upkeep.gc(dry_run)] == [links.name]
    assert not links.exists()


def test_no_garbage_collector_takes_the_links_of_a_backup_that_goes_on(family, tmp_path):
    other = Store(family.path)

    def collect(done, total):
        assert other.upkeep.gc(dry_run=False, grace=timedelta(0)) == []

    family.transfer.backup(tmp_path / "copy.tar", progress=collect)
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(tmp_path / "copy.tar")
    assert copy.verify() == []
    assert len(copy.list()) == 4


def test_odd_files_among_the_payloads_make_no_backup_impossible(family, tmp_path):
    love = file_of(family, "love")
    love.with_name(f"._{love.name}").write_bytes(b"what a Mac leaves")
    love.with_name("a\\b.safetensors").write_bytes(b"x")
    love.with_name("pipe.safetensors").mkdir()
    love.with_name("nowhere.safetensors").symlink_to("gone")
    made = family.transfer.backup(tmp_path / "b.tar")
    assert made.payloads == 4
    assert [re.sub(".*/", "", line) for line in made.damaged] == [
        "a\\b.safetensors is left out: its name can't be in a backup",
        "nowhere.safetensors is left out: it is no file",
        "pipe.safetensors is left out: it is no file",
    ]
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(made.path)
    assert copy.verify() == []
    again = Store(tmp_path / "again")
    again.transfer.restore(family.path)
    assert records(again) == records(copy) == records(family)


def test_a_payload_that_is_a_link_is_copied(family, tmp_path):
    love = file_of(family, "love")
    love.rename(love.with_suffix(".elsewhere"))
    love.symlink_to(love.with_suffix(".elsewhere").name)
    copy = restored(family, tmp_path)
    assert copy.load("love") == family.load("love")
    assert not file_of(copy, "love").is_symlink()


def in_the_log(store):
    """Leave what is saved in the registry's log alone, as a killed writer does."""
    file = store.path / "registry.db"
    parts = [store.path / f"registry.db{suffix}" for suffix in ("", "-wal")]
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("SELECT * FROM vector").fetchall()
        store.note("love", "from the log")
        kept = [part.read_bytes() for part in parts]
    for part, data in zip(parts, kept, strict=True):
        part.write_bytes(data)


def fails(monkeypatch, code, error):
    def copy(source, target):
        error.sqlite_errorname = code
        raise error

    monkeypatch.setattr(backup, "copy_database", copy)


def test_an_obstacle_is_no_damage(family, tmp_path, monkeypatch):
    """A registry that can't be read at the moment is not copied without its log."""
    fails(monkeypatch, "SQLITE_IOERR_READ", sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(StoreError, match="disk I/O error"):
        family.transfer.backup(tmp_path / "b.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def test_of_a_damaged_registry_the_log_is_copied_too(family, tmp_path, monkeypatch):
    in_the_log(family)
    fails(monkeypatch, "SQLITE_CORRUPT", sqlite3.DatabaseError("malformed"))
    made = family.transfer.backup(tmp_path / "b.tar")
    assert made.damaged == ("registry.db is damaged",)
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(made.path)
    assert copy.record("love").note == "from the log"


def test_a_directory_is_restored_with_what_its_writer_left_half_done(family, tmp_path):
    """Killed after COMMIT, before the new label was in its place."""
    story = family.record("love").story
    label = family.path / f"labels/{story[:2]}/{story}.json"
    family.tag("love", add=["old"])
    before = label.read_bytes()
    family.tag("love", add=["new"], remove=["old"])
    (family.path / "labels/new/0123.json").write_bytes(label.read_bytes())
    label.write_bytes(before)
    (family.path / ".lock").unlink()  # nobody finishes it here
    copy = Store(tmp_path / "copy")
    copy.transfer.restore(family.path)
    assert copy.record("love").tags == ("feeling", "new")
    copy.save("calm", vector(60))
    assert copy.verify() == []
    assert list((copy.path / "labels/new").iterdir()) == []


def test_a_directory_that_is_restored_stays_as_it_is(family, tmp_path):
    place = unpacked(family.transfer.backup(tmp_path / "b.tar").path, tmp_path / "unpacked")
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    Store(tmp_path / "copy").transfer.restore(place)
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before
