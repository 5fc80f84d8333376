"""Prompts as trees: in a row of a batch, a beginning that prompts share is computed once.

A row holds the tokens of its prompts side by side, each beginning once. A mask lets a token attend
to those before it in its own prompts, and its position is its place in the prompt, not in the row
(tree attention: SpecInfer, arXiv 2305.09781).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steerlab.models.prefix_groups import in_common


@dataclass(frozen=True)
class Row:
    """Prompts (by index) of one row, sorted by their tokens.

    shared: tokens that all of them begin with, which leave each a token of its own.
    tokens: how many are computed if each beginning is computed once.
    """

    members: tuple[int, ...]
    shared: int
    tokens: int


@dataclass(frozen=True)
class Layout:
    """The tokens of a row, their positions, and the columns of each of its prompts.

    columns: prompt (by index) -> where its tokens are, from the first position in the row on.
    padding: columns on the left without a token.
    """

    ids: list[int]
    positions: list[int]
    columns: dict[int, NDArray[np.int64]]
    padding: int = 0

    @property
    def start(self) -> int:
        """The position of the first token."""
        return self.positions[self.padding]

    @property
    def is_tree(self) -> bool:
        """Whether some tokens stand beside one another, not behind."""
        return self.positions[-1] - self.start + 1 < len(self.ids) - self.padding

    def visible(self, width: int) -> NDArray[np.bool_]:
        """Which column attends to which: (width, width); padding attends to itself."""
        found, done = np.eye(width, dtype=bool), np.zeros(width, dtype=bool)
        for columns in self.columns.values():
            own = np.flatnonzero(~done[columns])  # places in the prompt: a long beginning is done
            before = np.arange(len(columns)) <= own[:, None]
            found[np.ix_(columns[own], columns)] = before
            done[columns] = True
        return found


def single_rows(prompts: Sequence[Sequence[int]]) -> list[Row]:
    """Each prompt as a row of its own."""
    return [Row((i,), len(ids) - 1, len(ids)) for i, ids in enumerate(prompts)]


def rows_of_trees(prompts: Sequence[Sequence[int]], width: int) -> list[Row]:
    """Prompts in rows of at most `width` tokens behind those that all prompts of the row share.

    Sorted, what a prompt shares with any earlier one it shares with the one before it. A prompt
    that is longer has a row of its own.
    """
    ids = [tuple(prompt) for prompt in prompts]
    rows: list[Row] = []
    for i in sorted(range(len(ids)), key=ids.__getitem__):
        row = Row((i,), len(ids[i]) - 1, len(ids[i]))
        if rows:
            last = rows[-1]
            alike = in_common(ids[last.members[-1]], ids[i])
            shared, tokens = min(last.shared, alike, row.shared), last.tokens + row.tokens - alike
            if tokens - shared <= width:
                rows[-1] = Row((*last.members, i), shared, tokens)
                continue
        rows.append(row)
    return rows


def laid_out(prompts: Sequence[Sequence[int]], row: Row, start: int = 0) -> Layout:
    """A row without the first `start` tokens, at most those that its prompts share."""
    made = Layout([], [], {})
    before: Sequence[int] = ()
    columns: list[int] = []
    for i in row.members:
        ids, size = prompts[i], len(made.ids)
        alike = max(in_common(before, ids), start)
        columns = [*columns[: alike - start], *range(size, size + len(ids) - alike)]
        made.ids.extend(ids[alike:])
        made.positions.extend(range(alike, len(ids)))
        made.columns[i] = np.array(columns, dtype=np.int64)
        before = ids
    return made


def prefix_of(ids: Sequence[int], prompts: Iterable[int], width: int) -> Layout:
    """A row of tokens that some prompts (by index) begin with, padded on the left.

    So what follows is in the next columns: GPT-Neo and MPT count them.
    """
    padding = width - len(ids)
    columns = np.arange(padding, width)
    positions = [0] * padding + list(range(len(ids)))
    return Layout([0] * padding + list(ids), positions, dict.fromkeys(prompts, columns), padding)
