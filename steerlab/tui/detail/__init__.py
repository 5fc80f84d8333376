"""The details of the vector under the cursor, in tabs that are read when they are opened."""

from steerlab.tui.detail.detail import Detail
from steerlab.tui.detail.pane import Pane

__all__ = ["Detail", "Pane"]
