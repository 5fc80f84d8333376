"""Results: what is known of a vector once it was measured. Plain values, kept by the registry."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from steerlab.errors import BadOption


@dataclass(frozen=True)
class Calibration:
    """Where and how strongly a vector works, found on one split and reported on another.

    digest: of the vector. layer, dose, coefficient: the operating point; None where nothing
        works, that is where no dose beat its control.
    safe: signed doses between which the text stays sound, None where nothing works.
    data: the curves and how they were measured, as JSON values; never searched.
    id, created: given by the store. created: UTC, ISO 8601.
    Raises BadOption for a vector that works nowhere, or a range in the wrong order.
    """

    digest: str
    works: bool
    layer: int | None = None
    dose: float | None = None
    coefficient: float | None = None
    safe: tuple[float, float] | None = None
    data: Any = None
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        point = (self.layer, self.dose, self.coefficient, self.safe)
        if self.works and None in point:
            raise BadOption("a vector that works has a layer, a dose, a coefficient, a safe range")
        if self.safe is not None and not self.safe[0] <= self.safe[1]:
            raise BadOption(f"a safe range goes from low to high, not {self.safe}")

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """An estimate of a metric on one style of prompts, with its interval.

    setting: what was measured, in words ("dose +0.15", "control"). estimate, low, high: None
        where undefined. n: items that it is over.
    """

    style: str
    metric: str
    setting: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def __post_init__(self) -> None:
        for name in ("estimate", "low", "high"):
            object.__setattr__(self, name, defined(getattr(self, name)))


@dataclass(frozen=True)
class Evaluation:
    """A vector measured on a suite of prompts, with one model and one set of library versions.

    digest: of the vector. suite_digest: of the suite's content. model_key: which model it is
    (`steerlab.core.recipe.ModelIdentity`), model: where it came from. versions: library -> version.
    data: how it was measured and what there is to say of it, as JSON values; never searched.
    id, created: given by the store. created: UTC, ISO 8601.
    """

    digest: str
    suite: str
    suite_digest: str
    model: str
    model_key: str
    versions: dict[str, str]
    values: tuple[Measured, ...]
    data: Any = None
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return asdict(self)


def defined(value: float | None) -> float | None:
    """The value, or None for what is not finite: NaN is no JSON, and no number in SQL."""
    return value if value is None or math.isfinite(value) else None
