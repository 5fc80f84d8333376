"""Records to rows and back, several vectors at a time."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from steerlab.core.derivation import named, numbered
from steerlab.core.recipe import (
    Contrast,
    Expression,
    Imported,
    LayerFacts,
    ModelIdentity,
    Operand,
    Recipe,
)
from steerlab.core.record import Labels, Record, canonical_json
from steerlab.errors import SteerlabError
from steerlab.registry.operands import link, operands_now
from steerlab.registry.schema import chunks
from steerlab.registry.sqlite_errors import Damaged, tells_damage
from steerlab.registry.tables import (
    BASELINE_PROMPT,
    CONTRAST_PAIR,
    DIAGNOSTIC,
    DIRECTION,
    MODEL,
    OPERAND,
    TAG,
    VECTOR,
)

_COPY = ("source", "revision", "dtype", "tokenizer", "chat_template")
_SHAPE = ("architecture", "n_layers", "d_model", "fingerprint")
_DIGEST = re.compile("[0-9a-f]{64}")

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A record read from rows, with the model row's name and its place in a payload file.

    story, seal: checksums of what the row says; see `is_trusted`. summary: the recipe in words.
    """

    id: int
    record: Record
    model: str
    path: str
    key: str
    story: str
    seal: str
    summary: str
    edits: int

    @property
    def labels(self) -> Labels:
        """The labels, with the number of edits."""
        return replace(self.record.labels, edits=self.edits)

    @property
    def qualified(self) -> str:
        """The ref that is unique in the store: "smollm2.love.v1"."""
        return f"{self.model}.{self.record.ref}"

    @property
    def is_trusted(self) -> bool:
        """Whether the row matches its checksums."""
        try:
            said = (self.record.story, seal(self.record, self.summary, self.edits))
        except (TypeError, ValueError):  # bytes, or a number without end
            return False
        return (self.story, self.seal) == said


@dataclass(frozen=True)
class Placed:
    """A record to insert, with its place in a payload file; edits: as in `Labels`."""

    record: Record
    path: str
    key: str
    edits: int = 0


def seal(record: Record, summary: str, edits: int) -> str:
    """A checksum of story, labels and summary; an altered row does not match it."""
    said = canonical_json([record.story, record.labels.to_json(), summary, edits])
    return hashlib.sha256(said.encode()).hexdigest()


def check_trusted(stored: Stored) -> None:
    """Raise Damaged for an altered row."""
    if not stored.is_trusted:
        raise Damaged(
            f"the registry's row of {stored.qualified} was altered: run `steerlab rebuild`"
        )


def identity_text(model: ModelIdentity) -> str:
    """The key of a model identity as one text."""
    weights = model.fingerprint or f"{model.source}@{model.revision or ''}"
    return f"{model.architecture}/{model.n_layers}/{model.d_model}/{weights}"


_FIND_MODEL = select(MODEL.c.id).where(MODEL.c.identity == bindparam("identity"))


def find_model(connection: Connection, model: ModelIdentity) -> int | None:
    """The model's row id, or None."""
    found = connection.execute(_FIND_MODEL, {"identity": identity_text(model)}).scalar()
    return None if found is None else int(found)


def ensure_model(connection: Connection, model: ModelIdentity) -> int:
    """The model's row id; a new model gets a row and a free name."""
    found = find_model(connection, model)
    if found is not None:
        return found
    taken = set(connection.execute(select(MODEL.c.name)).scalars())
    name, number = model.name, 2
    while name in taken:
        name, number = f"{model.name}_{number}", number + 1
    row = {"name": name, "identity": identity_text(model)}
    row |= {c: getattr(model, c) for c in (*_COPY, *_SHAPE)}
    made = connection.execute(insert(MODEL).values(row).returning(MODEL.c.id))
    return int(made.scalar_one())


_NEXT_ID = select(func.coalesce(func.max(VECTOR.c.id), 0) + 1)


def add(connection: Connection, placed: Sequence[Placed]) -> list[int]:
    """Insert all rows of records; returns the ids in order. Call `settle` afterwards."""
    identities = dict.fromkeys(p.record.model for p in placed)
    models = {model: ensure_model(connection, model) for model in identities}
    first = connection.execute(_NEXT_ID).scalar_one()
    numbered = list(enumerate((p.record for p in placed), first))
    rows = [
        {"id": i, "model_id": models[p.record.model], "path": p.path, "key": p.key}
        | _plain(p.record, p.edits)
        for i, p in enumerate(placed, first)
    ]
    _insert(connection, VECTOR, rows)
    for table, rows_of in (
        (DIRECTION, _directions),
        (DIAGNOSTIC, _diagnostics),
        (CONTRAST_PAIR, _pairs),
        (BASELINE_PROMPT, _baseline),
        (OPERAND, _operands),
        (TAG, _tags),
    ):
        owner = _selection(table)[0].name
        _insert(connection, table, [{owner: i, **row} for i, r in numbered for row in rows_of(r)])
    return [row for row, _ in numbered]


