"""Errors of SQLite and the operating system as StoreErrors of one line."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from steerlab.errors import StoreError

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_UNREADABLE = (
    "Could not decode",
    "no such",
    "unknown function",
    "malformed",
    "mismatch",
    "has no column",
)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_READ_ONLY = ("SQLITE_READONLY", "SQLITE_PERM")


class Newer(StoreError):
    """A store that a newer program wrote."""


class Damaged(StoreError):
    """A registry that can't be read; a rebuild restores it."""


@contextlib.contextmanager
def one_line_errors(directory: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system raise into a StoreError of one line."""
    try:
        yield
    except DBAPIError as error:
        original = error.orig if isinstance(error.orig, Exception) else error
        raise _explained(original, directory) from error
    except (sqlite3.Error, UnicodeEncodeError, OverflowError, OSError) as error:
        raise _explained(error, directory) from error


def reason(error: BaseException) -> str:
    """The text of an operating system's error, without its number."""
    return str(getattr(error, "strerror", None) or error)


def tells_damage(error: Exception) -> bool:
    """Whether an error means damaged data, rather than a lock, a full disk and so on.

    error: SQLite's, or SQLAlchemy's about it.
    """
    error = getattr(error, "orig", None) or error
    code = str(getattr(error, "sqlite_errorname", ""))
    return code.startswith(_DAMAGED) or any(words in str(error) for words in _UNREADABLE)


def _explained(error: Exception, directory: Path) -> StoreError:
    code = str(getattr(error, "sqlite_errorname", ""))
    if tells_damage(error):
        return damaged(directory)
    if code.startswith(_READ_ONLY):
        return StoreError(f"can't write to the store {directory}: it is read-only")
    if code.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"can't open the registry of {directory}: check who may read it")
    if code.startswith("SQLITE_FULL"):
        return StoreError(f"the disk of the store {directory} is full: nothing was changed")
    if code.startswith(("SQLITE_BUSY", "SQLITE_IOERR_LOCK")) and not _has_locks(directory):
        return lockless(directory)
    if code.startswith("SQLITE_BUSY"):
        return StoreError(f"another program is using the registry of {directory}: try again")
    if isinstance(error, UnicodeEncodeError):
        return StoreError(f"can't store text that is not Unicode: {error.object[:40]!r}")
    if isinstance(error, OverflowError):
        return StoreError("a number is too large: a store holds integers up to 2**63 - 1")
    return StoreError(f"the store {directory} can't be used: {reason(error)}")


def damaged(directory: Path) -> Damaged:
    """The error for a damaged registry."""
    return Damaged(
        f"the registry of {directory} is damaged; nothing is lost, the vectors are in its "
        "payloads: run `steerlab rebuild`"
    )


def lockless(directory: Path) -> StoreError:
    return StoreError(
        f"can't use the store {directory}: its file system has no locks to keep two writers apart; "
        "keep it on a local disk"
    )


def _has_locks(directory: Path) -> bool:
    """Whether the file system supports SQLite's locks, tested on the store's lock file."""
    try:
        import fcntl

        with open(directory / ".lock", "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    except ImportError:  # Windows, whose file systems all have them
        return True
    return True
