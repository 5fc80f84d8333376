"""Writing a file: all of it or nothing of it, and on the disk before it returns."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from steerlab.errors import StoreError
from steerlab.files.durable import TEMPORARY_PREFIX, write, writing_directory


def test_directories_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "p"
    write(path, b"data")
    assert path.read_bytes() == b"data"
    assert os.listdir(path.parent) == ["p"]


def test_a_file_is_replaced_whole(tmp_path):
    write(tmp_path / "p", b"long old data")
    write(tmp_path / "p", b"new")
    assert (tmp_path / "p").read_bytes() == b"new"


@pytest.mark.parametrize("failing", ["fsync", "replace", "write", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, failing, code):
    write(tmp_path / "p", b"old")

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:2])
            fail()

    with monkeypatch.context() as patch:
        if failing in ("fsync", "replace"):
            patch.setattr(os, failing, fail)
        else:
            substitute = fail if failing == "open" else (lambda path, mode: Full(path, "x"))
            patch.setattr("builtins.open", substitute)
        with pytest.raises(StoreError, match=os.strerror(code)) as caught:
            write(tmp_path / "p", b"new data")
    assert str(tmp_path / "p") in str(caught.value)
    assert (tmp_path / "p").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["p"]


def test_everything_is_synced_before_it_returns(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace

    def syncing(descriptor):
        done.append("directory" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        fsync(descriptor)

    def renaming(old, new):
        assert Path(old).name.startswith(TEMPORARY_PREFIX)
        assert Path(old).parent == Path(new).parent
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", renaming)
    write(tmp_path / "p", b"data")
    assert done == ["file", "rename", "directory"]


def test_an_unsynced_directory_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "steerlab.files.durable.sync",
        lambda path: (_ for _ in ()).throw(OSError(5, "EIO")),
    )
    with pytest.raises(StoreError, match="EIO"):
        write(tmp_path / "p", b"data")
    assert (tmp_path / "p").read_bytes() == b"data"


def test_a_file_in_the_way_is_reported(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StoreError, match="can't write"):
        write(tmp_path / "a" / "p", b"data")


def test_a_directory_that_cannot_be_looked_at_is_reported(tmp_path):
    path = tmp_path / ("a" * 300) / "p"
    with pytest.raises(StoreError, match="can't write"):
        write(path, b"data")
    with pytest.raises(StoreError, match="can't write"), writing_directory(path):
        pass
