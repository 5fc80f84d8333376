"""A metric over a sweep: the value of each cell, and the grid of their means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from steerlab.core.cell import MetricValue
from steerlab.core.sweep import Strength, Sweep
from steerlab.evaluation.metrics.scorers import scorer
from steerlab.evaluation.metrics.texts import Metric
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
    return replace(
        blank_grid(metric, sweep.layers, sweep.strengths, sweep.strength),
        values=rows,
        centre=centre if centre is not None and math.isfinite(centre) else None,
    )


def blank_grid(
    metric: Metric, layers: Sequence[int], strengths: Sequence[float], kind: Strength
) -> HeatGrid:
    """The grid of a metric before a text is written."""
    return HeatGrid(
        f"{metric.name}: {metric.about}",
        metric.name,
        tuple(layers),
        tuple(_column(s, kind) for s in strengths),
        ((None,) * len(strengths),) * len(layers),
        strength=kind,
        digits=metric.digits,
        signed=metric.low < 0,
    )


def _column(strength: float, kind: Strength) -> str:
    if not strength:
        return "0"
    if kind == "dose" and 0.005 <= abs(strength) < 100:
        return f"{strength:+.2f}"
    return f"{strength:+.4g}"


def mean(scores: Sequence[float]) -> float | None:
    """The mean without NaN; NaN if nothing is left, None for no scores."""
    if not scores:
        return None
    defined = [score for score in scores if not math.isnan(score)]
    return math.fsum(defined) / len(defined) if defined else math.nan
