"""Texts of one prompt under several strengths, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.core import above
from steerlab.core.arguments import checks_names, numbers
from steerlab.core.cell import Cell
from steerlab.core.display import printable, strength_text
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE, Setting
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.lab.lab import Lab

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.models.language_model import LanguageModel

DOSES = (-0.2, 0.0, 0.2)


@dataclass(frozen=True, repr=False)
class Comparison(above.Shown):
    """Texts of prompts under the same settings; notebooks show them as columns.

    cells: prompt by prompt, seed by seed, setting by setting.
    """

    label: str
    settings: tuple[Setting, ...]
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells of each prompt and seed, in the order of the settings."""
        wide = len(self.settings)
        return [self.cells[i : i + wide] for i in range(0, len(self.cells), wide)]

    def __str__(self) -> str:
        return "\n\n".join(map(_lines, self.rows))

    def __repr__(self) -> str:
        return str(self)


def _lines(row: Sequence[Cell]) -> str:
    names = [strength_text(cell.setting) for cell in row]
    width = max(map(len, names))
    texts = [
        f"  {name:{width}}  {printable(cell.text)}" for name, cell in zip(names, row, strict=True)
    ]
    return "\n".join([printable(row[0].prompt), *texts])


@checks_names(Sampling, Lab.compare)
def compare(
    model: LanguageModel | Lab,
    vector: str | SteeringVector,
    prompts: str | Sequence[str],
    *,
    doses: float | Sequence[float] = (),
    coefficients: float | Sequence[float] = (),
    layers: LayerChoice = None,
    **options: Any,
) -> Comparison:
    """Generate with a vector at several strengths, all its layers at once, as one batch.

    model: a LanguageModel, with the store that `Store()` finds, or a Lab.
    vector: may be an expression over stored vectors.
    doses, coefficients: give one of the two; 0 is the baseline. Neither takes the baseline and
        the calibrated dose, or -0.2, 0 and 0.2 for a vector that was not calibrated.
    layers: None for the calibrated one, else for the vector's own.
    options: as for `Lab.compare`.
    """
    lab = lab_of(model, "compare")
    doses, coefficients = numbers(doses, "doses"), numbers(coefficients, "coefficients")
    if doses and coefficients:
        raise BadOption("give doses or coefficients, not both")
    made = lab.evaluate(vector) if isinstance(vector, str) else vector
    if not isinstance(made, SteeringVector):
        raise BadOption(f"compare takes a vector or an expression, not {made!r:.60}")
    point = lab.operating_point(made, layers)
    if not coefficients:
        usual = DOSES if point.calibration is None else (0.0, point.calibration.dose or 0.0)
        at = point.vector
        coefficients = [at.coefficient(d) if d else 0.0 for d in doses or usual]
    settings = tuple(Setting(point.vector, c) if c else BASELINE for c in coefficients)
    return Comparison(str(made), settings, tuple(lab.compare(prompts, settings, **options)))


def lab_of(model: LanguageModel | Lab, function: str) -> Lab:
    """A lab, or one of a model and the store that `Store()` finds; BadOption for anything else."""
    if isinstance(model, Lab):
        return model
    if not hasattr(model, "generate") or not hasattr(model, "tokens"):
        raise BadOption(f"{function} takes a LanguageModel or a Lab first, not {model!r:.60}")
    return Lab(None, model)
