"""The terminal UI: browse stored vectors, write with them beside the baseline."""

from __future__ import annotations
