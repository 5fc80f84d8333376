"""Finding vectors while letters are typed: a list of row ids, and a filter over it in memory.

At 100,000 vectors with eight prompts each, SQL needs 120 ms and more to look for a word in
every prompt; the same look through strings in memory takes 15 to 40 ms, and 45 MB. So texts are
read once, when a filter first asks for them, and kept until the store changes. For a filter
that is asked at every key they are packed as well: 10 to 15 ms, and once more as many MB.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from steerlab.registry.queries import Filters, ids
from steerlab.registry.tables import CONTRAST_PAIR, TAG, VECTOR

if TYPE_CHECKING:
    from steerlab.registry.haystack import Haystack, Names

ENOUGH = 500
"""Vectors that hold a word as it is typed, from which on scattered letters are not looked for."""

Order = tuple[str, bool]


def _rare_first(words: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Words in the order in which the first leave the least to look through, by a sample."""
    sample = texts[:: 1 + len(texts) // 500]
    return sorted(words, key=lambda word: sum(word in text for text in sample))


class Listing:
    """The vectors of a store at one moment, in memory as far as a filter needs them."""

    def __init__(self) -> None:
        self._orders: dict[tuple[Filters, Order], list[int]] = {}
        self._names: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._readable: tuple[Sequence[int], Sequence[int], Sequence[str]] = ((), (), ())
        self._packed: Haystack | None = None
        self._lines: Names | None = None
        self._reading = threading.Lock()

    def ids(self, connection: Connection, filters: Filters, order: Order) -> Sequence[int]:
        """Row ids of the vectors that pass, sorted; filters.text is left to `matching`."""
        key = (filters, order)
        if key not in self._orders:
            self._orders[key] = ids(connection, filters, sort=order[0], reverse=order[1])
        return self._orders[key]

    def matching(
        self, connection: Connection, listed: Sequence[int], text: str, *, scattered: bool = True
    ) -> Sequence[int]:
        """Those that every word of the text is found in, the best hits first.

        A word is found in a name, tag, note, recipe or prompt, or scattered over a name in
        order. Names that begin with the first word go first, then those that hold it, those
        that it is scattered over, the rest; among equals, the order of the list.
        scattered: False takes words only as they are typed.
        """
        self.read_texts(connection)
        words = text.lower().split()
        found, texts = self._with_texts(listed)
        if not words:
            return found
        if not scattered:
            hits = self._holding(found, *_rare_first(words, texts))
            return self._ranked(hits, words[0], hits)
        typed = found
        for word in sorted(words, key=len, reverse=True):  # what scattered letters have to fit
            hits, found = self._with_word(found, word)
            typed = hits if word == words[0] else typed
        return self._ranked(found, words[0], typed)

    def _with_texts(self, listed: Sequence[int]) -> tuple[Sequence[int], Sequence[str]]:
        """Those that were there when texts were read, and these side by side.

        Known for the list asked for last: going along two lists takes half of a look-up each.
        """
        whose, readable, texts = self._readable
        if whose is not listed:
            readable = [i for i in listed if i in self._texts]
            texts = [self._texts[i] for i in readable]
            self._readable = (listed, readable, texts)
        return readable, texts

    def _ranked(self, found: Sequence[int], word: str, typed: Sequence[int]) -> list[int]:
        """By where the first word stands; one pass, as there may be 100,000 hits.

        typed: those that hold it as it is typed, with others perhaps.
        """
        names = self._names
        begins, holds, others = list[int](), list[int](), list[int]()
        for i in found:
            name = names[i]
            if name.startswith(word):
                begins.append(i)
            else:
                (holds if word in name else others).append(i)
        if typed is found or not others:
            return [*begins, *holds, *others]
        known = set(typed)
        scattered = [i for i in others if i not in known]
        return [*begins, *holds, *scattered, *(i for i in others if i in known)]

    def holding(
        self, connection: Connection, text: str, among: Sequence[int] | None = None
    ) -> list[int]:
        """Row ids of the vectors that a text is found in, as it is typed but for its case.

        among: the only ones that matter; None for all.
        """
        self.read_texts(connection)
        typed, texts = text.lower(), self._texts
        if among is not None:
            return [i for i in among if typed in texts.get(i, "")]
        return [i for i, held in texts.items() if typed in held]

    def phrase(self, found: Sequence[int], text: str, enough: int) -> list[int]:
        """The first `enough` of the hits that hold all words of the text, one after another."""
        words, texts = " ".join(text.lower().split()), self._texts
        return list(islice((i for i in found if words in texts[i]), enough))

    def _with_word(self, listed: Sequence[int], word: str) -> tuple[Sequence[int], Sequence[int]]:
        """Those that hold the word as it is typed, and these with those it is scattered over."""
        hits = self._holding(listed, word)
        if len(hits) >= ENOUGH or len(word) < 2:
            return hits, hits
        over = self._names_under(word)
        return hits, _among(listed, {*over, *hits}) if over else hits

    def _holding(self, listed: Sequence[int], word: str, *others: str) -> Sequence[int]:
        """Those that hold the words as they are typed; by what is packed, if most are to be asked.

        All words are looked for in a text before the next one: it is at hand then.
        """
        if self._packed is not None and 2 * len(listed) > len(self._texts):
            found = self._packed.holding(word)
            if found is not None:
                hits = _among(listed, set(found))
                return self._holding(hits, *others) if others else hits
        _, readable, texts = self._readable
        known = texts if listed is readable else map(self._texts.__getitem__, listed)
        left: Iterable[tuple[int, str]] = zip(listed, known, strict=True)
        *first, last = word, *others
        for one in first:
            left = _with(left, one)
        return [i for i, text in left if last in text]

    def _names_under(self, word: str) -> Collection[int]:
        if self._lines is None:
            from steerlab.registry.haystack import Names

            self._lines = Names(self._names)
        return self._lines.under(word)

    def pack(self, connection: Connection) -> None:
        """Read texts, and make ready for one word after another to be looked for in them."""
        self.read_texts(connection)
        if self._packed is None:
            from steerlab.registry.haystack import Haystack

            self._packed = Haystack(self._texts)
        for listed in [*self._orders.values()][-1:]:  # it is what the first word will be for
            self._with_texts(listed)

    def read_texts(self, connection: Connection) -> None:
        """Read what `matching` looks through, unless that was done."""
        with self._reading:
            if not self._texts:
                self._texts = self._read(connection)

    def _read(self, connection: Connection) -> dict[int, str]:
        v, pair, line = VECTOR.c, CONTRAST_PAIR.c, "\n"
        texts: dict[int, str] = {}
        query = select(v.id, v.name, v.note, v.summary)
        for row, name, note, summary in connection.execute(query):
            self._names[row] = name.lower()
            texts[row] = f"{name}\n{note}\n{summary}"
        sides = func.coalesce(pair.positive, "") + line + func.coalesce(pair.negative, "")
        for owner, text in ((TAG.c.vector_id, TAG.c.tag), (pair.vector_id, sides)):
            joined = select(owner, func.aggregate_strings(text, line)).group_by(owner)
            for row, more in connection.execute(joined):  # one row a vector: rows cost most
                texts[row] += line + more
        return {row: text.lower() for row, text in texts.items()}


def _with(texts: Iterable[tuple[int, str]], word: str) -> Iterator[tuple[int, str]]:
    return ((i, text) for i, text in texts if word in text)


def _among(listed: Sequence[int], chosen: set[int]) -> Sequence[int]:
    return [i for i in listed if i in chosen] if chosen else []
