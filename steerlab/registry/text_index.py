"""The text index: SQLite's FTS5 over everything that a search of vectors looks through.

One row a vector: its name, note, recipe, tags and prompts, in lower case by Python's rules. The
index says which texts contain the trigrams of a word, and GLOB which of these contain the word. An
index of positions would take 590 bytes a vector more, and 32 ms, not 19, for a word of eight
letters in 95,000 texts. Reading all of 100,000 texts takes 19 ms: quicker than the index for
frequent words, and what words without a trigram need. Triggers note the vectors whose texts change,
and `update` indexes these before a transaction commits, so a vector with 500 prompts is indexed
once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    and_,
    column,
    not_,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError

from steerlab.files import header
from steerlab.registry import schema
from steerlab.registry.operands import expressions
from steerlab.registry.schema import GIVEN, driver, given
from steerlab.registry.sqlite_errors import tells_damage
from steerlab.registry.tables import VECTOR

_INDEX = table("vector_text", column("rowid", Integer), column("vector_text", String))
_TEXT = table("vector_text_content", column("id", Integer), column("c0", String))

_TRIGRAM = 3  # letters; a shorter word has no trigram to look up
_MOST = 100  # trigrams to look up: SQLite limits the depth of a search
_WILD = re.compile(r"[*?\[]")  # GLOB's special characters

_OWNERS = {"vector": "id", "tag": "vector_id", "operand": "child_id", "contrast_pair": "vector_id"}
_CHANGES = {"INSERT": ("new",), "DELETE": ("old",), "UPDATE": ("old", "new")}
_TABLE = "CREATE VIRTUAL TABLE vector_text USING fts5(text, tokenize='trigram case_sensitive 1'"
_RENAMED = "CREATE TRIGGER vector_text_renamed AFTER UPDATE OF name ON vector"
_CHILDREN = "FROM operand WHERE parent_id = new.id"
_LAST = "(SELECT max(id) FROM vector_text_content)"


def _trigger(table: str, change: str, does: str = "", when: str = "") -> str:
    changed = ", ".join(f"({row}.{_OWNERS[table]})" for row in _CHANGES[change])
    does = does or f"INSERT INTO text_pending VALUES {changed}"
    name = f"{table}_text_{change.lower()}"
    return f"CREATE TRIGGER {name} AFTER {change} ON {table} {when}BEGIN {does}; END"


_PLAIN = (
    f"{_TABLE}, detail=none, columnsize=0)",
    "CREATE TABLE text_pending (vector_id INTEGER)",
    *(_trigger("vector", change) for change in ("DELETE", "UPDATE")),
    _trigger("tag", "DELETE"),
    f"{_RENAMED} BEGIN INSERT INTO text_pending SELECT child_id {_CHILDREN}; END",
)

SCHEMA = (
    *_PLAIN,
    _trigger("tag", "INSERT", when=f"WHEN new.vector_id <= {_LAST} "),
    _trigger("operand", "UPDATE", when=f"WHEN new.child_id <= {_LAST} "),
)
"""The statements of `create`, as SQLite keeps them in its schema.

No trigger is without a use: each takes every connection 25 µs. Operands come and go with their
vector, and a tag is never updated. A vector may be pending several times; a new one is not, as its
id is beyond those indexed.
"""


def _earlier(table: str, change: str) -> str:
    rows = (f"SELECT {row}.{_OWNERS[table]} AS id" for row in _CHANGES[change])
    return _trigger(table, change, _noted_once(" UNION ".join(rows)))


def _noted_once(changed: str) -> str:
    known = "id NOT IN (SELECT vector_id FROM text_pending)"
    return f"INSERT INTO text_pending SELECT id FROM ({changed}) WHERE {known}"


EARLIER_SCHEMA = (
    *(_trigger("vector", "INSERT"), _trigger("tag", "INSERT"), _trigger("operand", "UPDATE")),
    f"{_TABLE})",
    *(_earlier(table, change) for table in ("vector", "tag", "operand") for change in _CHANGES),
    *(_earlier("contrast_pair", change) for change in ("DELETE", "UPDATE")),
    f"{_RENAMED} BEGIN {_noted_once(f'SELECT child_id AS id {_CHILDREN}')}; END",
)
"""Those of the revisions 0100 to 0102 that differ."""

_TEXTS = """
    SELECT id, kind, story_text, summary, name, note,
      (SELECT group_concat(tag, char(10)) FROM tag WHERE vector_id = vector.id)
    FROM vector
