"""Files written whole or not at all, which outlive a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from steerlab.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of the names of unfinished files."""


def write(path: Path, data: bytes) -> None:
    """Write a file atomically and durably, as `writing` does."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once the block ends: a reader sees all of it or nothing of it.

    Temporary file in the same directory, flush, fsync, rename, fsync of the directory.
    Raises StoreError when the disk is full or the directory read-only; no part is left then, nor
    after an error in the block.
    """
    with _temporary(path) as temporary:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def writing_directory(path: Path) -> Iterator[Path]:
    """A directory to write files into, which is there under its name once the block ends.

    As `writing`: all of it or nothing, and every file synced. Raises StoreError if something has
    the name already.
    """
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        for place in (*temporary.rglob("*"), temporary):
            sync(place)
        if path.exists():
            raise StoreError(f"{path} exists: write to another name, or delete it first")
        temporary.rename(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside a path, for what the block writes and moves there; syncs their directory.

    On an error, what has the name is deleted; an OSError becomes a StoreError.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        make_directory(path.parent)
        yield temporary
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # is_dir too: of a closed directory, or a name too long
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"can't write {path}: {error.strerror or error}") from None
        raise


def link(source: Path, path: Path) -> bool:
    """Link a durable file to a second path, atomically and durably, replacing what is there.

    Returns False if the file system has no links.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        os.link(source, temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return False
    return True


def make_directory(path: Path) -> None:
    """Create a directory durably: its entry in the parent is synced too."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
