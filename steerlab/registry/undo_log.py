"""The log of changes that can be undone: what labels were, and what they became.

The newest changes are kept, in the registry alone: without registry.db the log is lost, the
labels are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select

from steerlab.core.record import Labels, canonical_json, check_labels, labels_from_json, now
from steerlab.errors import NotFound, SteerlabError
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.tables import UNDO

What = Literal["tag", "note", "rename", "remove"]
KEPT = 100
"""How many changes the log keeps."""

_INSIDE = re.compile(r"payloads/[^/.][^/]*/[^/.][^/]*")


@dataclass(frozen=True)
class Step:
    """One vector of a change. now: None if it was removed; its payload is then at path and key."""

    story: str
    was: Labels
    now: Labels | None = None
    path: str = ""
    key: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values; `_step` reads them back."""
        after = None if self.now is None else self.now.to_json()
        return {**vars(self), "was": self.was.to_json(), "now": after}


@dataclass(frozen=True)
class Change:
    """A change of labels, or a removal. text: "tag smollm2.love.v1 +warm".

    undone: True once it was undone. created: UTC, ISO 8601.
    """

    number: int
    created: str
    what: What
    text: str
    undone: bool = False


def record(connection: Connection, what: What, text: str, steps: Sequence[Step]) -> None:
    """Add a change to the log, and drop the oldest."""
    if not steps:
        return
    told = canonical_json([step.to_json() for step in steps])
    row = {"what": what, "text": text, "steps": told, "created": now(), "undone": False}
    number = connection.execute(insert(UNDO).values(row).returning(UNDO.c.id)).scalar_one()
    connection.execute(delete(UNDO).where(UNDO.c.id <= number - KEPT))


def changes(connection: Connection, limit: int | None = None) -> list[Change]:
    """The logged changes, newest first."""
    query = select(UNDO).order_by(UNDO.c.id.desc()).limit(limit)
    return [_change(row) for row in connection.execute(query)]


def one(connection: Connection, number: int | None) -> tuple[Change, list[Step]]:
    """A change and its steps; None for the newest that was not undone. Raises NotFound."""
    query = select(UNDO).order_by(UNDO.c.id.desc()).limit(1)
    query = query.where(~UNDO.c.undone if number is None else UNDO.c.id == number)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(
            "there is nothing to undo"
            if number is None
            else f"there is no change {number}: `steerlab log` lists those that can be undone"
        )
    try:
        first, *others = json.loads(row.steps)
        return _change(row), [_step(step) for step in (first, *others)]
    except (ValueError, TypeError, KeyError, SteerlabError) as error:
        raise Damaged(
            f"change {row.id} of the registry's log can't be read: run `steerlab rebuild`"
        ) from error


def _change(row: Row[Any]) -> Change:
    return Change(row.id, row.created, row.what, row.text, row.undone)


def _step(data: dict[str, Any]) -> Step:
    """Inverse of `Step.to_json`; raises ValueError or CorruptPayload for anything else."""
    after = None if data["now"] is None else labels_from_json(data["now"])
    step = Step(data["story"], labels_from_json(data["was"]), after, data["path"], data["key"])
    if after is None and not _INSIDE.fullmatch(step.path):
        raise ValueError(f"{step.path[:40]!r} is no payload of a store")
    check_labels(step.was.tags, step.was.note)
    return step
