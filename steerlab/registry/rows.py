"""Records to rows and back, several vectors at a time."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from steerlab.core.derivation import numbered
from steerlab.core.notation import placeholder_of
from steerlab.core.recipe import Expression, ModelIdentity, Operand, mapping
from steerlab.core.record import Labels, Record, canonical_json, record_from_story
from steerlab.errors import SteerlabError
from steerlab.files import header
from steerlab.registry.operands import link, operands_now
from steerlab.registry.schema import GIVEN, compiled, driver, fetched, given
from steerlab.registry.sqlite_errors import Damaged, tells_damage
from steerlab.registry.tables import DIRECTION, MODEL, OPERAND, TAG, VECTOR

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A record read from its row, with the model row's name and its place in a payload file.

    altered: the parts of the record that the row contradicts, "labels" and "story" where a
    checksum does not match; empty for a row as a program wrote it.
    """

    id: int
    record: Record
    model: str
    path: str
    key: str
    story: str
    edits: int
    altered: tuple[str, ...]

    @property
    def labels(self) -> Labels:
        """The labels, with the number of edits."""
        return replace(self.record.labels, edits=self.edits)

    @property
    def qualified(self) -> str:
        """The ref that is unique in the store: "smollm2.love.v1"."""
        return f"{self.model}.{self.record.ref}"


@dataclass(frozen=True)
class Placed:
    """A record to insert, with its place in a payload file; edits: as in `Labels`."""

    record: Record
    path: str
    key: str
    edits: int = 0


def seal(story: str, labels: Labels) -> str:
    """A checksum of labels, with their edits, and of the story that they belong to."""
    said = canonical_json([story, labels.to_json()])
    return hashlib.sha256(said.encode()).hexdigest()


def check_trusted(stored: Stored) -> None:
    """Raise Damaged for an altered row."""
    if stored.altered:
        raise Damaged(
            f"the registry's row of {stored.qualified} was altered: run `steerlab rebuild`"
        )


def identity_text(model: ModelIdentity) -> str:
    """The key of a model identity as one text."""
    return "/".join(map(str, model.key))


def identity_of(row: RowMapping) -> ModelIdentity:
    """The identity in a row of a model."""
    return ModelIdentity(**{name: row[name] for name in ModelIdentity.__dataclass_fields__})


_FIND_MODEL = select(MODEL.c.id).where(MODEL.c.identity == bindparam("identity"))


def find_model(connection: Connection, model: ModelIdentity) -> int | None:
    """The model's row id, or None."""
    found = fetched(connection, _FIND_MODEL, identity=identity_text(model))
    return found[0][0] if found else None


def ensure_model(connection: Connection, model: ModelIdentity) -> int:
    """The model's row id; a new model gets a row and a free name."""
    found = find_model(connection, model)
    if found is not None:
        return found
    taken = set(connection.execute(select(MODEL.c.name)).scalars())
    name, number = model.name, 2
    while name in taken:
        name, number = f"{model.name}_{number}", number + 1
    row = {"name": name, "identity": identity_text(model), **vars(model)}
    made = connection.execute(insert(MODEL).values(row).returning(MODEL.c.id))
    return int(made.scalar_one())


def refs_of(
    connection: Connection, digest: str, model: int | None, *order: Any, limit: int | None = None
) -> list[str]:
    """The refs of stored vectors with a digest; those of other models than `model` say theirs."""
    query = select(VECTOR.c.name, VECTOR.c.version, VECTOR.c.model_id, MODEL.c.name).join(MODEL)
    query = query.where(VECTOR.c.digest == digest).order_by(*order).limit(limit)
    return [
        f"{name}.v{version}" if owner == model else f"{other}.{name}.v{version}"
        for name, version, owner, other in connection.execute(query)
    ]


_LAST_ID = select(func.max(VECTOR.c.id))