def stands_alone(record: Record) -> bool:
    """Whether its rows need no `settle`."""
    return record.version == 1 and record.kind != "expression"


def settle(connection: Connection, rows: Sequence[int], placed: Sequence[Placed]) -> None:
    """Link added compositions to their operands and mark the newest versions.

    A first version counts as the newest; call `mark_newest` if a later one may exist.
    """
    added = list(zip(rows, (p.record for p in placed), strict=True))
    link(connection, [row for row, record in added if record.kind == "expression"])
    for chunk in chunks([row for row, record in added if record.version > 1]):
        mark_newest(connection, VECTOR.c.id.in_(chunk))


def mark_newest(connection: Connection, which: ColumnElement[bool]) -> None:
    """Update which versions are the newest, for the names of these vectors."""
    chosen = select(VECTOR.c.model_id, VECTOR.c.name).where(which).distinct().subquery()
    same = and_(VECTOR.c.model_id == chosen.c.model_id, VECTOR.c.name == chosen.c.name)
    of_names = select(VECTOR.c.id).join(chosen, same)
    connection.execute(update(VECTOR).where(VECTOR.c.id.in_(of_names)).values(newest=IS_NEWEST))


def _is_newest() -> ColumnElement[bool]:
    newer = VECTOR.alias("newer")
    same = and_(newer.c.model_id == VECTOR.c.model_id, newer.c.name == VECTOR.c.name)
    later = select(newer.c.id).where(same, newer.c.version > VECTOR.c.version)
    return ~later.correlate(VECTOR).exists()


IS_NEWEST = _is_newest()
"""Whether no version of the same name and model is newer, as the other rows have it."""


def relabel(connection: Connection, stored: Stored, labels: Labels) -> None:
    """Change the labels of a vector."""
    check_trusted(stored)
    record = stored.record.labelled(labels)
    names = ("name", "version", "note", "edits")
    values = {name: getattr(labels, name) for name in names}
    row = update(VECTOR).where(VECTOR.c.id == stored.id)
    connection.execute(row.values(**values, seal=seal(record, stored.summary, labels.edits)))
    if labels.tags != stored.record.tags:
        connection.execute(TAG.delete().where(TAG.c.vector_id == stored.id))
        _insert(connection, TAG, [{"vector_id": stored.id, **row} for row in _tags(record)])


def read(connection: Connection, ids: Sequence[int]) -> dict[int, Stored]:
    """Records by id, in the order of `ids`; a fixed number of queries for any number.

    Raises Damaged for corrupted rows.
    """
    found: dict[int, Stored] = {}
    for chunk in chunks(ids):
        try:
            found.update(_read_chunk(connection, chunk))
        except DBAPIError as error:
            if not tells_damage(error):
                raise
            raise Damaged(
                f"a row of the registry can't be read ({error.orig}), its payload may be whole: "
                "run `steerlab rebuild`"
            ) from error
    return {i: found[i] for i in ids if i in found}


def _read_chunk(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Stored]]:
    vectors = connection.execute(_SELECT_VECTORS, {"ids": ids}).mappings().all()
    children = {
        table.name: _grouped(connection, table, ids)
        for table in (DIRECTION, DIAGNOSTIC, CONTRAST_PAIR, BASELINE_PROMPT, TAG)
    }
    operands = operands_now(connection, [v["id"] for v in vectors if v["kind"] == "expression"])
    for row in vectors:
        mine = {name: rows.get(row["id"], []) for name, rows in children.items()}
        try:
            record = _record(row, mine, operands[row["id"]])
        except (ValueError, TypeError, LookupError, SteerlabError) as error:
            raise Damaged(
                f"the registry's row of {row['model_name']}.{row['name']}.v{row['version']} can't "
                "be read, its payload may be whole: run `steerlab rebuild`"
            ) from error
        place = [row[column] for column in _PLACE]
        yield row["id"], Stored(row["id"], record, *place)


_PLACE = ("model_name", "path", "key", "story", "seal", "summary", "edits")
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_SELECT_VECTORS = (
    select(VECTOR, *(MODEL.c[c].label(f"model_{c}") for c in (*_SHAPE, "name")))
    .join(MODEL)
    .where(VECTOR.c.id.in_(_IDS))
)


@cache
def _selection(table: Table) -> tuple[ColumnElement[int], Select[Any]]:
    """A child table's owner column, and the query for the rows of some owners."""
    owner, *_ = columns = [*table.primary_key.columns]
    return owner, select(table).where(owner.in_(_IDS)).order_by(*columns)


