"""Injection: one vector to add, how strongly, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from steerlab.core.run import POSITIONS, Positions
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, SteeringError

Place = Positions | Literal["front"]
"""Where an injection acts: at the positions that were asked for, or on the first tokens."""


@dataclass(frozen=True)
class Injection:
    """One vector to add: h' = h + coefficient * v at the input of each of its layers.

    positions: "all"; "prompt"; "generated" (from the last prompt position on, the one that
        produces the first new token); "continuation" (strictly after the prompt). A front
        vector always goes on the first tokens of the prompt, whatever `positions` says.
    rows: which prompts of the batch, from 0; None is every one. Beams and return sequences of a
        prompt are steered with it.
    """

    vector: SteeringVector
    coefficient: float = 1.0
    positions: Positions = "all"
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.coefficient):
            raise BadOption(f"a coefficient has to be a finite number, not {self.coefficient}")
        if self.positions not in POSITIONS:
            raise BadOption(f"positions are {', '.join(POSITIONS)}, not {self.positions!r}")
        if self.rows is not None and not (self.rows and all(map(_is_row, self.rows))):
            raise BadOption(f"rows are row numbers of the batch, from 0, not {self.rows!r}")

    @property
    def place(self) -> Place:
        """The positions that it acts at."""
        return "front" if self.vector.scope == "front" else self.positions

    @property
    def is_zero(self) -> bool:
        """Whether it adds nothing: c = 0, or a zero vector.

        Raises SteeringError for a vector that is zero only once it is rounded to float32.
        """
        if self.coefficient == 0 or self.vector.norm == 0:
            return True
        if not any(array.any() for array in self.vector.float32().values()):
            raise SteeringError(
                f"{self.vector} is so small (norm {self.vector.norm:.2g}) that it is zero "
                "in float32: scale the vector up, not the coefficient"
            )
        return False


def _is_row(row: object) -> bool:
    return isinstance(row, int) and not isinstance(row, bool) and row >= 0
