"""Full-text search: the vectors that contain all words, best first, and where they match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Select, func, select

from steerlab.errors import BadOption
from steerlab.registry import queries, text_index
from steerlab.registry.queries import Filters, Summary
from steerlab.registry.tables import VECTOR

WEIGHTS = {"name": 8.0, "tag": 6.0, "note": 4.0, "prompt": 2.0, "recipe": 1.0}
"""Score of a word by where it is found; half inside a longer word."""

LONGEST = 72
"""Characters of a snippet."""

_RATED = 20  # hits scored beyond the number asked for


@dataclass(frozen=True)
class Hit:
    """A vector that matches.

    place: name, tag, note, prompt or recipe. snippet: the text around the words, on one line.
    spans: start and end of each word in the snippet.
    """

    vector: Summary
    place: str
    snippet: str
    spans: tuple[tuple[int, int], ...]
    score: float


class Search(NamedTuple):
    """The best hits, and the number of all."""

    hits: Sequence[Hit]
    total: int


def search(connection: Connection, filters: Filters, text: str, limit: int) -> Search:
    """The best hits first; among equals by name. Raises BadOption for a text without words.

    Scored are hits in names, hits where the words are adjacent, and enough others to fill the
    list. Scoring all of them (bm25) takes 130 ms for a word that 95,000 vectors contain.
    """
    if limit < 0:
        raise BadOption(f"the best {limit} vectors: ask for 0 or more")
    words, phrase = text_index.words_of(text), " ".join(text_index.folded(text).split())
    if not words:
        raise BadOption("search for at least one word")
    held = text_index.holding(words, text_index.share(connection, words))
    found = _passing(connection, filters, held)
    total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
    best = [found.limit(limit + _RATED)]
    if total > limit + _RATED:
        best.append(_named(connection, filters, words).limit(limit + _RATED))
    if total > limit + _RATED and len(words) > 1:
        adjacent = text_index.holding([phrase], 0.0)  # of which a few are read
        best.append(_passing(connection, filters, adjacent).limit(limit))
    rows = dict.fromkeys(row for query in best for row in connection.execute(query).scalars())
    vectors = queries.of_ids(connection, list(rows))
    prompts = text_index.prompts(connection, list(rows))
    hits = [_hit(vector, prompts[vector.id], words, phrase) for vector in vectors]
    hits.sort(key=lambda hit: (-hit.score, hit.vector.name, hit.vector.version))
    return Search(hits[:limit], total)


def _passing(connection: Connection, filters: Filters, found: Select[int]) -> Select[int]:
    """The hits that pass the filters."""
    row = found.selected_columns[0]
    if not filters.every_version:
        older = select(VECTOR.c.id).where(VECTOR.c.newest.is_(False))
        found = found.where(row.not_in(older))
    if conditions := queries.conditions(connection, filters):
        found = found.where(text_index.among(row, select(VECTOR.c.id).where(*conditions)))
    return found


def _named(connection: Connection, filters: Filters, words: Sequence[str]) -> Select[int]:
    """The hits whose name contains the first word; names that begin with it come first."""
    name, text = VECTOR.c.name, text_index.text_of(VECTOR.c.id)
    word = words[0][:81]  # no name is longer than 80; SQLite refuses a pattern of 50,000
    others = (text_index.holds(text, word) for word in words[1:])
    listed = queries.listed(connection, filters, "name", False)
    found = listed.where(name.contains(word, autoescape=True), *others)
    return found.order_by(None).order_by(~name.startswith(word, autoescape=True), name)


def _hit(vector: Summary, prompts: Sequence[str], words: Sequence[str], phrase: str) -> Hit:
    texts = [("name", vector.name), *(("tag", tag) for tag in vector.tags), ("note", vector.note)]
    texts += [*(("prompt", prompt) for prompt in prompts), ("recipe", vector.recipe)]
    best: dict[str, float] = dict.fromkeys(words, 0.0)
    rated: list[tuple[float, str, str]] = []
    bonus = 0.0
    for place, content in texts:
        lower = content.lower()
        if not any(word in lower for word in words):
            continue
        lower = " ".join(lower.split())
        counts = {w: WEIGHTS[place] * _whole(w, lower) for w in words if w in lower}
        for word, value in counts.items():
            best[word] = max(best[word], value)
        adjacent = len(words) * WEIGHTS[place] if phrase in lower and len(words) > 1 else 0.0
        bonus = max(bonus, adjacent)
        rated.append((len(counts) * 100 + adjacent + sum(counts.values()), place, content))
    _, place, content = max(rated, key=lambda one: one[0], default=(0.0, "name", vector.name))
    snippet, spans = snippet_of(content, words)
    return Hit(vector, place, snippet, spans, sum(best.values()) + bonus)


def _whole(word: str, text: str) -> float:
    """1 for a whole word, which _ ends too, otherwise a half."""
    return 1.0 if re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text) else 0.5


def snippet_of(text: str, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """At most LONGEST characters of a text around its first match, and the spans of all."""
    line = " ".join(text.split())
    pattern = re.compile(
        "|".join(map(re.escape, sorted(words, key=len, reverse=True))), re.IGNORECASE
    )
    match = pattern.search(line)
    if len(line) > LONGEST:
        near = match.start() - LONGEST // 3 if match else 0
        start = max(0, min(near, len(line) - LONGEST + 1))
        left, right = "…" * (start > 0), "…" * (start + LONGEST - 1 < len(line))
        line = left + line[start : start + LONGEST - len(left + right)] + right
    return line, tuple(found.span() for found in pattern.finditer(line))
