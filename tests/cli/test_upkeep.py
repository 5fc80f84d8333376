"""verify, rebuild and gc."""

from __future__ import annotations

import shutil
import time

from steerlab.cli import ExitCode


def payload_of(store, ref):
    return next((store.path / "payloads").rglob(f"{store.record(ref).digest}.safetensors"))


def test_verify_finds_nothing_in_a_whole_store(cli):
    result = cli("verify")
    assert (result.code, result.out) == (ExitCode.OK, "")
    assert result.err == "4 vectors verified, nothing is wrong\n"
    assert cli("verify", "-q").err == ""
    assert cli("verify", "--json").data == []


def test_verify_finds_an_altered_payload(cli, store):
    path = payload_of(store, "love")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80\x3f")
    result = cli("verify")
    assert result.code == ExitCode.FAILED
    assert result.out.splitlines()[0].split() == ["vector", "problem"]
    assert "tiny.love.v1" in result.out
    assert cli("verify", "--json").code == ExitCode.FAILED


def test_an_altered_or_cut_payload_is_never_used(refused, store):
    path = payload_of(store, "love")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\x80\x3f")
    assert "love" in refused(ExitCode.STORE, "compose", "2*love")
    path.write_bytes(whole[: len(whole) // 2])
    refused(ExitCode.STORE, "compose", "2*love")
    path.write_bytes(whole[:4])
    refused(ExitCode.STORE, "generate", "hi", "-v", "love")
    path.unlink()
    assert "missing" in refused(ExitCode.NOT_FOUND, "compose", "2*love")


def test_rebuild_brings_back_a_lost_or_broken_registry(cli, store):
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    for rest in store.path.glob("registry.db-*"):
        rest.unlink()
    result = cli("rebuild")
    assert result.code == ExitCode.OK, result.err
    assert result.out.startswith("4 vectors restored from the payloads of")
    assert cli("verify").code == ExitCode.OK


def test_a_broken_registry_is_one_line(cli, store):
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    for rest in store.path.glob("registry.db-*"):
        rest.unlink()
    result = cli("list")
    assert result.code == ExitCode.STORE
    assert result.err.count("\n") == 1
    assert "rebuild" in result.err


def test_gc_lists_then_deletes(cli, store):
    assert cli("gc").err == "nothing to delete\n"
    path = payload_of(store, "front")
    kept = path.read_bytes()
    store.remove("front")
    path.write_bytes(kept)  # as a crash between file and row would leave it
    assert cli("gc").err == "nothing to delete\n"  # too young
    time.sleep(0.01)
    listed = cli("gc", "--grace", "0")
    assert path.name in listed.out
    assert listed.err == "1 file would be deleted (--delete does it)\n"
    assert path.exists()
    assert cli("gc", "--grace", "0", "--delete").err == "1 file deleted\n"
    assert not path.exists()
    assert cli("verify").code == ExitCode.OK


def test_a_moved_store_is_the_same(cli, store, tmp_path):
    shutil.move(store.path, tmp_path / "elsewhere")
    assert cli("verify", "--store", tmp_path / "elsewhere").code == ExitCode.OK
