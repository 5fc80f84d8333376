"""Lineage: the ancestors and descendants of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, select

from steerlab.registry.operands import expressions
from steerlab.registry.schema import GIVEN, given
from steerlab.registry.tables import MODEL, OPERAND, VECTOR

Way = Literal["parents", "children"]
DEPTH = 12


@dataclass(frozen=True)
class Node:
    """One vector of a lineage tree.

    stored: False for an operand that is not in this store; `ref` is then its name in the child's
    expression. cut: True if a vector is repeated or too deep; it has no branches then.
    """

    ref: str
    digest: str
    recipe: str = ""
    stored: bool = True
    branches: tuple[Node, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Lineage:
    """A vector with its ancestors and descendants."""

    ref: str
    parents: tuple[Node, ...]
    children: tuple[Node, ...]


_Edge = tuple[int, int | None, Node]
"""Between a composition and an operand, in either direction: row ids, and the far one's node."""


def relatives(connection: Connection, vector: int, way: Way) -> tuple[Node, ...]:
    """The tree on one side of a vector; every vector is expanded once."""
    edges: dict[int, list[_Edge]] = {}
    level = [vector]
    for _ in range(DEPTH):
        new = [i for i in dict.fromkeys(level) if i not in edges]
        if not new:
            break
        edges.update({i: [] for i in new})
        for edge in _edges(connection, new, way):
            edges[edge[0]].append(edge)
        level = [far for i in new for _, far, _ in edges[i] if far is not None]
    seen: set[int] = {vector}

    def expanded(far: int | None, node: Node) -> Node:
        if far is None:
            return node
        cut = far in seen or far not in edges
        seen.add(far)
        below = () if cut else branches(far)
        return replace(node, branches=below, cut=cut and far != vector)

    def branches(of: int) -> tuple[Node, ...]:
        return tuple(expanded(far, node) for _, far, node in edges[of])

    return branches(vector)


def _edges(connection: Connection, ids: Sequence[int], way: Way) -> list[_Edge]:
    up = way == "parents"
    near, far = OPERAND.c.child_id, OPERAND.c.parent_id
    if not up:
        near, far = far, near
    query = (
        select(OPERAND.c.child_id, OPERAND.c.ordinal, near, far, OPERAND.c.digest)
        .add_columns(VECTOR.c.name, VECTOR.c.version, VECTOR.c.digest, VECTOR.c.summary)
        .add_columns(MODEL.c.name)
        .join_from(OPERAND, VECTOR, far == VECTOR.c.id, isouter=up)
        .join(MODEL, MODEL.c.id == VECTOR.c.model_id, isouter=up)
        .order_by(near, OPERAND.c.ordinal, far)
    )
    edges = connection.execute(query.where(near.in_(GIVEN)), given(ids)).all()
    recipes = expressions(connection, [i for row in edges for i in row[2:4] if i is not None])
    found: list[_Edge] = []
    for child, number, here, there, digest, name, version, own, recipe, model in edges:
        if there is None:
            node = Node(recipes[child].operands[number].ref, digest, stored=False)
        else:
            node = Node(f"{model}.{name}.v{version}", own, str(recipes.get(there, recipe)))
        found.append((here, there, node))
    return found
