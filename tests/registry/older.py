"""Stores as earlier versions of the program left them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine, text

from steerlab.registry import Store, migrations


def older(store: Store, directory: Path, revision: str) -> Store:
    """A copy of a store in the schema of a revision, with the rows that it has tables for."""
    shutil.copytree(store.path, directory)
    file, rows = directory / "registry.db", directory / "rows.db"
    engine = create_engine(f"sqlite:///{rows}")
    with engine.connect() as connection, connection.begin():
        migrations.upgrade(connection, revision)
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type='table'"))
        names = [n for (n,) in tables if not n.startswith(("sqlite", "alembic"))]
    engine.dispose()
    with closing(sqlite3.connect(rows)) as raw, raw:
        raw.execute("ATTACH ? AS old", (str(file),))
        for name in names:
            columns = ", ".join(row[1] for row in raw.execute(f"PRAGMA main.table_info({name})"))
            raw.execute(f"INSERT INTO main.{name} ({columns}) SELECT {columns} FROM old.{name}")
    rows.replace(file)
    return Store(directory)
