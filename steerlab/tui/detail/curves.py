"""Curves: the dose-response and its control, the effect and the norm by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.plots.values import DoseResponse, Profile, profiles
from steerlab.tui.detail.overview import head
from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration
    from steerlab.registry import Summary

LATER = """\
Not calibrated. c (`steerlab calibrate {name}`) finds the layer and dose at which it works. The \
dose-response then appears here, beside random directions of the same length."""

Found = tuple["Record", "Calibration | None"]


class Curves(Pane):
    """One plot per quantity; numbers instead for a vector of one layer."""

    DEFAULT_CSS = """
    Curves #plots { height: auto; }
    Curves PlotextPlot { height: 10; }
    Curves .response { height: 14; }
    Curves Static { height: auto; }
    """

    def compose(self) -> ComposeResult:
        """Verdict, numbers and plots."""
        yield Static(id="verdict", markup=False)
        yield Static(id="numbers", markup=False)
        yield Vertical(id="plots")

    def read(self, summary: Summary, worker: Worker[None]) -> Found:
        """The record, and the calibration by which the vector is used."""
        store = self.lab.store
        record = store.record(summary.qualified)
        return record, store.results.in_use(record)[0]

    def draw(self, found: Found) -> None:
        """Plot quantities with more than one point."""
        record, calibration = found
        several = len(record.layers) > 1
        plots = self.query_one("#plots", Vertical)
        plots.remove_children()
        self.query_one("#numbers", Static).update("" if several else head(record))
        self.query_one("#verdict", Static).update(about(record, calibration))
        if calibration is not None:
            plots.mount_all(measured(calibration))
        if several:
            known = [profile for profile in profiles(record) if len(profile.layers) > 1]
            plots.mount_all([plot(f"{profile.name} by layer", profile) for profile in known])


def about(record: Record, calibration: Calibration | None) -> str:
    """The verdict of the calibration, or how to calibrate."""
    if calibration is None:
        return LATER.format(name=printable(record.name))
    from steerlab.evaluation.calibration.curve import findings

    return printable("\n· ".join(findings(calibration)), newlines=True)


def measured(calibration: Calibration) -> Iterator[Any]:
    """Plots of the dose-response with its control, and of effect and cost by layer."""
    from steerlab.evaluation.calibration.curve import Curve
    from steerlab.plots.calibration import layers_of, response_of

    yield response(response_of(calibration, Curve.of(calibration).measure))
    for layers in layers_of(calibration):
        yield plot(layers.name, layers)


def response(found: DoseResponse) -> Any:
    """Effect by dose with 95% interval, and random directions with ±2 standard deviations."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot(classes="response")
    plt, points = widget.plt, found.points
    low, high = found.window
    for p in points:
        if math.isfinite(p.effect.low) and math.isfinite(p.effect.high):
            ends = [max(p.effect.low, low), min(p.effect.high, high)]
            plt.plot([p.dose, p.dose], ends, marker="braille", color="cyan")
    known = [p for p in points if all(map(math.isfinite, p.controls.reach))]
    for p in known:
        plt.plot([p.dose, p.dose], [*p.controls.reach], marker="dot", color="gray")
    doses, means = [p.dose for p in known], [p.controls.mean for p in known]
    plt.plot(doses, means, marker="dot", color="gray", label="random")
    doses, means = [p.dose for p in points], [p.effect.mean for p in points]
    plt.plot(doses, means, marker="braille", color="cyan", label="vector")
    plt.ylim(low, high)
    plt.title(f"{printable(found.name)} by dose at layer {found.layer}, 95% interval")
    return widget


def plot(title: str, found: Profile) -> Any:
    """A line plot over layers."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot()
    widget.plt.plot(found.layers, found.values, marker="braille")
    widget.plt.title(printable(title))
    return widget