"""

_UNSEARCHABLE = re.compile("[\0\ud800-\udfff]")


def create(connection: Connection) -> None:
    """Create the index and its triggers, replacing any, and index every vector."""
    drop(connection)
    for statement in SCHEMA:
        connection.exec_driver_sql(statement)
    update(connection)


def drop(connection: Connection) -> None:
    """Remove the index, before its tables are emptied: to update it would take longer."""
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    for trigger in connection.exec_driver_sql(triggers).scalars().all():
        connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
    for name in ("vector_text", "text_pending"):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")


def update(connection: Connection) -> None:
    """Index new vectors, and those whose texts have changed; every write ends with this."""
    raw, pending = driver(connection), "(SELECT vector_id FROM text_pending)"
    (last,) = raw.execute(f"SELECT ifnull({_LAST}, 0)").fetchone()
    if raw.execute("SELECT 1 FROM text_pending LIMIT 1").fetchone() is not None:
        raw.execute(f"DELETE FROM vector_text WHERE rowid IN {pending}")
        _index(connection, f"id IN {pending} AND id <= {last}")
        raw.execute("DELETE FROM text_pending")
    _index(connection, f"id > {last}")


def _index(connection: Connection, which: str) -> None:
    raw = driver(connection)
    found = raw.execute(f"{_TEXTS} WHERE {which}")
    while rows := found.fetchmany(1000):
        searched = _searched(connection, rows)
        raw.executemany("INSERT INTO vector_text (rowid, text) VALUES (?, ?)", searched)


def readable(connection: Connection) -> bool:
    """Whether SQLite can open the index and all its texts are text."""
    odd = "SELECT 1 FROM vector_text_content WHERE typeof(c0) <> 'text' LIMIT 1"
    try:
        connection.exec_driver_sql("SELECT 1 FROM vector_text LIMIT 1")
        return connection.exec_driver_sql(odd).first() is None
    except DBAPIError:
        return False


def problems(connection: Connection) -> list[str]:
    """Texts in the index that differ from the vectors'; `sound` checks the index itself."""
    texts = connection.exec_driver_sql(f"{_TEXTS} ORDER BY id")
    expected = (one for part in texts.partitions(1000) for one in _searched(connection, part))
    indexed = map(tuple, connection.execute(select(_TEXT).order_by(_TEXT.c.id)))
    try:
        same = all(a == b for a, b in zip_longest(expected, indexed))
    except DBAPIError as error:
        if not tells_damage(error):
            raise
        same = True  # a row can't be read, which other checks report
    return [] if same else ["the text index is not up to date: run `steerlab rebuild`"]


def sound(connection: Connection) -> bool:
    """Run FTS5's own integrity check, which needs a write transaction."""
    try:
        connection.exec_driver_sql(
            "INSERT INTO vector_text (vector_text) VALUES ('integrity-check')"
        )
    except DBAPIError as error:
        return not tells_damage(error)
    return True


def holding(words: Sequence[str], share: float) -> Select[int]:
    """Selects the row ids of the vectors whose text contains every (folded) word.

    share: of the texts that do, as far as it is known; all texts are read for more than a quarter.
    """
    held, trigrams = [holds(_TEXT.c.c0, word) for word in words], _trigrams(words)
    if not trigrams or share > 1 / 4:
        return select(_TEXT.c.id).where(*held)
    found = select(_INDEX.c.rowid.label("id")).join(_TEXT, _TEXT.c.id == _INDEX.c.rowid)
    return found.where(_has(trigrams), *held)


