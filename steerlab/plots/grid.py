"""Grid: a sweep's settings as a table, layers down and strengths across."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.setting import Setting

Values = list[list[float | None]]
"""A row a layer, a column a strength; None where nothing was written, NaN where undefined."""


@dataclass(frozen=True)
class Grid:
    """Where each setting of a sweep stands.

    strengths: doses or coefficients as they were given; every layer's cell of strength 0 is
        the baseline.
    settings: those of the sweep, a baseline before the others if there is one.
    """

    strengths: tuple[float, ...]
    settings: tuple[Setting, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, from top to bottom; empty where no strength steers."""
        found = [s.layer for s in self.settings if s.layer is not None]
        return tuple(dict.fromkeys(found))

    @property
    def baseline(self) -> int | None:
        """The baseline's place among the settings; None if the sweep has none."""
        return 0 if self.settings and self.settings[0].layer is None else None

    def place(self, row: int, column: int) -> int | None:
        """The place among the settings of a cell; None for a baseline that the sweep lacks."""
        if not self.strengths[column]:
            return self.baseline
        steered = [i for i, strength in enumerate(self.strengths) if strength]
        first = 0 if self.baseline is None else 1
        return first + row * len(steered) + steered.index(column)

    def means(self, scores: Mapping[int, Sequence[float]]) -> Values:
        """The mean of each cell's scores, those undefined left out; scores: by place."""
        rows = range(len(self.layers))
        columns = range(len(self.strengths))
        places = [[self.place(row, column) for column in columns] for row in rows]
        return [[mean(scores.get(p, ())) if p is not None else None for p in row] for row in places]


def mean(scores: Sequence[float]) -> float | None:
    """The mean of what is defined; NaN if nothing is, None if there is nothing at all."""
    if not scores:
        return None
    defined = [score for score in scores if not math.isnan(score)]
    return math.fsum(defined) / len(defined) if defined else math.nan
