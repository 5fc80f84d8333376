"""Stores of earlier revisions: their vectors are read from payloads, their other rows are copied.

Payloads of 0001 to 0006 held the labels, those of 0100 held none. Until 0100 rows spread a story
over tables.
"""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, text

from steerlab.core.record import Labels
from steerlab.errors import SteerlabError
from steerlab.files import payload
from steerlab.registry import labels, registry_only, text_index
from steerlab.registry.rebuild import Rebuilt, insert, usable
from steerlab.registry.rows import Placed
from steerlab.registry.tables import REGISTRY_ONLY

_log = logging.getLogger("steerlab.registry")

Row = dict[str, Any]


def bring_over(
    connection: Connection, directory: Path, create: Callable[[Connection], object]
) -> None:
    """Convert a registry to the current schema, inside the caller's transaction.

    Records are read from payloads, labels are taken from the old rows, and tables that no payload
    can restore are copied. create: makes the tables. Raises what reading them raises.
    """
    vectors = [dict(row) for row in connection.execute(text("SELECT * FROM vector")).mappings()]
    for vector in vectors:
        vector["tags"] = []
    by_id = {vector["id"]: vector for vector in vectors}
    for tag in _rows(connection, "tag"):
        if tag["vector_id"] in by_id:
            by_id[tag["vector_id"]]["tags"].append(tag["tag"])
    kept = {table.name: _rows(connection, table.name) for table in REGISTRY_ONLY}
    text_index.drop(connection)
    old = MetaData()
    old.reflect(connection)
    old.drop_all(connection)
    create(connection)
    done = Rebuilt()
    insert(connection, _placed(directory, vectors, done), done, {})
    registry_only.bring_back(connection, kept)
    labels.mend(directory, done.wanted, done.initial)
    for skipped in done.skipped:
        _log.warning("left out: %s", skipped)
    shutil.rmtree(directory / ".undo", ignore_errors=True)  # unfinished changes of their writers


def _rows(connection: Connection, table: str) -> list[Row]:
    """The rows of a table; empty if the earlier schema has no such table."""
    known = connection.execute(
        text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"), {"name": table}
    )
    if known.first() is None:
        return []
    return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]


def _placed(directory: Path, vectors: Sequence[Row], done: Rebuilt) -> Iterator[Placed]:
    by_path: dict[str, list[Row]] = defaultdict(list)
    for vector in vectors:
        by_path[vector["path"]].append(vector)
    for path, together in by_path.items():
        try:
            records = payload.read_records(directory / path)
        except SteerlabError as error:
            done.skipped.append(str(error))
            continue
        for vector in together:
            digest = vector["digest"]
            keys = (k for k, r in records.items() if r.digest == digest)  # a writer may have died
            key = vector["key"] if vector["key"] in records else next(keys, None)
            if key is None or records[key].digest != digest:
                done.skipped.append(f"{path} holds no {vector['name']}.v{vector['version']}")
                continue
            try:
                record = usable(records[key], path)
            except SteerlabError as error:
                done.skipped.append(str(error))
                continue
            tags = tuple(sorted(vector["tags"]))
            own = Labels(vector["name"], vector["version"], tags, vector["note"])
            if record.name:
                done.initial[record.story] = record.labels
            yield Placed(record.labelled(own), path, key, vector.get("edits", 0))
