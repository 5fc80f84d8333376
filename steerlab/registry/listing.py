"""The vectors of a store as a table shows them: row ids in order, rows where they are looked at."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from steerlab.registry import queries, text_index
from steerlab.registry.database import Database
from steerlab.registry.queries import Filters, Summary
from steerlab.registry.tables import VECTOR

ENOUGH = 500
"""Vectors that hold the words as typed, from which on scattered letters are not looked for."""


class Listing:
    """A filter over the newest versions, fast enough to be asked at every key press."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[Hashable, dict[tuple[str, bool], Mapping[int, str]]] = (None, {})

    def stamp(self) -> Hashable:
        """A token that differs once any process has changed the store; costs microseconds."""
        return self._database.stamp()

    def summaries(self, ids: Sequence[int]) -> Sequence[Summary]:
        """The vectors of these row ids, in that order; those gone since are left out."""
        with self._database.reading() as connection:
            return queries.of_ids(connection, ids)

    def matching(
        self, text: str = "", *, sort: str = "name", reverse: bool = False
    ) -> Sequence[int]:
        """Row ids of the vectors that hold every word of the text, the best first.

        A word is found in a name, tag, note, recipe or prompt, or scattered over a name in
        order. Names that begin with the first word go first, then those that hold it, those
        that letters are scattered over, the rest; among equals, in the order of the list.
        """
        stamp = self.stamp()  # before the snapshot: a commit in between must not pass for read
        with self._database.reading() as connection:
            names = self._names(connection, stamp, (sort, reverse))
            words = text_index.words_of(text)
            if not words:
                return list(names)
            typed = found = set[int](*_columns(connection, text_index.holding(words)))
            if len(typed) < ENOUGH and any(len(word) > 1 for word in words):
                found = typed.union(*_columns(connection, _scattered(words)))
        return _ranked(names, words[0], found, found - typed)

    def _names(
        self, connection: Connection, stamp: Hashable, order: tuple[str, bool]
    ) -> Mapping[int, str]:
        """The names of all vectors by row id, in order; kept until the store changes."""
        known, orders = self._known
        if known != stamp:
            orders = {}
            self._known = (stamp, orders)
        if order not in orders:
            listed = queries.listed(connection, Filters(), *order)
            ids, names = _columns(connection, listed.add_columns(func.lower(VECTOR.c.name)))
            orders[order] = dict(zip(ids, names, strict=True))
        return orders[order]


def _columns(connection: Connection, query: Select[Any]) -> list[list[Any]]:
    """Its columns, each as one JSON array: SQLAlchemy takes five times as long for the rows."""
    arrays = select(*map(func.json_group_array, query.subquery().c))
    return [json.loads(array) for array in connection.execute(arrays).one()]


def _scattered(words: Iterable[str]) -> Select[int]:
    """Vectors over whose name a word is scattered, if they hold the other words either way."""
    over = {word: VECTOR.c.name.like(_spread(word), escape="/") for word in words}
    text = text_index.text_of(VECTOR.c.id)
    each = [or_(like, text_index.holds(text, word)) for word, like in over.items()]
    return select(VECTOR.c.id).where(or_(*over.values()), *(each if len(each) > 1 else ()))


def _spread(word: str) -> str:
    """The pattern of the letters in order, with any between them; no name is longer than 80."""
    return f"%{'%'.join(f'/{letter}' if letter in '%_/' else letter for letter in word[:81])}%"


def _ranked(
    names: Mapping[int, str], word: str, found: Collection[int], scattered: Collection[int]
) -> Sequence[int]:
    """By where the first word is; one pass, as there may be 100,000 hits."""
    begins, holds, over, others = list[int](), list[int](), list[int](), list[int]()
    for i, name in names.items():
        if i in found:
            if name.startswith(word):
                begins.append(i)
            elif word in name:
                holds.append(i)
            else:
                (over if i in scattered else others).append(i)
    return begins + holds + over + others
