"""doctor and du."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from steerlab.cli import ExitCode
from steerlab.registry import Store
from steerlab.registry.upkeep import doctor
from steerlab.registry.upkeep.doctor import Problem
from steerlab.registry.upkeep.upkeep import Upkeep
from tests.cli.test_upkeep import lose_row, payload_of


def break_registry(store):
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    for rest in store.path.glob("registry.db-*"):
        rest.unlink()


def test_a_whole_store_is_well(cli, store):
    result = cli("doctor")
    assert (result.code, result.out) == (ExitCode.OK, "")
    assert result.err == f"no problems found in {store.path}\n"
    assert cli("doctor", "--json").data == []


def test_a_missing_payload(cli, store):
    payload_of(store, "love").unlink()
    result = cli("doctor")
    assert result.code == ExitCode.FAILED
    assert "wrong: the payload file is missing" in result.out
    assert "   of: tiny.love.v1\n" in result.out
    assert "steerlab restore" in result.out
    assert "an operand is missing" in result.out  # warm


def test_at_a_glance_nothing_is_verified(cli, store):
    payload_of(store, "love").unlink()
    result = cli("doctor", "--quick")
    assert (result.code, result.out) == (ExitCode.OK, "")
    assert result.err == f"no problems found in {store.path} (payloads were not read)\n"
    break_registry(store)
    broken = cli("doctor", "--quick")
    assert broken.code == ExitCode.FAILED
    assert "do: steerlab rebuild" in broken.out


def test_a_store_that_goes_while_it_is_looked_at_is_a_line(cli, store, monkeypatch):
    monkeypatch.setattr(doctor, "_waste", lambda path, gc: shutil.disk_usage(path / "gone"))
    result = cli("doctor")
    assert result.code == ExitCode.FAILED
    assert "No such file" in result.out


def test_an_altered_payload(cli, store):
    path = payload_of(store, "love")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80\x3f")
    result = cli("doctor")
    assert result.code == ExitCode.FAILED
    assert "altered or cut short" in result.out
    assert "steerlab remove REF" in result.out


def test_a_broken_registry_and_the_cure(cli, store):
    break_registry(store)
    result = cli("doctor")
    assert result.code == ExitCode.FAILED
    assert "the registry of" in result.out
    assert "do: steerlab rebuild" in result.out
    assert cli("rebuild").code == ExitCode.OK
    well = cli("doctor")
    assert well.code == ExitCode.OK
    assert "note:  1 old registry file," in well.out
    assert well.out.startswith("note:")


def test_what_to_type_names_the_store_that_was_named(cli, store, tmp_path):
    store.path.rename(tmp_path / "another place")
    break_registry(Store(tmp_path / "another place"))
    result = cli("doctor", "--store", "another place")
    assert "do: steerlab rebuild --store 'another place'\n" in result.out


def test_a_missing_registry_is_made_anew_and_told(cli, store):
    for file in store.path.glob("registry.db*"):
        file.unlink()
    result = cli("doctor")
    assert result.code == ExitCode.OK
    assert "registry.db was missing" in result.out


def test_garbage_is_a_note(cli, store, monkeypatch):
    (store.path / "payloads" / ".tmp-0123").write_bytes(b"half a payload")
    gc = Upkeep.gc
    monkeypatch.setattr(Upkeep, "gc", lambda self, **_: gc(self, grace=timedelta(0)))
    result = cli("doctor")
    assert result.code == ExitCode.OK
    assert "1 file that no vector needs" in result.out
    assert "do: steerlab gc --delete" in result.out


@pytest.mark.parametrize("there", [True, False], ids=["beside a store", "where none is yet"])
def test_what_a_killed_restore_or_backup_left_beside_the_store(cli, store, tmp_path, there):
    left = [".tmp-0123456789abcdef", f".tmp-{store.path.name}-fedcba9876543210"]
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "registry.db").write_bytes(bytes(1_500_000))
    (tmp_path / ".tmp-of-another-program").mkdir()
    if there:
        (tmp_path / f".tmp-{store.path.name}.restored").mkdir()
        left.append(f".tmp-{store.path.name}.restored")
    else:
        shutil.rmtree(store.path)
    result = cli("doctor")
    assert result.code == ExitCode.OK
    assert "backup or restore beside the store, 3.0 MB" in result.out
    command = result.out.partition("unless one is running: ")[2].splitlines()[0]
    assert command == shlex.join(["rm", "-r", *(str(tmp_path / name) for name in left)])
    subprocess.run(shlex.split(command), check=True)
    assert "beside the store" not in cli("doctor").out


def test_vectors_that_the_registry_lost_are_no_garbage(cli, store):
    """A payload without a row, as a crash leaves it, or a damaged log of the registry."""
    lose_row(store, "front")
    result = cli("doctor")
    assert result.code == ExitCode.OK
    assert "vectors that the registry does not know" in result.out
    assert "   of: tiny.front.v1\n" in result.out
    assert "steerlab rebuild restores them" in result.out
    assert "tiny.front.v1" in cli("gc", "--grace", "0").out
    assert cli("rebuild").out.startswith("4 vectors restored")
    assert store.load("front")


def test_a_payload_that_a_rebuild_left_out_is_named(cli, store):
    path = payload_of(store, "front")
    path.write_bytes(b"x")
    assert cli("rebuild").out.startswith("3 vectors restored")
    result = cli("doctor")
    assert result.code == ExitCode.OK
    assert "can't be read, and the registry does not know them" in result.out
    assert f"   of: {path.relative_to(store.path)}\n" in result.out
    assert "bring them back from a backup, then steerlab rebuild" in result.out


def test_a_full_disk_is_wrong(cli, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10))
    result = cli("doctor")
    assert result.code == ExitCode.FAILED
    assert "the disk has 0 MB left" in result.out


def test_no_store_yet(cli, tmp_path):
    result = cli("doctor", "--store", tmp_path / "none")
    assert result.code == ExitCode.OK
    assert "there is no store here yet" in result.out


def test_a_newer_store_is_explained(cli, store):
    with closing(sqlite3.connect(store.path / "registry.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    newer = cli("doctor")
    assert newer.code == ExitCode.FAILED
    assert "newer steerlab" in newer.out
    assert "do: upgrade steerlab" in newer.out


def files(store):
    return sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file())


@pytest.mark.parametrize("by", ["model", "kind", "vector"])
def test_what_takes_how_much(cli, store, by):
    store.save("love", 2 * store.load("love"))
    rows = [row.split() for row in cli("du", "--by", by).out.splitlines()]
    assert rows[0] == [by, "versions", "bytes"]
    first = {"model": "tiny", "kind": "contrast", "vector": "tiny.love"}[by]
    assert first in [row[0] for row in rows]
    numbers = [int(row[-1].replace(",", "")) for row in rows[1:]]
    assert sum(numbers[:-1]) == numbers[-1] == files(store)


def test_shares_of_one_file_add_up(store):
    store.save_many([(f"n{i}", (i + 1) * store.load("love")) for i in range(7)])
    usage = store.upkeep.usage()
    assert usage.total == files(store)
    assert len(usage.vectors) == 11
    assert usage.to_json()["total"] == usage.total


def test_the_largest_only(cli):
    rows = cli("du", "--by", "vector", "--limit", "1").out.splitlines()
    assert rows[2].split()[:2] == ["3", "more"]


def test_a_command_names_the_store_and_no_path_in_it_is_taken_for_one():
    problem = Problem("", "steerlab rebuild takes them in; or steerlab gc --delete")
    named = problem.with_store(Path("/a b")).fix
    assert named == (
        "steerlab rebuild --store '/a b' takes them in; or steerlab gc --store '/a b' --delete"
    )
    rm = "rm -r '/tmp/steerlab gc/.tmp-0' '/tmp/my steerlab data/.tmp-0'"
    assert Problem("", rm).with_store(Path("/a b")).fix == rm