def add(connection: Connection, placed: Sequence[Placed]) -> list[int]:
    """Insert all rows of records; returns the ids in order.

    Compositions are linked to their operands, and the newest versions marked. A first version
    counts as the newest; call `mark_newest` if a later one may exist.
    """
    identities = dict.fromkeys(p.record.model for p in placed)
    models = {model: ensure_model(connection, model) for model in identities}
    ((last,),) = fetched(connection, _LAST_ID)
    first = (last or 0) + 1
    numbered = list(enumerate((p.record for p in placed), first))
    rows = [
        {"id": i, "model_id": models[p.record.model], "path": p.path, "key": p.key}
        | _plain(p.record, p.edits)
        for i, p in enumerate(placed, first)
    ]
    _insert(connection, VECTOR, rows)
    for table, rows_of in ((DIRECTION, _directions), (OPERAND, _operands), (TAG, _tags)):
        owner = next(iter(table.primary_key.columns)).name
        _insert(connection, table, [{owner: i, **row} for i, r in numbered for row in rows_of(r)])
    if compositions := [row for row, record in numbered if record.kind == "expression"]:
        link(connection, compositions)
    if later := [row for row, record in numbered if record.version > 1]:
        mark_newest(connection, VECTOR.c.id.in_(GIVEN), given(later))
    return [row for row, _ in numbered]


def mark_newest(
    connection: Connection, which: ColumnElement[bool], parameters: Mapping[str, str] | None = None
) -> None:
    """Update which versions are the newest, for the names of these vectors."""
    chosen = select(VECTOR.c.model_id, VECTOR.c.name).where(which).distinct().subquery()
    same = and_(VECTOR.c.model_id == chosen.c.model_id, VECTOR.c.name == chosen.c.name)
    of_names = select(VECTOR.c.id).join(chosen, same)
    newest = update(VECTOR).where(VECTOR.c.id.in_(of_names)).values(newest=IS_NEWEST)
    connection.execute(newest, parameters)


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
    row = update(VECTOR).where(VECTOR.c.id == stored.id)
    connection.execute(row.values(**_labelled(stored.story, labels)))
    if labels.tags != stored.record.tags:
        connection.execute(TAG.delete().where(TAG.c.vector_id == stored.id))
        _insert(connection, TAG, [{"vector_id": stored.id, "tag": tag} for tag in labels.tags])


def read(connection: Connection, ids: Sequence[int]) -> dict[int, Stored]:
    """Records by id, in the order of `ids`; a fixed number of queries for any number.

    Raises Damaged for corrupted rows.
    """
    try:
        found = dict(_read(connection, ids))
    except DBAPIError as error:
        if not tells_damage(error):
            raise
        raise Damaged(
            f"a row of the registry can't be read ({error.orig}), its payload may be whole: "
            "run `steerlab rebuild`"
        ) from error
    return {i: found[i] for i in ids if i in found}


def checked(connection: Connection, ids: Sequence[int]) -> dict[int, Stored]:
    """As `read`, with the rows of directions compared too."""
    found = read(connection, ids)
    directions: dict[int, list[Row]] = defaultdict(list)
    query = select(DIRECTION).where(DIRECTION.c.vector_id.in_(GIVEN)).order_by(DIRECTION.c.layer)
    for entry in connection.execute(query, given(found)).mappings():
        row = dict(entry)
        directions[row.pop("vector_id")].append(row)
    for i, stored in found.items():
        if directions[i] != _directions(stored.record):
            found[i] = replace(stored, altered=(*stored.altered, "layers"))
    return found


def _read(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Stored]]:
    vectors = connection.execute(_SELECT_VECTORS, given(ids)).mappings().all()
    tags = tags_of(connection, ids)
    operands = operands_now(connection, [v["id"] for v in vectors if v["kind"] == "expression"])
    for row in vectors:
        try:
            yield row["id"], _stored(row, tags[row["id"]], operands[row["id"]])
        except (ValueError, TypeError, LookupError, AttributeError, SteerlabError) as error:
            raise Damaged(
                f"the registry's row of {row['model']}.{row['name']}.v{row['version']} can't "
                "be read, its payload may be whole: run `steerlab rebuild`"
            ) from error


_SELECT_VECTORS = (
    select(VECTOR, MODEL.c.name.label("model"), MODEL.c.identity)
    .join(MODEL)
    .where(VECTOR.c.id.in_(GIVEN))
)
_SELECT_TAGS = select(TAG).where(TAG.c.vector_id.in_(GIVEN)).order_by(*TAG.primary_key)


