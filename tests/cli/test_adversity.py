"""Disks that are full, stores nobody may write to, rivals, newer versions, closed pipes."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from steerlab.cli import ExitCode
from steerlab.registry import Store

WRITES = [
    ["compose", "love - anger"],
    ["tag", "love", "x"],
    ["note", "love", "x"],
    ["rename", "love", "amour"],
    ["remove", "front"],
]


@pytest.mark.parametrize("arguments", [*WRITES[:3], ["extract"]], ids=lambda a: a[0])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_changes_nothing(refused, monkeypatch, model_dir, arguments, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if arguments == ["extract"]:
        pair = ["--positive", "a b", "--negative", "b a"]
        arguments = ["extract", "x", *pair, "--model", str(model_dir)]
    monkeypatch.setattr(os, call, full)
    if call == "replace" and arguments[0] != "tag":
        monkeypatch.setattr(os, "rename", full)
        monkeypatch.setattr(os, "link", full)
    assert "No space left on device" in refused(ExitCode.STORE, *arguments)


@pytest.mark.parametrize("arguments", WRITES, ids=lambda a: a[0])
def test_a_store_nobody_may_write_to(refused, monkeypatch, arguments):
    real = os.open

    def denied(path, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", denied)
    line = refused(ExitCode.STORE, *arguments)
    assert "can't write to the store" in line


@pytest.mark.parametrize("arguments", WRITES, ids=lambda a: a[0])
def test_a_rival_that_keeps_the_lock(refused, store, monkeypatch, arguments):
    monkeypatch.setitem(Store.__init__.__kwdefaults__, "timeout", 0.1)
    with open(store.path / ".lock", "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refused(ExitCode.STORE, *arguments)
    assert "another steerlab process has been writing" in line


def test_two_writers_at_once_both_succeed(store):
    command = [sys.executable, "-m", "steerlab", "compose", "love - anger", "--as"]
    rivals = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True, env=os.environ)
        for name in ("same", "same", "mine", "yours")
    ]
    printed = [rival.communicate(timeout=60)[0] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0] * 4
    assert all("stored)" in text for text in printed)
    assert {"same", "mine", "yours"} <= {*store.names()}
    assert store.verify() == []


def test_a_store_of_a_newer_version(cli, store):
    with closing(sqlite3.connect(store.path / "registry.db")) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
        connection.commit()
    for arguments in (["list"], *WRITES):
        result = cli(*arguments)
        assert result.code == ExitCode.STORE
        assert result.err.count("\n") == 1
        assert "newer" in result.err


def test_a_store_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    line = refused(ExitCode.USAGE, "list", "--store", tmp_path / "file")
    assert "is a file" in line


def test_a_full_disk_behind_stdout_is_one_line(store):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "steerlab", "list"], stdout=full, stderr=subprocess.PIPE,
            text=True, env=os.environ, check=False,
        )  # fmt: skip
    assert result.returncode == ExitCode.FAILED
    assert result.stderr == "steerlab: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_error(store):
    command = f"{sys.executable} -m steerlab list --json | head -c 1"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=os.environ, check=True
    )
    assert (result.stdout, result.stderr) == ("[", "")


def test_a_bug_is_one_line_that_says_so(cli, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a\nb")

    monkeypatch.setattr(Store, "list", broken)
    result = cli("list")
    assert result.code == ExitCode.INTERNAL
    assert result.err.count("\n") == 1
    assert "internal error, RuntimeError: a b (this is a bug" in result.err
    monkeypatch.setenv("STEERLAB_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli("list")
