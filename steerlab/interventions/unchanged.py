"""Unchanged: the rows of a batch that a steering has not changed yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class Unchanged:
    """The rows of one batch of texts that are steered, and in which nothing was due so far.

    Each text has to be changed by itself: in a batch, and after other texts, as it would alone.
    rows: (layer, positions) -> (batch,) bool; None once every row is changed.
    """

    rows: dict[tuple[int, str], Tensor | None] = field(default_factory=dict)

    def are_left(self, key: tuple[int, str]) -> bool:
        """Whether rows are left, or it is not known yet which are steered."""
        return self.rows.get(key, ...) is not None

    def of(self, key: tuple[int, str], delta: Tensor, batch: int) -> Tensor:
        """Those of a pass, (batch,) bool; at first all rows that a delta steers.

        delta: (batch or 1, positions, d_model), before it is spread over the tokens.
        """
        rows = self.rows.get(key)
        if rows is None or len(rows) != batch:
            return delta.any(dim=2).any(dim=1).expand(batch)
        return rows.to(delta.device)
