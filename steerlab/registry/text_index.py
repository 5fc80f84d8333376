"""The text index: SQLite's FTS5 over everything that a search of vectors looks through.

One row a vector: name, note, recipe, tags and prompts, folded to lower case by Python, because
SQLite folds ASCII alone. The trigram tokenizer finds a word of three letters or more anywhere in
a text; shorter words are looked for in the text itself. Triggers note whose text has changed, and
`update` indexes those before a transaction commits: a vector with 500 prompts is indexed once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product, zip_longest

from sqlalchemy import ColumnElement, Connection, Integer, Select, String, column, select, table
from sqlalchemy.exc import DBAPIError

from steerlab.registry.sqlite_errors import tells_damage

INDEX = table(
    "vector_text", column("rowid", Integer), column("text", String), column("vector_text", String)
)
_TEXT = table("vector_text_content", column("id", Integer), column("c0", String))

_TRIGRAM = 3  # letters below which the tokenizer has nothing to look up
_WILD = re.compile(r"[*?\[]")  # what GLOB takes for more than itself

_WATCHED = {"vector": "id", "tag": "vector_id", "contrast_pair": "vector_id"}
_CHANGES = {"INSERT": ("new",), "DELETE": ("old",), "UPDATE": ("old", "new")}


def _trigger(table: str, owner: str, change: str, rows: Sequence[str]) -> str:
    changed = ", ".join(f"({row}.{owner})" for row in rows)
    return (
        f"CREATE TRIGGER {table}_text_{change.lower()} AFTER {change} ON {table}"
        f" BEGIN INSERT OR IGNORE INTO text_pending VALUES {changed}; END"
    )


SCHEMA = (
    "CREATE VIRTUAL TABLE vector_text USING fts5(text, tokenize='trigram case_sensitive 1')",
    "CREATE TABLE text_pending (vector_id INTEGER PRIMARY KEY)",
    *(
        _trigger(table, owner, change, rows)
        for table, owner in _WATCHED.items()
        for change, rows in _CHANGES.items()
    ),
)
"""What `create` makes, in the words that SQLite keeps of it."""

_TEXTS = """
    SELECT id, name, note, summary,
      (SELECT group_concat(tag, char(10)) FROM tag WHERE vector_id = vector.id),
      (SELECT group_concat(coalesce(positive, '') || char(10) || coalesce(negative, ''), char(10))
       FROM contrast_pair WHERE vector_id = vector.id)
    FROM vector
"""

_UNSEARCHABLE = re.compile("[\0\ud800-\udfff]")


def create(connection: Connection) -> None:
    """Make the index and its triggers, in place of any that are there, and index every vector."""
    drop(connection)
    for statement in SCHEMA:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO text_pending SELECT id FROM vector")
    update(connection)


def drop(connection: Connection) -> None:
    """Take the index away: to empty tables row by row costs more than to index them anew."""
    for watched, change in product(_WATCHED, _CHANGES):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {watched}_text_{change.lower()}")
    for name in ("vector_text", "text_pending"):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")


def update(connection: Connection) -> None:
    """Index the vectors whose texts have changed; every write transaction ends with it."""
    if connection.exec_driver_sql("SELECT 1 FROM text_pending LIMIT 1").first() is None:
        return
    pending = "(SELECT vector_id FROM text_pending)"
    connection.exec_driver_sql(f"DELETE FROM vector_text WHERE rowid IN {pending}")
    changed = connection.exec_driver_sql(f"{_TEXTS} WHERE id IN {pending}")
    for part in changed.partitions(1000):
        rows = [(row, _searchable(fields)) for row, *fields in part]
        connection.exec_driver_sql("INSERT INTO vector_text (rowid, text) VALUES (?, ?)", rows)
    connection.exec_driver_sql("DELETE FROM text_pending")


def readable(connection: Connection) -> bool:
    """Whether SQLite can open the index, and its texts are texts."""
    odd = "SELECT 1 FROM vector_text_content WHERE typeof(c0) <> 'text' LIMIT 1"
    try:
        connection.exec_driver_sql("SELECT 1 FROM vector_text LIMIT 1")
        return connection.exec_driver_sql(odd).first() is None
    except DBAPIError:
        return False


def problems(connection: Connection) -> list[str]:
    """Where the texts that are searched are not those of the vectors; `sound` checks the index."""
    texts = connection.exec_driver_sql(f"{_TEXTS} ORDER BY id")
    expected = ((row, _searchable(fields)) for row, *fields in texts)
    indexed = map(tuple, connection.execute(select(_TEXT).order_by(_TEXT.c.id)))
    try:
        same = all(a == b for a, b in zip_longest(expected, indexed))
    except DBAPIError as error:
        if not tells_damage(error):
            raise
        same = True  # a row of a vector can't be read, which others tell
    return [] if same else ["the text index is not up to date: run `steerlab rebuild`"]


def sound(connection: Connection) -> bool:
    """Whether the index agrees with the texts in it; SQLite checks that as a writer."""
    try:
        connection.exec_driver_sql(
            "INSERT INTO vector_text (vector_text) VALUES ('integrity-check')"
        )
    except DBAPIError as error:
        return not tells_damage(error)
    return True


def holding(words: Sequence[str]) -> Select[int]:
    """The row ids of the vectors that every word, as `folded` gives it, is found in."""
    long = [word for word in words if len(word) >= _TRIGRAM]
    short = [word for word in words if len(word) < _TRIGRAM]
    if not long:
        return select(_TEXT.c.id).where(*(holds(_TEXT.c.c0, word) for word in short))
    phrases = " AND ".join('"{}"'.format(word.replace('"', '""')) for word in long)
    query = select(INDEX.c.rowid.label("id")).where(INDEX.c.vector_text.op("MATCH")(phrases))
    return query.where(*(holds(INDEX.c.text, word) for word in short))


def text_of(row: ColumnElement[int]) -> ColumnElement[str]:
    """The folded text of a vector, to be compared where few are left to compare."""
    return select(_TEXT.c.c0).where(_TEXT.c.id == row).scalar_subquery()


def holds(text: ColumnElement[str], word: str) -> ColumnElement[bool]:
    """Whether a folded text holds a folded word."""
    plain = _WILD.sub(r"[\g<0>]", word)
    return text.op("GLOB")(f"*{plain}*")


def folded(text: str) -> str:
    """Text as it is indexed: in lower case, without the characters that SQLite stops at."""
    return _UNSEARCHABLE.sub("\ufffd", text.lower())


def words_of(text: str) -> list[str]:
    """The words of a text, folded, each once; the first hundred, as SQLite nests no deeper."""
    return list(dict.fromkeys(folded(text).split()))[:100]


def _searchable(fields: Sequence[str | None]) -> str:
    return folded("\n".join(field for field in fields if field is not None))
