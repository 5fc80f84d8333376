"""Curves: the dose-response and its control, the effect and the norm by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.tui.detail.overview import head
from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration
    from steerlab.evaluation.calibration.curve import Curve
    from steerlab.registry import Summary

LATER = """\
Not calibrated. `steerlab calibrate {name}` finds the layer and dose at which it works. The \
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
        """The record, and the newest calibration."""
        store = self.lab.store
        record = store.record(summary.qualified)
        return record, store.results.calibration_of(record.digest)

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
            plots.mount_all([plot(name, *values) for name, values in profiles(record).items()])


def about(record: Record, calibration: Calibration | None) -> str:
    """The verdict of the calibration, or how to calibrate."""
    if calibration is None:
        return LATER.format(name=printable(record.name))
    from steerlab.evaluation.calibration.curve import verdict

    return printable(verdict(calibration))


def measured(calibration: Calibration) -> Iterator[Any]:
    """Plots of the dose-response with its control, and of the effect by layer."""
    from steerlab.evaluation.calibration.curve import Curve

    curve = Curve.of(calibration)
    yield response(curve)
    if len(curve.layers) > 1:
        layers = [row.layer for row in curve.layers]
        effects = [row.effect.mean for row in curve.layers]
        yield plot(f"{printable(curve.measure)} at dose ±{curve.profile_dose:g}", layers, effects)


def response(curve: Curve) -> Any:
    """Effect by dose with 95% interval, and random directions with ±2 standard deviations."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot(classes="response")
    plt, points = widget.plt, curve.points
    doses = [p.dose for p in points]
    low, high = _window(curve)
    for p in points:
        ends = [min(max(end, low), high) for end in (p.effect.low, p.effect.high)]
        if all(end == end for end in ends):
            plt.plot([p.dose, p.dose], ends, marker="braille", color="cyan")
        around = [p.controls.mean - 2 * p.controls.sd, p.controls.mean + 2 * p.controls.sd]
        plt.plot([p.dose, p.dose], around, marker="dot", color="gray")
    plt.plot(doses, [p.controls.mean for p in points], marker="dot", color="gray", label="random")
    means = [p.effect.mean for p in points]
    plt.plot(doses, means, marker="braille", color="cyan", label="vector")
    plt.ylim(low, high)
    plt.title(f"{printable(curve.measure)} by dose at layer {curve.layer}, 95% interval")
    return widget


def _window(curve: Curve) -> tuple[float, float]:
    """The y axis: the means with a margin; intervals of few items are far wider."""
    means = [0.0, *(p.effect.mean for p in curve.points)]
    room = 0.5 * (max(means) - min(means)) or 1.0
    return min(means) - room, max(means) + room


def profiles(record: Record) -> dict[str, tuple[list[int], list[float]]]:
    """Quantity -> (layers, values), for quantities known at two layers or more."""
    doses = record.doses()
    names = sorted({name for facts in record.layers for name in facts.diagnostics})
    rows: dict[str, list[tuple[int, float | None]]] = {
        "norm": [(facts.layer, facts.norm) for facts in record.layers],
        "dose of coefficient 1": [(facts.layer, doses[facts.layer]) for facts in record.layers],
    }
    for name in names:
        rows[name.replace("_", " ")] = [
            (facts.layer, facts.diagnostics.get(name)) for facts in record.layers
        ]
    known = {name: [(b, v) for b, v in row if v is not None] for name, row in rows.items()}
    return {
        name: ([b for b, _ in row], [v for _, v in row])
        for name, row in known.items()
        if len(row) > 1
    }


def plot(name: str, layers: list[int], values: list[float]) -> Any:
    """A line plot over layers."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot()
    widget.plt.plot(layers, values, marker="braille")
    widget.plt.title(f"{name} by layer")
    return widget
