"""Reading the registry: lists of vectors, names and models; pages of what was made with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, exists, func, or_, select

from steerlab.core.recipe import LayerFacts, ModelIdentity, build, mapping
from steerlab.core.run import Run
from steerlab.core.sweep import Sweep
from steerlab.errors import BadOption, NotFound, SteerlabError
from steerlab.files import header
from steerlab.registry import text_index
from steerlab.registry.operands import expressions
from steerlab.registry.rows import find_model, identity_of, identity_text, tags_of
from steerlab.registry.schema import GIVEN, given, share
from steerlab.registry.tables import DIRECTION, MODEL, TAG, VECTOR

Model = str | ModelIdentity | None
"""Which model a ref is of: its name in the store, its source, or itself."""

SORTS = ("created", "name", "model", "layer", "norm", "kind", "version")
"""What `Store.list` sorts by; "layer" is a vector's first."""


@dataclass(frozen=True)
class Summary:
    """A stored vector in one line of a list.

    model: the model's name in this store. recipe: in words. doses: layer -> dose of
    coefficient 1, None where the residual norm was never measured, and at every layer of a vector
    of several whose record does not have their sums.
    """

    id: int
    name: str
    version: int
    model: str
    digest: str
    layers: tuple[int, ...]
    scope: str
    kind: str
    norm: float
    recipe: str
    created: str
    note: str
    tags: tuple[str, ...] = ()
    doses: Mapping[int, float | None] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """How an expression names exactly this version: "love.v1"."""
        return f"{self.name}.v{self.version}"

    @property
    def qualified(self) -> str:
        """The ref that is unique in the store: "smollm2.love.v1"."""
        return f"{self.model}.{self.ref}"

    @property
    def dose(self) -> float | None:
        """The largest dose over layers, of coefficient 1; None if none is known."""
        return max((d for d in self.doses.values() if d is not None), default=None)


class StoredModel(NamedTuple):
    """A model that vectors of the store belong to; `name` qualifies their refs."""

    name: str
    identity: ModelIdentity
    vectors: int


@dataclass(frozen=True)
class Filters:
    """Which vectors to list; None does not restrict.

    text: any part of a name, note, tag, recipe or prompt, in any case.
    """

    model: str | ModelIdentity | None = None
    layer: int | None = None
    tag: str | None = None
    kind: str | None = None
    text: str | None = None
    name: str | None = None
    every_version: bool = False


def summaries(
    connection: Connection,
    filters: Filters,
    *,
    sort: str,
    reverse: bool,
    limit: int | None,
    after: Summary | None,
) -> list[Summary]:
    """The vectors that pass the filters, in three queries.

    Their ids are found first, in an index that covers the list, and then their rows.
    """
    page = listed(connection, filters, sort, reverse, after).limit(limit).correlate(None)
    order = _order(sort, reverse)
    query = select(VECTOR.c.id).join(MODEL).where(VECTOR.c.id.in_(page)).order_by(*order)
    return _described(connection, query)


def of_ids(connection: Connection, wanted: Sequence[int]) -> list[Summary]:
    """The vectors of these row ids, in that order, without those that are gone."""
    query = select(VECTOR.c.id).join(MODEL).where(VECTOR.c.id.in_(GIVEN))
    found = {summary.id: summary for summary in _described(connection, query, given(wanted))}
    return [found[row] for row in wanted if row in found]


def listed(
    connection: Connection,
    filters: Filters,
    sort: str,
    reverse: bool,
    after: Summary | None = None,
) -> Select[int]:
    """Selects the ids of the vectors that pass, sorted; only those behind `after`."""
    key = _sort_key(sort)
    query = select(VECTOR.c.id).where(*conditions(connection, filters))
    if not filters.every_version:
        # SQLite assumes that few rows are, and would scan these: 12 ms for a name, not 3
        query = query.where(func.likely(VECTOR.c.newest.is_(True)))
    if sort == "model":
        query = query.join(MODEL)
    if after is not None:
        query = query.where(_beyond(key, after, sort, reverse))
    return query.order_by(*_order(sort, reverse))


def _order(sort: str, reverse: bool) -> list[ColumnElement[Any]]:
    return [c.desc() if reverse else c.asc() for c in (_sort_key(sort), VECTOR.c.id)]


def _described(
    connection: Connection, query: Select[int], parameters: Mapping[str, str] | None = None
) -> list[Summary]:
    rows = connection.execute(query.add_columns(*_SHOWN), parameters).mappings().all()
    if not rows:
        return []
    chosen = [row["id"] for row in rows]
    layers = _doses(connection, chosen)
    tags = tags_of(connection, chosen)
    recipes = expressions(connection, [r["id"] for r in rows if r["kind"] == "expression"])
    numbers = [n for row in rows for n in (row["version"], row["norm"], *layers[row["id"]])]
    if not all(isinstance(n, int | float) for n in numbers):
        raise TypeError("a row has text where numbers belong")  # `Database.reading` says it
    return [
        Summary(
            **{**row, "recipe": str(recipes.get(row["id"], row["recipe"]))},
            layers=tuple(layers[row["id"]]),
            doses=layers[row["id"]],
            tags=tuple(tags[row["id"]]),
        )
        for row in rows
    ]


_SHOWN = (
    *(VECTOR.c[c] for c in ("name", "version", "digest", "scope", "kind", "norm", "created")),
    VECTOR.c.note,
    VECTOR.c.summary.label("recipe"),
    MODEL.c.name.label("model"),
)


def _sort_key(sort: str) -> ColumnElement[Any]:
    if sort not in SORTS:
        raise BadOption(f"can't sort by {sort!r}: choose {', '.join(SORTS)}")
    if sort == "model":
        return MODEL.c.name
    return VECTOR.c["first_layer" if sort == "layer" else sort]


