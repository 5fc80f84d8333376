"""The history of a name: versions, removals, compositions, runs, sweeps and measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Connection, Table, select

from steerlab.core.notation import layers_text
from steerlab.errors import NotFound
from steerlab.registry import queries
from steerlab.registry.operands import expressions
from steerlab.registry.refs import parse_ref, removed_versions, resolve
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import (
    CALIBRATION,
    EVALUATION,
    OPERAND,
    RUN,
    RUN_OPERAND,
    SWEEP,
    SWEEP_OPERAND,
    VECTOR,
)

What = Literal["version", "removed", "used in", "calibration", "evaluation", "sweep", "run"]
_ORDER = get_args(What)


@dataclass(frozen=True)
class Event:
    """An event in the history of a vector.

    ref: the version it is about. other: the vector that was made from it ("used in").
    number: of the run or the sweep, as `steerlab runs` and `sweeps` take it.
    text: the recipe of the version or of the other vector, or what was generated or measured.
    created: UTC, ISO 8601. tags, note: of a version.
    """

    created: str
    what: What
    ref: str
    text: str
    other: str | None = None
    number: int | None = None
    tags: tuple[str, ...] = ()
    note: str = ""


def history(connection: Connection, text: str, model: queries.Model) -> list[Event]:
    """The events of all versions of a name, or of the version that a ref names.

    Newest first; of events at one moment, the version itself comes last.
    """
    removed = removed_versions(connection, text, model)
    try:
        row = resolve(connection, text, model)
    except NotFound:
        if not removed:
            raise
        ids = []
    else:
        ids = [row] if parse_ref(text).version else _versions(connection, row)
    vectors = {summary.id: summary for summary in queries.of_ids(connection, ids)}
    stored = {summary.digest: summary.ref for summary in vectors.values()}
    digests = {row.digest: f"{row.name}.v{row.version}" for row in removed} | stored
    refs = {i: summary.ref for i, summary in vectors.items()}
    found = [
        Event(v.created, "version", v.ref, f"{v.recipe}; {_layers(v)}", tags=v.tags, note=v.note)
        for v in vectors.values()
    ]
    found += [Event(r.created, "removed", f"{r.name}.v{r.version}", r.summary) for r in removed]
    found += _children(connection, refs)
    found += _named(connection, stored, "run", RUN, RUN_OPERAND)
    found += _named(connection, stored, "sweep", SWEEP, SWEEP_OPERAND)
    found += _calibrations(connection, digests)
    found += _evaluations(connection, digests)
    return sorted(found, key=lambda e: (e.created, _ORDER.index(e.what)), reverse=True)


def _versions(connection: Connection, row: int) -> list[int]:
    one = VECTOR.alias()
    same = (VECTOR.c.model_id == one.c.model_id) & (VECTOR.c.name == one.c.name)
    query = select(VECTOR.c.id).join(one, same).where(one.c.id == row)
    return list(connection.execute(query.order_by(VECTOR.c.version)).scalars())


def _layers(vector: queries.Summary) -> str:
    return f"{layers_text(vector.layers)}, norm {vector.norm:.4g}"


def _children(connection: Connection, refs: dict[int, str]) -> Iterator[Event]:
    query = (
        select(OPERAND.c.parent_id, OPERAND.c.child_id)
        .add_columns(*(VECTOR.c[c] for c in ("name", "version", "created")))
        .join_from(OPERAND, VECTOR, OPERAND.c.child_id == VECTOR.c.id)
    )
    children = connection.execute(query.where(OPERAND.c.parent_id.in_(GIVEN)), given(refs)).all()
    recipes = expressions(connection, [child.child_id for child in children])
    for child in children:
        if child.child_id in refs:  # a later version, which tells so itself
            continue
        ref, recipe = f"{child.name}.v{child.version}", str(recipes[child.child_id])
        yield Event(child.created, "used in", refs[child.parent_id], recipe, other=ref)


def _named(
    connection: Connection, stored: dict[str, str], what: What, table: Table, names: Table
) -> Iterator[Event]:
    """Runs or sweeps whose expression names a version."""
    query = select(names.c.digest, table).join_from(names, table)
    for row in connection.execute(query.where(names.c.digest.in_(GIVEN)), given(stored)):
        text = f"{row.expression} on {row.prompt!r}" if what == "run" else row.expression
        yield Event(row.created, what, stored[row.digest], text, number=row.id)


def _calibrations(connection: Connection, digests: dict[str, str]) -> Iterator[Event]:
    c = CALIBRATION.c
    query = select(c.digest, c.created, c.works, c.layer, c.dose)
    for row in connection.execute(query.where(c.digest.in_(GIVEN)), given(digests)):
        works = f"works at layer {row.layer}, dose {row.dose:+.2g}" if row.works else ""
        text = works or "is not shown to work"
        yield Event(row.created, "calibration", digests[row.digest], text)


def _evaluations(connection: Connection, digests: dict[str, str]) -> Iterator[Event]:
    e = EVALUATION.c
    query = select(e.digest, e.created, e.suite, e.model)
    for row in connection.execute(query.where(e.digest.in_(GIVEN)), given(digests)):
        text = f"suite {row.suite} on {row.model}"
        yield Event(row.created, "evaluation", digests[row.digest], text)
