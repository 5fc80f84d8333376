"""Disk usage of a store."""

from __future__ import annotations

import contextlib
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from steerlab.registry.result_files import FOLDER
from steerlab.registry.tables import DIRECTION, MODEL, VECTOR


@dataclass(frozen=True)
class Share:
    """The bytes of one version of a vector: its share of its payload file."""

    model: str
    kind: str
    name: str
    version: int
    size: int


@dataclass(frozen=True)
class Usage:
    """Bytes of all files of a store.

    vectors: a share per stored version. registry: the database with its log, and result files.
    copies: old registries that rebuilds and migrations kept. loose: files that no vector needs.
    """

    vectors: tuple[Share, ...]
    registry: int
    copies: int
    loose: int

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(v.size for v in self.vectors) + self.registry + self.copies + self.loose

    def by(self, *fields: str) -> list[tuple[tuple[str, ...], int, int]]:
        """Versions grouped by fields of Share: (values, versions, bytes), the largest first."""
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for share in self.vectors:
            groups[tuple(str(getattr(share, field)) for field in fields)].append(share.size)
        rows = [(key, len(sizes), sum(sizes)) for key, sizes in groups.items()]
        return sorted(rows, key=lambda row: (-row[2], row[0]))

    def to_json(self) -> dict[str, Any]:
        """The usage as JSON values."""
        return {**asdict(self), "total": self.total}


def usage(connection: Connection, directory: Path) -> Usage:
    """Measure a store; the vectors of one file share its bytes by how many numbers they have."""
    files = dict(_files(directory))
    by_path: dict[str, list[Any]] = defaultdict(list)
    for row in _vectors(connection):
        by_path[row.path].append(row)
    shares: list[Share] = []
    for path, rows in by_path.items():
        shares += _shared(rows, files.pop(path, 0))
    files.pop("registry.db-shm", None)  # SQLite's shared memory, there while we look
    registry = sum(files.pop(f"registry.db{end}", 0) for end in ("", "-wal"))
    registry += sum(files.pop(path) for path in [*files] if path.startswith(f"{FOLDER}/"))
    copies = [path for path in files if path.startswith("registry.db.before-")]
    kept = sum(files.pop(path) for path in copies)
    return Usage(tuple(shares), registry, kept, sum(files.values()))


def _shared(rows: list[Any], size: int) -> Iterator[Share]:
    """Shares that add up to exactly the size of the file."""
    total = sum(row.numbers for row in rows)
    start = seen = 0
    for row in rows:
        seen += row.numbers
        end = size * seen // total
        yield Share(row.model, row.kind, row.name, row.version, end - start)
        start = end


def _vectors(connection: Connection) -> Iterator[Any]:
    rows = select(DIRECTION.c.vector_id, func.sum(DIRECTION.c.positions).label("rows"))
    each = rows.group_by(DIRECTION.c.vector_id).subquery()
    numbers = (each.c.rows * MODEL.c.d_model).label("numbers")
    columns = (VECTOR.c[c] for c in ("path", "kind", "name", "version"))
    query = select(*columns, MODEL.c.name.label("model"), numbers)
    query = query.join_from(VECTOR, MODEL).join(each, each.c.vector_id == VECTOR.c.id)
    yield from connection.execute(query.order_by(VECTOR.c.path, VECTOR.c.id))


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a writer was done with it
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path.relative_to(directory).as_posix(), status.st_size
