"""Full-text search: which vectors hold all words, the best first, and the place that says so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, select

from steerlab.errors import BadOption
from steerlab.registry import queries
from steerlab.registry.listing import Listing
from steerlab.registry.queries import Filters, Summary
from steerlab.registry.rows import chunks
from steerlab.registry.tables import CONTRAST_PAIR

WEIGHTS = {"name": 8.0, "tag": 6.0, "note": 4.0, "prompt": 2.0, "recipe": 1.0}
"""What a word counts, by where it stands; half of it inside a longer word."""

LONGEST = 72
"""Characters of a snippet."""

_WEIGHED = 100  # hits whose places are looked at, beyond the number asked for


@dataclass(frozen=True)
class Hit:
    """A vector that was found.

    place: name, tag, note, prompt or recipe. snippet: what stands there around the words, on
    one line. spans: where the words are in the snippet, from and to.
    """

    vector: Summary
    place: str
    snippet: str
    spans: tuple[tuple[int, int], ...]
    score: float


class Search(NamedTuple):
    """The best hits, and how many there are in all."""

    hits: Sequence[Hit]
    total: int


def search(
    connection: Connection, listing: Listing, filters: Filters, text: str, limit: int
) -> Search:
    """The best hits first; among equals by name. Raises BadOption for a text without words."""
    words = list(dict.fromkeys(text.lower().split()))
    if not words:
        raise BadOption("search for at least one word")
    listed = listing.ids(connection, filters, ("name", False))
    found = listing.matching(connection, listed, text, scattered=False)
    first = listing.phrase(found, text, limit) if len(words) > 1 else []
    likely = list(dict.fromkeys([*first, *found[: limit + _WEIGHED]]))
    prompts = _prompts(connection, likely)
    vectors = queries.of_ids(connection, likely)
    hits = [_hit(vector, prompts[vector.id], words, text) for vector in vectors]
    return Search(sorted(hits, key=lambda hit: -hit.score)[:limit], len(found))


def _hit(vector: Summary, prompts: Sequence[str], words: Sequence[str], text: str) -> Hit:
    together = " ".join(text.lower().split())
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
        phrase = len(words) * WEIGHTS[place] if together in lower and len(words) > 1 else 0.0
        bonus = max(bonus, phrase)
        rated.append((len(counts) * 100 + phrase + sum(counts.values()), place, content))
    _, place, content = max(rated, key=lambda one: one[0], default=(0.0, "name", vector.name))
    snippet, spans = snippet_of(content, words)
    return Hit(vector, place, snippet, spans, sum(best.values()) + bonus)


def _whole(word: str, text: str) -> float:
    """1 for a whole word, which _ ends too, else a half."""
    return 1.0 if _whole_word(word).search(text) else 0.5


@lru_cache(maxsize=64)
def _whole_word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")


def snippet_of(text: str, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """At most LONGEST characters of a text around its first word, and where words stand in it."""
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


def _prompts(connection: Connection, ids: Sequence[int]) -> dict[int, list[str]]:
    """The prompts of vectors, in order."""
    pair = CONTRAST_PAIR.c
    query = select(pair.vector_id, pair.positive, pair.negative)
    found: dict[int, list[str]] = defaultdict(list)
    for chunk in chunks(ids):
        chosen = query.where(pair.vector_id.in_(chunk))
        for row, *sides in connection.execute(chosen.order_by(pair.vector_id, pair.ordinal)):
            found[row] += [side for side in sides if side]
    return found
