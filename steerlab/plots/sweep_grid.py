"""A metric over a sweep: the value of each cell, and the grid of their means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from steerlab.core.cell import MetricValue
from steerlab.core.sweep import Sweep
from steerlab.evaluation.metrics.scorers import scorer
from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.grid import mean
from steerlab.plots.values import HeatGrid

Value = tuple[float, str]
"""A metric's value, NaN if undefined, and the reason why it is; empty if it is defined."""


def metric_of(sweep: Sweep, spec: str) -> Metric:
    """A metric stored with the sweep, or any that `scorer` finds."""
    if spec in sweep.metrics:
        return Metric(spec, "measured with the model", lambda text: math.nan, high=None)
    return scorer(spec)


def values_of(sweep: Sweep, metric: Metric) -> list[Value]:
    """Each cell's value; metrics that compare use the baseline of the same prompt and seed."""
    unknown = MetricValue(None, "it was not measured")
    if metric.name in sweep.metrics:
        found = [cell.metrics.get(metric.name, unknown) for cell in sweep.cells]
    else:
        found = metric(None, sweep, sweep.cells)
    return [
        (math.nan, v.reason or str(unknown.reason)) if v.value is None else (v.value, "")
        for v in found
    ]


def heat_grid(sweep: Sweep, metric: Metric, values: Sequence[float]) -> HeatGrid:
    """The metric's means over prompts and seeds, by layer and strength.

    values: one for each cell, NaN where undefined. Strength 0 is the baseline, the same at
    every layer.
    """
    scores = defaultdict(list)
    for cell, value in zip(sweep.cells, values, strict=True):
        scores[cell.setting.layer, cell.setting.strength].append(value)
    rows = tuple(
        tuple(mean(scores[layer if s else None, s]) for s in sweep.strengths)
        for layer in sweep.layers
    )
    centre = mean(scores[None, 0.0]) if 0.0 in sweep.strengths else None
    return HeatGrid(
        f"{metric.name}: {metric.about}",
        metric.name,
        sweep.layers,
        tuple(_strength(sweep, s) for s in sweep.strengths),
        rows,
        centre=centre if centre is not None and math.isfinite(centre) else None,
        strength=sweep.strength,
        digits=metric.digits,
        signed=metric.low < 0,
    )


def _strength(sweep: Sweep, strength: float) -> str:
    if not strength:
        return "0"
    if sweep.strength == "dose" and 0.005 <= abs(strength) < 100:
        return f"{strength:+.2f}"
    return f"{strength:+.4g}"
