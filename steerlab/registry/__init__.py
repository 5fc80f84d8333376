"""The registry: which vectors there are, what each one is, and how it was made."""

from __future__ import annotations

from steerlab.files.location import discover
from steerlab.registry.queries import SORTS, Summary
from steerlab.registry.store import Store

__all__ = ["SORTS", "Store", "Summary", "discover"]
