"""Curves: norm, dose and what was measured at extraction, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import Worker

from steerlab.tui.detail.overview import head
from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.record import Record
    from steerlab.registry import Summary

LATER = """\
The dose-response curve, with its random-direction control, comes with the evaluation \
(`steerlab calibrate`)."""


class Curves(Pane):
    """A small plot a quantity; a vector with one layer says its numbers instead."""

    DEFAULT_CSS = """
    Curves #plots { height: auto; }
    Curves PlotextPlot { height: 10; }
    Curves Static { height: auto; }
    """

    def compose(self) -> ComposeResult:
        """Numbers, plots, and what is still to come."""
        yield Static(id="numbers", markup=False)
        yield Vertical(id="plots")
        yield Static(LATER, classes="quiet", markup=False)

    def read(self, summary: Summary, worker: Worker[None]) -> Record:
        """The record has it all."""
        return self.lab.store.record(summary.qualified)

    def draw(self, found: Record) -> None:
        """Plots where there is more than one layer."""
        several = len(found.layers) > 1
        plots = self.query_one("#plots", Vertical)
        plots.remove_children()
        self.query_one("#numbers", Static).update("" if several else head(found))
        if several:
            plots.mount_all([plot(name, *values) for name, values in profiles(found).items()])


def profiles(record: Record) -> dict[str, tuple[list[int], list[float]]]:
    """Quantity -> (layers, values), of those that are known at two layers or more."""
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
    """A line over layers."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot()
    widget.plt.plot(layers, values, marker="braille")
    widget.plt.title(f"{name} by layer")
    return widget
