"""Everything known of the vector under the cursor, in tabs that are read when they are opened."""

from steerlab.tui.detail.detail import Detail

__all__ = ["Detail"]
