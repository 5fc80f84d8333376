"""Grid: the settings of a sweep as a table, layers down and strengths across."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.setting import Setting

Values = list[list[float | None]]
"""A row for each layer, a column for each strength; None without texts, NaN if undefined."""


@dataclass(frozen=True)
class Grid:
    """The settings of a sweep by layer and strength.

    strengths: doses or coefficients as given; at strength 0 every layer has the baseline.
    settings: of the sweep; a baseline comes first.
    """

    strengths: tuple[float, ...]
    settings: tuple[Setting, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, from top to bottom; empty if no strength steers."""
        found = [s.layer for s in self.settings if s.layer is not None]
        return tuple(dict.fromkeys(found))

    @property
    def baseline(self) -> int | None:
        """Index of the baseline among the settings; None if the sweep has none."""
        return 0 if self.settings and self.settings[0].layer is None else None

    def place(self, row: int, column: int) -> int | None:
        """Index of a cell's setting; None for a baseline that the sweep lacks."""
        if not self.strengths[column]:
            return self.baseline
        steered = [i for i, strength in enumerate(self.strengths) if strength]
        first = 0 if self.baseline is None else 1
        return first + row * len(steered) + steered.index(column)

    def means(self, scores: Mapping[int, Sequence[float]]) -> Values:
        """The mean of each cell's scores without NaN; scores: by index of the setting."""
        rows = range(len(self.layers))
        columns = range(len(self.strengths))
        places = [[self.place(row, column) for column in columns] for row in rows]
        return [[mean(scores.get(p, ())) if p is not None else None for p in row] for row in places]


def mean(scores: Sequence[float]) -> float | None:
    """The mean without NaN; NaN if nothing is left, None for no scores."""
    if not scores:
        return None
    defined = [score for score in scores if not math.isnan(score)]
    return math.fsum(defined) / len(defined) if defined else math.nan
