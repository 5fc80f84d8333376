"""The sweep screen: layers x doses as a heatmap, and the texts behind each cell."""

from steerlab.tui.sweep.screen import Promoted, SweepScreen

__all__ = ["Promoted", "SweepScreen"]
