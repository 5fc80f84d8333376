"""The lock that writers of a store take in turn, between processes and threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from steerlab.errors import StoreError
from steerlab.files.durable import make_directory
from steerlab.registry.sqlite_errors import NO_LOCKS, lockless, reason


@contextlib.contextmanager
def write_lock(directory: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of a store, whose directory is made if it is missing; raises StoreError.

    timeout: seconds to wait for another writer.
    """
    from filelock import FileLock, Timeout

    try:
        make_directory(directory)
        lock = FileLock(
            directory / ".lock",
            timeout=timeout,
            poll_interval=0.002,  # with a longer one, a waiting writer starves among many
            fallback_to_soft=False,  # a file called lock keeps nobody out after a crash
        )
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"another steerlab process has been writing to {directory} for "
            f"{timeout:.0f} seconds: wait until it is done, or stop it"
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise lockless(directory) from None
        raise StoreError(f"can't write to the store {directory}: {reason(error)}") from None
    try:
        yield
    finally:
        lock.release()