def _grouped(
    connection: Connection, table: Table, ids: Sequence[int]
) -> dict[int, list[RowMapping]]:
    owner, query = _selection(table)
    groups: dict[int, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(query, {"ids": ids}).mappings():
        groups[row[owner]].append(row)
    return groups


def _record(
    row: RowMapping, children: dict[str, list[RowMapping]], operands: Sequence[Operand]
) -> Record:
    model = {c: row[c] for c in _COPY} | {c: row[f"model_{c}"] for c in _SHAPE}
    diagnostics: dict[int, dict[str, float]] = defaultdict(dict)
    for entry in children["diagnostic"]:
        diagnostics[entry["layer"]][entry["name"]] = entry["value"]
    return Record(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        model=ModelIdentity(**model),
        scope=row["scope"],
        layers=tuple(
            LayerFacts(
                d["layer"], d["positions"], d["norm"], d["residual_norm"], diagnostics[d["layer"]]
            )
            for d in children["direction"]
        ),
        recipe=_recipe(row, children, operands),
        norm=row["norm"],
        created=row["created"],
        software=dict(json.loads(row["software"])),
        tags=tuple(t["tag"] for t in children["tag"]),
        note=row["note"],
    )


def _recipe(
    row: RowMapping, children: dict[str, list[RowMapping]], operands: Sequence[Operand]
) -> Recipe:
    if row["kind"] == "expression":
        if not all(_DIGEST.fullmatch(operand.digest) for operand in operands):
            raise ValueError("an operand's digest is none")
        return named(row["expression"], operands)
    if row["kind"] == "imported":
        return Imported(row["imported_from"], row["format"], row["quantity"])
    pairs = children["contrast_pair"]

    def column(name: str) -> tuple[str, ...]:
        return tuple(p[name] for p in pairs if p[name] is not None)

    def token_ids(name: str) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(json.loads(ids)) for ids in column(name))

    return Contrast(
        positive=column("positive"),
        negative=column("negative"),
        method=row["method"],
        read=json.loads(row["read"]),
        chat=row["chat"],
        seed=row["seed"],
        baseline=tuple(b["prompt"] for b in children["baseline_prompt"]),
        positive_ids=token_ids("positive_ids"),
        negative_ids=token_ids("negative_ids"),
    )


def _plain(record: Record, edits: int) -> Row:
    row: Row = {c: getattr(record.model, c) for c in _COPY}
    names = ("name", "version", "digest", "scope", "kind", "norm", "created", "note")
    row |= {c: getattr(record, c) for c in names}
    row |= {"story": record.story, "edits": edits}
    row |= {"seal": seal(record, str(record.recipe), edits)}
    row |= {"summary": str(record.recipe), "software": json.dumps(dict(record.software))}
    row |= {"newest": True, "first_layer": min(facts.layer for facts in record.layers)}
    absent = ("method", "read", "chat", "seed", "expression", "imported_from", "format", "quantity")
    row |= dict.fromkeys(absent)
    match record.recipe:
        case Contrast(method=method, read=where, chat=chat, seed=seed):
            row |= {"method": method, "read": json.dumps(where), "chat": chat, "seed": seed}
        case Expression() as expression:
            row |= {"expression": numbered(expression)[0]}
        case Imported(source=source, format=kind, quantity=quantity):
            row |= {"imported_from": source, "format": kind, "quantity": quantity}
    return row


def _directions(record: Record) -> list[Row]:
    return [
        {
            "layer": f.layer,
            "positions": f.positions,
            "norm": f.norm,
            "residual_norm": f.residual_norm,
        }
        for f in record.layers
    ]


def _diagnostics(record: Record) -> list[Row]:
    return [
        {"layer": f.layer, "name": name, "value": value}
        for f in record.layers
        for name, value in f.diagnostics.items()
    ]


def _pairs(record: Record) -> list[Row]:
    recipe = record.recipe
    if not isinstance(recipe, Contrast):
        return []
    columns = ("positive", "negative", "positive_ids", "negative_ids")
    rows = zip_longest(*(getattr(recipe, c) for c in columns))
    return [
        {"ordinal": i, "positive": p, "negative": n}
        | {"positive_ids": _ids(pi), "negative_ids": _ids(ni)}
        for i, (p, n, pi, ni) in enumerate(rows)
    ]


def _baseline(record: Record) -> list[Row]:
    prompts = record.recipe.baseline if isinstance(record.recipe, Contrast) else ()
    return [{"ordinal": i, "prompt": prompt} for i, prompt in enumerate(prompts)]


def _operands(record: Record) -> list[Row]:
    operands = numbered(record.recipe)[1] if isinstance(record.recipe, Expression) else ()
    return [
        {"ordinal": i, "hint": o.ref, "digest": o.digest, "parent_id": None}
        for i, o in enumerate(operands)
    ]


def _tags(record: Record) -> list[Row]:
    return [{"tag": tag} for tag in record.tags]


def _ids(ids: tuple[int, ...] | None) -> str | None:
    return None if ids is None else json.dumps(ids)


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def labels_of(connection: Connection, stories: Sequence[str]) -> dict[str, Labels]:
    """Story -> labels, from the trusted rows of these stories."""
    found: dict[str, Labels] = {}
    for chunk in chunks(stories):
        ids = connection.execute(select(VECTOR.c.id).where(VECTOR.c.story.in_(chunk))).scalars()
        stored = read(connection, ids.all()).values()
        found |= {s.story: s.labels for s in stored if s.is_trusted}
    return found