def _beyond(
    key: ColumnElement[Any], last: Summary, sort: str, reverse: bool
) -> ColumnElement[bool]:
    value = last.layers[0] if sort == "layer" else getattr(last, sort)
    past = key < value if reverse else key > value
    later = VECTOR.c.id < last.id if reverse else VECTOR.c.id > last.id
    return or_(past, and_(key == value, later))


def conditions(connection: Connection, filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions on `vector` for all filters but the version; a layer joins its one direction."""
    found: list[ColumnElement[bool]] = []
    if filters.model is not None:
        found.append(_of_model(connection, filters.model))
    if filters.layer is not None:
        found += [DIRECTION.c.vector_id == VECTOR.c.id, DIRECTION.c.layer == filters.layer]
    if filters.tag is not None:
        found += _tagged(connection, filters.tag)
    if filters.kind is not None:
        found.append(VECTOR.c.kind == filters.kind)
    if filters.name is not None:
        found.append(VECTOR.c.name == filters.name)
    if filters.text:
        words = [text_index.folded(filters.text)]
        held = text_index.holding(words, text_index.share(connection, words))
        found.append(VECTOR.c.id.in_(held))
    return found


def _tagged(connection: Connection, tag: str) -> list[ColumnElement[bool]]:
    """Conditions for vectors with a tag: looked up in the order of the list if many have it.

    Of 100,000 that all have it, the first 20 by time take 3 ms so, and by norm 48: 65 by a join.
    """
    own = TAG.c.vector_id == VECTOR.c.id, TAG.c.tag == tag
    has = exists().where(*own)
    return [has] if share(connection, VECTOR.c.id, has) > 1 / 4 else [*own]


def _of_model(connection: Connection, model: str | ModelIdentity) -> ColumnElement[bool]:
    """An unknown name is an error; an identity that has no vectors yet is not."""
    if isinstance(model, ModelIdentity):
        return VECTOR.c.model_id == find_model(connection, model)
    return VECTOR.c.model_id == model_id(connection, model)


def _doses(connection: Connection, chosen: Sequence[int]) -> dict[int, dict[int, float | None]]:
    d = DIRECTION.c
    query = select(d.vector_id, d.layer, d.norm, d.residual_norm).order_by(d.vector_id, d.layer)
    found: dict[int, dict[int, float | None]] = defaultdict(dict)
    own = query.where(d.vector_id.in_(GIVEN))
    for vector, layer, norm, residual in connection.execute(own, given(chosen)):
        found[vector][layer] = norm / residual if residual else None
    several = [vector for vector, doses in found.items() if len(doses) > 1]
    for vector, doses in _summed(connection, several).items():
        found[vector] = {layer: doses.get(layer) for layer in found[vector]}
    return found


def _summed(connection: Connection, several: Sequence[int]) -> dict[int, dict[int, float | None]]:
    """The doses of vectors of several layers, from their stories: no row holds the sums."""
    query = select(VECTOR.c.id, VECTOR.c.story_text).where(VECTOR.c.id.in_(GIVEN))
    found = connection.execute(query, given(several))
    return {vector: _told(story) for vector, story in found}


def _told(story: str) -> dict[int, float | None]:
    """Layer -> dose by the sum of directions up to it; empty for a story that can't be read."""
    try:
        layers = mapping(header.values(story), "story")["layers"]
        facts = [build(LayerFacts, mapping(entry, "layer"), "layer") for entry in layers]
    except (ValueError, TypeError, KeyError, SteerlabError):
        return {}
    return {f.layer: None if f.reach is None else f.dose for f in facts}


def page(
    table: Table, limit: int | None, before: Run | Sweep | None = None
) -> Select[tuple[Any, ...]]:
    """Selects runs, sweeps or results, newest first. before: the last one of the previous page."""
    c = table.c
    query = select(table).order_by(c.created.desc(), c.id.desc()).limit(limit)
    if before is None:
        return query
    same = and_(c.created == before.created, c.id < before.id)
    return query.where(or_(c.created < before.created, same))


def names(connection: Connection, model: str | ModelIdentity | None = None) -> list[str]:
    """The names in use, sorted, each once."""
    query = select(VECTOR.c.name).distinct().order_by(VECTOR.c.name)
    if model is not None:
        query = query.where(_of_model(connection, model))
    return list(connection.execute(query).scalars())


def models(connection: Connection) -> list[StoredModel]:
    """The models that have vectors, by name, with how many (all versions)."""
    count = func.count(VECTOR.c.id).label("vectors")
    query = select(MODEL, count).join(VECTOR).group_by(MODEL.c.id).order_by(MODEL.c.name)
    found = connection.execute(query).mappings()
    return [StoredModel(row["name"], identity_of(row), row["vectors"]) for row in found]


def model_id(connection: Connection, model: str | ModelIdentity) -> int:
    """The row of a model given by name, source or identity; raises NotFound."""
    if isinstance(model, ModelIdentity):
        condition = MODEL.c.identity == identity_text(model)
    else:
        condition = or_(MODEL.c.name == model, MODEL.c.source == model)
    by_name = MODEL.c.name != (model if isinstance(model, str) else model.name)
    query = select(MODEL.c.id).where(condition).order_by(by_name, MODEL.c.id)
    found = connection.execute(query).scalar()
    if found is None:
        called = model.source if isinstance(model, ModelIdentity) else model
        have = ", ".join(m.name for m in models(connection)) or "none"
        raise NotFound(f"the store has no vectors of model {called!r} (it has: {have})")
    return int(found)
