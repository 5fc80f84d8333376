"""The seam for another database: what runs, sweeps, results and listings ask of the rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection


@dataclass
class Writing:
    """A write transaction in progress.

    undo: run when it fails before COMMIT. on_commit: run once it is durable, still locked.
    """

    connection: Connection
    undo: list[Callable[[], object]] = field(default_factory=list)
    on_commit: list[Callable[[], object]] = field(default_factory=list)


class Catalog(Protocol):
    """The rows of a store; `database.Database` keeps them in an SQLite file."""

    def reading(self) -> AbstractContextManager[Connection]:
        """One consistent snapshot."""

    def writing(self) -> AbstractContextManager[Writing]:
        """The store's lock and a transaction; durable when it ends."""

    def stamp(self) -> Hashable:
        """A token that differs once anybody has committed."""
