"""Which schema a registry has: newer, older or this program's own."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from steerlab.registry.sqlite_errors import Newer, damaged

EARLIER = frozenset(f"{n:04}" for n in (*range(1, 7), *range(100, 105)))
"""The schemas of stores that are brought over rather than migrated."""

HEAD = "0105"
"""The schema this program writes; revisions are four digits, so that newer and older compare."""


def version_of(connection: sqlite3.Connection, directory: Path) -> str:
    """The schema's revision; raises StoreError for a newer one, and unless there is exactly one."""
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchmany(2)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        found = []
    version = str(found[0][0]) if len(found) == 1 else ""
    if not re.fullmatch("[0-9]{4}", version):
        raise damaged(directory)
    if version > HEAD:
        raise Newer(
            f"the store {directory} was written by a newer steerlab (schema {version}, this one "
            f"knows {HEAD}): upgrade steerlab"
        )
    return version
