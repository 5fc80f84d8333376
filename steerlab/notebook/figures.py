"""Values as matplotlib figures: what their `.plot()` returns."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from steerlab.core.record import Record
from steerlab.core.results import Calibration, Evaluation
from steerlab.core.sweep import Sweep
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.inspection.difference import Difference
from steerlab.evaluation.inspection.inspect import Inspection
from steerlab.plots import figures
from steerlab.plots.calibration import response_of
from steerlab.plots.generalization import effect_panels
from steerlab.plots.sweep_grid import heat_grid, metric_of, values_of
from steerlab.plots.values import HeatGrid, Profile, profiles, vector_profiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@singledispatch
def figure(value: object) -> Figure:
    """A value as a figure that no window shows."""
    raise BadOption(f"there is no picture of {value!r:.80}")


@figure.register(SteeringVector)
def _(value: SteeringVector) -> Figure:
    return figures.layer_profile(str(value), vector_profiles(value))


@figure.register(Record)
def _(value: Record) -> Figure:
    return figures.layer_profile(value.ref, profiles(value))


@figure.register(Inspection)
def _(value: Inspection) -> Figure:
    return figures.layer_profile(value.name, vector_profiles(value.vector))


@figure.register(Calibration)
def _(value: Calibration) -> Figure:
    return figures.dose_response(response_of(value, short(value.digest)))


@figure.register(Evaluation)
def _(value: Evaluation) -> Figure:
    panels = effect_panels(value, short(value.digest))
    if not panels:
        raise BadOption("the evaluation has no effect with an interval: there is nothing to draw")
    return figures.generalization(panels)


@figure.register(Difference)
def _(value: Difference) -> Figure:
    known = [x for x in value.layers if x.cosine is not None]
    if not known:
        raise BadOption(f"{value.a} and {value.b} have no layer in common: nothing to draw")
    layers = tuple(x.layer for x in known)
    cosines = Profile("cosine", layers, tuple(x.cosine or 0.0 for x in known), level=0.0)
    norms = [
        Profile(f"norm of {name}", layers, tuple(getattr(x, side) for x in known))
        for name, side in ((value.a, "norm_a"), (value.b, "norm_b"))
    ]
    return figures.layer_profile(f"{value.a} and {value.b}", [cosines, *norms])


@figure.register(Sweep)
def _(value: Sweep, metric: str | None = None) -> Figure:
    return figures.heatmap(grid_of(value, metric))


def grid_of(sweep: Sweep, metric: str | None = None) -> HeatGrid:
    """A metric's means; None takes the first that was measured, else one that needs no model."""
    if not sweep.layers:
        raise BadOption("the sweep has no layer: there is nothing to draw")
    usual = "shared" if any(not s.strength for s in sweep.settings) else "distinct-2"
    found = metric_of(sweep, metric or next(iter(sweep.metrics), usual))
    return heat_grid(sweep, found, [value for value, _ in values_of(sweep, found)])


def short(digest: str) -> str:
    """A digest as it is shown where no name is known."""
    return digest[:12]
