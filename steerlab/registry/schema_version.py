"""Which schema a registry has: newer, older or this program's own."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from steerlab.registry.sqlite_errors import Newer, damaged

EARLIER = frozenset({"0001", "0002", "0003", "0004", "0005", "0006", "0100"})
"""The schemas of stores that are brought over rather than migrated."""

HEAD = "0102"
"""The schema this program writes; revisions are numbers, so that newer and older compare."""


def version_of(connection: sqlite3.Connection, directory: Path) -> str:
    """The schema's revision; raises StoreError for a newer one, or none."""
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        found = None
    version = str(found[0]) if found else ""
    if not (version.isascii() and version.isdigit()):
        raise damaged(directory)
    if int(version) > int(HEAD):
        raise Newer(
            f"the store {directory} was written by a newer steerlab (schema {version}, this one "
            f"knows {HEAD}): upgrade steerlab"
        )
    return version