def lacking(words: Sequence[str]) -> Select[int]:
    """Selects the row ids of the vectors whose text does not contain every (folded) word."""
    return select(_TEXT.c.id).where(not_(and_(*(holds(_TEXT.c.c0, word) for word in words))))


def share(connection: Connection, words: Sequence[str]) -> float:
    """The share of texts that contain every (folded) word, estimated from a sample."""
    if max(map(len, words)) > _MOST:  # SQLite refuses a pattern of 50,000
        return 0.0
    held = and_(*(holds(_TEXT.c.c0, word) for word in words))
    return schema.share(connection, _TEXT.c.id, held)


def _trigrams(words: Sequence[str]) -> list[str]:
    """Trigrams that cover the words: not all of them, as each takes 3 ms of 95,000 texts."""
    long = [word for word in words if len(word) >= _TRIGRAM]
    starts = [(w, i) for w in long for i in (*range(0, len(w) - 2, _TRIGRAM), len(w) - _TRIGRAM)]
    return list(dict.fromkeys(word[i : i + _TRIGRAM] for word, i in starts))[:_MOST]


def _has(trigrams: Sequence[str]) -> ColumnElement[bool]:
    quoted = " AND ".join('"{}"'.format(trigram.replace('"', '""')) for trigram in trigrams)
    return _INDEX.c.vector_text.op("MATCH")(quoted)


def among(row: ColumnElement[int], rows: Select[int]) -> ColumnElement[bool]:
    """Whether a hit is one of other rows, however many.

    Without + 0, SQLite runs the search once for each of these: 3 s, not 40 ms.
    """
    return (row + 0).in_(rows)


def text_of(row: ColumnElement[int]) -> ColumnElement[str]:
    """The folded text of a vector, for a condition on few rows."""
    return select(_TEXT.c.c0).where(_TEXT.c.id == row).scalar_subquery()


def holds(text: ColumnElement[str], word: str) -> ColumnElement[bool]:
    """Whether a folded text contains a folded word."""
    plain = _WILD.sub(r"[\g<0>]", word)
    return text.bool_op("GLOB")(f"*{plain}*")


def folded(text: str) -> str:
    """Text as it is indexed: lower case, without NULs and lone surrogates, which end a text."""
    return _UNSEARCHABLE.sub("\ufffd", text.lower())


def words_of(text: str) -> list[str]:
    """The first 100 distinct words of a text, folded; SQLite limits the depth of conditions."""
    return list(dict.fromkeys(folded(text).split()))[:100]


def prompts(connection: Connection, ids: Sequence[int]) -> dict[int, list[str]]:
    """Row id -> the prompts of a vector, in order; empty for one without."""
    query = select(VECTOR.c.id, VECTOR.c.story_text).where(VECTOR.c.id.in_(GIVEN))
    return {row: _prompts(story) for row, story in connection.execute(query, given(ids))}


def _prompts(story_text: str) -> list[str]:
    """The prompts in the text of a story, pair by pair, then their other turns, each once.

    None if it can't be read.
    """
    try:
        recipe = header.values(story_text)["recipe"]
        pairs = zip_longest(recipe.get("positive", ()), recipe.get("negative", ()))
        turns = dict.fromkeys(map(str, (*recipe.get("systems", ()), *recipe.get("answers", ()))))
        texts = [str(prompt) for prompt in chain.from_iterable(pairs) if prompt is not None]
        return [*texts, *filter(None, turns)]
    except (ValueError, TypeError, LookupError, AttributeError):
        return []


def _searched(connection: Connection, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[int, str]]:
    """Row id and text of vectors; an expression with the names that its operands have now."""
    compositions = [row for row, kind, *_ in rows if kind == "expression"]
    recipes = expressions(connection, compositions, placeholders=False)
    for row, kind, story, summary, *fields in rows:
        prompts = _prompts(story) if kind == "contrast" else []
        texts = [*fields, *prompts, str(recipes.get(row, summary))]
        yield row, folded("\n".join(text for text in texts if text is not None))
