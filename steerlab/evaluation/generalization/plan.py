"""The plan of an evaluation, and the names of its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from steerlab.core.recipe import build
from steerlab.errors import BadOption
from steerlab.evaluation.generalization.suite import STANDARD
from steerlab.evaluation.statistics import CONTROLS

DOSE = 0.15
"""Used if no dose is given and no calibration is known."""

BASELINE = "baseline"  # the unsteered mean
TOWARD = "toward"  # at +c, minus the baseline
AWAY = "away"  # at -c, minus the baseline
RANGE = "signed range"  # at +c, minus at -c; damage common to both sides cancels
RANDOM = "random"  # the same of random directions with the vector's norm
SHUFFLED = "shuffled"  # the same of vectors of its own pairs with half of the labels swapped
Z = "z"  # the signed range in standard deviations of the random directions'
Z_SHUFFLED = "z shuffled"  # in those of the shuffled labels'

SHARE = "moved the right way"  # the share of items whose signed range is above 0, with bounds

ALL = "all styles"
NEUTRAL, ON_TOPIC, OFF_TOPIC, FACTS = "neutral", "on topic", "off topic", "facts"
ITEMS, OWN_PAIRS = "items", "own pairs, not held out"
OWN_TEXTS = "own prompts, not held out"

FLUENCY, DISTINCT, RUN = "fluency ratio", "distinct-2", "longest-run"
KL, PERPLEXITY, P1, P10 = "KL", "perplexity ratio", "P@1", "P@10"
PROPENSITY, STEERABILITY, ANTI = "propensity", "steerability", "anti-steerable"
LOST = "known facts lost"  # the share of facts that the baseline knows, with bounds
LOOSE = "texts beyond the fluency limit"  # the share of prompts, with bounds
COSTS = (FLUENCY, DISTINCT, RUN, KL, PERPLEXITY, P1, P10, LOST, LOOSE)

TEXT_LIMIT = 24
"""Tokens of each text that are scored; scoring all would take as long as writing them."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What a vector is measured on, and how strongly it steers.

    suites: built-in names or files. items: a file of contrast items.
    layers: None for the calibrated layer, or else the vector's own. dose, coefficient: measured
        at both signs; None for both means the calibrated dose, or else 0.15.
    metrics: metrics of texts (`scorers.scorer`). seeds: number of texts for each prompt.
    controls: number of random directions, and of shuffled-label vectors beside them.
    Raises BadOption for values that can't be measured.
    """

    suites: tuple[str, ...] = (STANDARD,)
    items: str | None = None
    layers: tuple[int, ...] | None = None
    dose: float | None = None
    coefficient: float | None = None
    metrics: tuple[str, ...] = ("vader",)
    seeds: int = 2
    controls: int = CONTROLS
    max_new_tokens: int = 32
    temperature: float = 0.7
    top_p: float = 0.9
    allow_other_weights: bool = False

    def __post_init__(self) -> None:
        if self.dose is not None and self.coefficient is not None:
            raise BadOption("give a dose or a coefficient, not both")
        size = self.dose if self.coefficient is None else self.coefficient
        if size is not None and not (math.isfinite(size) and size > 0):
            raise BadOption("the dose must be above 0: both signs are measured")
        if self.controls < CONTROLS:
            raise BadOption(
                f"an effect needs at least {CONTROLS} random directions to compare with"
            )
        if self.seeds < 1 or not self.suites or not self.metrics:
            raise BadOption("an evaluation needs a suite, a metric and a seed")
        if self.seeds > 1 and not self.temperature:
            raise BadOption("greedy text is the same for every seed: give a temperature above 0")

    @property
    def sampling(self) -> dict[str, Any]:
        """How texts are written, as options of `Lab.compare`."""
        names = ("max_new_tokens", "temperature", "top_p", "allow_other_weights")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvaluationPlan:
        """The plan that `to_json` wrote; unknown keys are ignored."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return build(cls, known, "plan")
