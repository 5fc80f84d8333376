"""Operands of compositions: linked to stored records, and shown under their current names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection, RowMapping, and_, select, union_all, update

from steerlab.core.derivation import named
from steerlab.core.notation import placeholder_of
from steerlab.core.recipe import Expression, Operand
from steerlab.core.record import told_apart
from steerlab.registry.schema import GIVEN, fetched, given
from steerlab.registry.tables import MODEL, OPERAND, REMOVAL, VECTOR


def link(connection: Connection, children: Sequence[int] | None = None) -> None:
    """Link operands without a parent to stored records of the same digest.

    Of several, prefers the one with the name in the hint, then the oldest that is not newer than
    the child, then (clocks may run backwards) the oldest; never a descendant of the child.
    children: None for all compositions.
    """
    query = (
        select(OPERAND, VECTOR.c.model_id, VECTOR.c.created)
        .join(VECTOR, VECTOR.c.id == OPERAND.c.child_id)
        .where(OPERAND.c.parent_id.is_(None))
    )
    if children is not None:
        query = query.where(OPERAND.c.child_id.in_(GIVEN))
    for edge in connection.execute(query, given(children or ())).mappings().all():
        _join_parent(connection, edge)


def relink(connection: Connection, digests: Collection[str]) -> None:
    """Link operands that have one of these digests and no parent, as `link` does."""
    if found := fetched(connection, _ORPHANS, **given(digests)):
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
        if c.kind != "expression" or child not in with_ancestors(connection, [c.id])
    ]
    own = ".".join(edge["hint"].split(".")[-2:])
    named = [c for c in candidates if f"{c.name}.v{c.version}" == own]
    likely = named or [c for c in candidates if c.created <= edge["created"]] or candidates
    best = sorted(likely, key=lambda c: c.model_id != edge["model_id"])
    if best:
        place = and_(OPERAND.c.child_id == edge["child_id"], OPERAND.c.ordinal == edge["ordinal"])
        connection.execute(update(OPERAND).where(place).values(parent_id=best[0].id))


def with_ancestors(connection: Connection, rows: Iterable[int]) -> set[int]:
    """The rows of vectors and of all that they were made from."""
    linked = OPERAND.c.child_id.in_(GIVEN), OPERAND.c.parent_id.is_not(None)
    query = select(OPERAND.c.parent_id).where(*linked)
    found, new = set[int](), {*rows}
    while new:
        found |= new
        new = {*connection.execute(query, given(new)).scalars()} - found
    return found


def expressions(
    connection: Connection, ids: Collection[int], *, placeholders: bool = True
) -> dict[int, Expression]:
    """Row id -> recipe of the compositions among `ids`, with the current names of operands.

    placeholders: False shows operands that are not stored under their old names.
    """
    if not ids:
        return {}
    operands = operands_now(connection, ids, placeholders)
    found = connection.execute(_COMPOSITIONS, given(ids))
    return {row: named(text.removeprefix("= "), operands[row]) for row, text in found}


def operands_now(
    connection: Connection, ids: Collection[int], placeholders: bool = True
) -> dict[int, list[Operand]]:
    """Row id -> operands, under their current names.

    An operand that is not stored keeps its old name, unless another vector has or had that name
    here; then it gets a placeholder.
    """
    found: dict[int, list[Operand]] = defaultdict(list)
    for edge in connection.execute(_OPERANDS, given(ids)) if ids else ():
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
    OPERAND.c.digest.in_(GIVEN), OPERAND.c.parent_id.is_(None)
)
_COMPOSITIONS = select(VECTOR.c.id, VECTOR.c.summary).where(
    VECTOR.c.kind == "expression", VECTOR.c.id.in_(GIVEN)
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
    .where(OPERAND.c.child_id.in_(GIVEN))
    .order_by(OPERAND.c.child_id, OPERAND.c.ordinal)
)
