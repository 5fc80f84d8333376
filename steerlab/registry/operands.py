"""Operands of compositions: linked to stored records, and shown under their current names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    RowMapping,
    and_,
    bindparam,
    select,
    union_all,
    update,
)

from steerlab.core.derivation import named
from steerlab.core.notation import placeholder_of
from steerlab.core.recipe import Expression, Operand
from steerlab.core.record import told_apart
from steerlab.registry.schema import chunks, fetched
from steerlab.registry.tables import MODEL, OPERAND, REMOVAL, VECTOR


def link(connection: Connection, children: Sequence[int] | None = None) -> None:
    """Link operands without a parent to stored records of the same digest.

    Of several, prefers the one with the name in the hint, then the oldest that is not newer than
    the child, then (clocks may run backwards) the oldest; never a descendant of the child.
    children: None for all compositions.
    """
    if children is not None and not children:
        return
    query = (
        select(OPERAND, VECTOR.c.model_id, VECTOR.c.created)
        .join(VECTOR, VECTOR.c.id == OPERAND.c.child_id)
        .where(OPERAND.c.parent_id.is_(None))
    )
    for chunk in [None] if children is None else chunks(children):
        part = query if chunk is None else query.where(OPERAND.c.child_id.in_(chunk))
        for edge in connection.execute(part).mappings().all():
            _join_parent(connection, edge)


def relink(connection: Connection, digests: Iterable[str]) -> None:
    """Link operands that have one of these digests and no parent, as `link` does."""
    for digest in digests:
        if found := fetched(connection, _ORPHANS, digest=digest):
            link(connection, [child for (child,) in found])


def _join_parent(connection: Connection, edge: RowMapping) -> None:
    v, child = VECTOR.c, edge["child_id"]
    query = (
        select(v.id, v.name, v.version, v.model_id, v.created, v.kind)
        .where(v.digest == edge["digest"], v.id != child)
        .order_by(v.created, v.id)
    )
    candidates = [
        c
        for c in connection.execute(query).all()
        if c.kind != "expression" or not made_from(connection, c.id, child)
    ]
    own = ".".join(edge["hint"].split(".")[-2:])
    named = [c for c in candidates if f"{c.name}.v{c.version}" == own]
    likely = named or [c for c in candidates if c.created <= edge["created"]] or candidates
    best = sorted(likely, key=lambda c: c.model_id != edge["model_id"])
    if best:
        place = and_(OPERAND.c.child_id == edge["child_id"], OPERAND.c.ordinal == edge["ordinal"])
        connection.execute(update(OPERAND).where(place).values(parent_id=best[0].id))


def made_from(connection: Connection, vector: int, ancestor: int) -> bool:
    """Whether the row of a vector is, or descends from, another row."""
    level, seen = {vector}, set[int]()
    while level - seen:
        seen |= level
        parents = OPERAND.c.child_id.in_(level), OPERAND.c.parent_id.is_not(None)
        level = set(connection.execute(select(OPERAND.c.parent_id).where(*parents)).scalars())
    return ancestor in seen


def expressions(
    connection: Connection, ids: Sequence[int], *, placeholders: bool = True
) -> dict[int, Expression]:
    """Row id -> recipe of the compositions among `ids`, with the current names of operands.

    placeholders: False shows operands that are not stored under their old names.
    """
    found: dict[int, Expression] = {}
    for chunk in chunks(ids):
        operands = operands_now(connection, chunk, placeholders)
        for row, text in connection.execute(_COMPOSITIONS, {"ids": chunk}):
            found[row] = named(text.removeprefix("= "), operands[row])
    return found


def operands_now(
    connection: Connection, ids: Sequence[int], placeholders: bool = True
) -> dict[int, list[Operand]]:
    """Row id -> operands, under their current names.

    An operand that is not stored keeps its old name, unless another vector has or had that name
    here; then it gets a placeholder.
    """
    found: dict[int, list[Operand]] = defaultdict(list)
    for edge in connection.execute(_OPERANDS, {"ids": ids}) if ids else ():
        if edge.name is not None:
            ref = f"{edge.name}.v{edge.version}"
            ref = ref if edge.model_id == edge.own_model else f"{edge.model}.{ref}"
        else:
            own = (edge.hint, edge.digest, edge.own_model)
            taken = placeholders and _is_taken(connection, *own)
            ref = placeholder_of(edge.digest) if taken else edge.hint
        found[edge.child_id].append(Operand(ref, edge.digest))
    return defaultdict(list, {child: told_apart(operands) for child, operands in found.items()})


def _is_taken(connection: Connection, hint: str, digest: str, model: int) -> bool:
    """Whether a ref names another vector of this store, present or removed."""
    name, _, version = hint.rpartition(".v")
    name = name.rpartition(".")[2]
    if not version.isdigit() or len(version) > 18:
        return False
    key = select(MODEL.c.identity).where(MODEL.c.id == model).scalar_subquery()
    here = select(VECTOR.c.digest).where(VECTOR.c.model_id == model, VECTOR.c.name == name)
    gone = select(REMOVAL.c.digest).where(REMOVAL.c.model == key, REMOVAL.c.name == name)
    numbered_here = here.where(VECTOR.c.version == int(version))
    numbered_gone = gone.where(REMOVAL.c.version == int(version))
    found = connection.execute(union_all(numbered_here, numbered_gone)).scalars().all()
    return any(other != digest for other in found)


_ORPHANS = select(OPERAND.c.child_id).where(
    OPERAND.c.digest == bindparam("digest"), OPERAND.c.parent_id.is_(None)
)
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_COMPOSITIONS = select(VECTOR.c.id, VECTOR.c.summary).where(
    VECTOR.c.kind == "expression", VECTOR.c.id.in_(_IDS)
)
_CHILD = VECTOR.alias("child")
_OPERANDS = (  # a parent that is not what the child was made from is none
    select(OPERAND.c.child_id, OPERAND.c.hint, OPERAND.c.digest)
    .add_columns(VECTOR.c.name, VECTOR.c.version, VECTOR.c.model_id, MODEL.c.name.label("model"))
    .add_columns(_CHILD.c.model_id.label("own_model"))
    .join_from(OPERAND, _CHILD, _CHILD.c.id == OPERAND.c.child_id)
    .join(
        VECTOR,
        and_(VECTOR.c.id == OPERAND.c.parent_id, VECTOR.c.digest == OPERAND.c.digest),
        isouter=True,
    )
    .join(MODEL, MODEL.c.id == VECTOR.c.model_id, isouter=True)
    .where(OPERAND.c.child_id.in_(_IDS))
    .order_by(OPERAND.c.child_id, OPERAND.c.ordinal)
)