def tags_of(connection: Connection, ids: Sequence[int]) -> dict[int, list[str]]:
    """Row id -> tags, sorted."""
    found: dict[int, list[str]] = defaultdict(list)
    for vector, tag in connection.execute(_SELECT_TAGS, given(ids)):
        found[vector].append(tag)
    return found


def _stored(row: RowMapping, tags: Sequence[str], operands: Sequence[Operand]) -> Stored:
    labels = Labels(row["name"], row["version"], tuple(tags), row["note"], row["edits"])
    record = _record(row["story_text"], operands).labelled(labels)
    vars(record)["story"] = hashlib.sha256(row["story_text"].encode()).hexdigest()
    right = {**_repeated(record), "identity": identity_text(record.model)}
    try:
        right["seal"] = seal(row["story"], labels)
    except (TypeError, ValueError):  # bytes, or a number without end
        right["seal"] = None
    altered = [_PARTS.get(column, column) for column, it in right.items() if row[column] != it]
    if [o.digest for o in operands] != [o.digest for o in _operands_of(record)]:
        altered.append("recipe")
    place = {name: row[name] for name in ("id", "model", "path", "key", "story", "edits")}
    return Stored(record=record, altered=tuple(dict.fromkeys(altered)), **place)


_PARTS = {"kind": "recipe", "summary": "recipe", "identity": "model", "seal": "labels"}
"""Column -> the part of a record that it repeats, where their names differ."""


def _record(story_text: str, operands: Sequence[Operand]) -> Record:
    """The record of a story, whose operands have the names that they have now."""
    story = mapping(header.values(story_text), "story")
    recipe = mapping(story["recipe"], "recipe")
    if recipe["kind"] == "expression":
        names = {operand.digest: operand.ref for operand in operands}
        recipe["operands"] = [
            {"digest": digest, "name": names.get(digest) or placeholder_of(digest)}
            for digest in recipe["operands"]
        ]
    return record_from_story({**story, "recipe": recipe})


def _repeated(record: Record) -> Row:
    """The columns that repeat parts of the story."""
    names = ("digest", "scope", "kind", "norm", "created", "story")
    return {name: getattr(record, name) for name in names} | {"summary": summary_of(record)}


def summary_of(record: Record) -> str:
    """The recipe in words, with numbered operands."""
    recipe = record.recipe
    return f"= {numbered(recipe)[0]}" if isinstance(recipe, Expression) else str(recipe)


def _labelled(story: str, labels: Labels) -> Row:
    """The columns of labels; tags have rows of their own."""
    names = ("name", "version", "note", "edits")
    return {name: getattr(labels, name) for name in names} | {"seal": seal(story, labels)}


def _plain(record: Record, edits: int) -> Row:
    return {
        **_repeated(record),
        **_labelled(record.story, replace(record.labels, edits=edits)),
        "story_text": record.story_text(),
        "newest": True,
        "first_layer": min(facts.layer for facts in record.layers),
    }


def _directions(record: Record) -> list[Row]:
    names = [column.name for column in DIRECTION.c if column.name != "vector_id"]
    return [{name: getattr(facts, name) for name in names} for facts in record.layers]


def _operands_of(record: Record) -> Sequence[Operand]:
    return numbered(record.recipe)[1] if isinstance(record.recipe, Expression) else ()


def _operands(record: Record) -> list[Row]:
    return [
        {"ordinal": i, "hint": o.ref, "digest": o.digest, "parent_id": None}
        for i, o in enumerate(_operands_of(record))
    ]


def _tags(record: Record) -> list[Row]:
    return [{"tag": tag} for tag in record.tags]


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        driver(connection).executemany(compiled(_INSERTS[table]), rows)


_INSERTS = {table: insert(table) for table in (VECTOR, DIRECTION, OPERAND, TAG)}


def labels_of(connection: Connection, stories: Sequence[str]) -> dict[str, Labels]:
    """Story -> labels, from the trusted rows of these stories."""
    query = select(VECTOR.c.id).where(VECTOR.c.story.in_(GIVEN))
    ids = connection.execute(query, given(stories))
    stored = read(connection, ids.scalars().all()).values()
    return {s.story: s.labels for s in stored if not s.altered}
