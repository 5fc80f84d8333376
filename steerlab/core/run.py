"""Run: one prompt continued at several strengths, with everything that decided the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from steerlab.core.cell import Cell
from steerlab.core.operation import ADD, Operation
from steerlab.core.sampling import GREEDY, Sampling

Positions = Literal["all", "prompt", "generated", "continuation"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated", "continuation")
"""The positions of a text at which a vector is added; see `Injection`."""


@dataclass(frozen=True)
class Generation:
    """One text of a run. coefficient: 0 for the baseline. dose: None where unknown.

    expression, layers: empty for the run's own. rating: from 1 to 5, None until rated.
    """

    coefficient: float
    dose: float | None
    text: str
    finish: str = "length"
    tokens: int = 0
    expression: str = ""
    layers: str = ""
    rating: int | None = None

    @classmethod
    def of(cls, cell: Cell) -> Generation:
        """The text of a comparison's cell."""
        setting = cell.setting
        return cls(float(setting.coefficient), setting.dose, cell.text, cell.finish, cell.tokens)


@dataclass(frozen=True)
class Run:
    """A comparison, with everything needed to repeat it.

    expression: as typed; empty for a run without a vector. layers: as typed ("15", "10:20");
        empty for the vector's own. model: the source of the model.
    best: index of the generation that a reader preferred, None until rated.
    id, created: given by the store. created: UTC, ISO 8601.
    """

    expression: str
    prompt: str
    model: str
    generations: tuple[Generation, ...]
    layers: str = ""
    positions: Positions = "all"
    seed: int = 0
    sampling: Sampling = GREEDY
    best: int | None = None
    operation: Operation = ADD
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    @classmethod
    def of(cls, cells: Sequence[Cell], expression: str, model: str, **options: Any) -> Run:
        """The run of a comparison's cells, all of one prompt and one seed.

        expression: as typed. options: the other fields, as they were given to `Lab.compare`.
        """
        generations = tuple(map(Generation.of, cells))
        return cls(expression, cells[0].prompt, model, generations, seed=cells[0].seed, **options)

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values."""
        data = asdict(self) | self.sampling.options() | self.operation.to_json()
        del data["sampling"]
        return data
