"""The registry: which vectors there are, what each one is, and how it was made."""

from __future__ import annotations

from steerlab.files.location import discover
from steerlab.registry.lineage import Lineage, Node
from steerlab.registry.queries import SORTS, StoredModel, Summary
from steerlab.registry.store import Store

__all__ = ["SORTS", "Lineage", "Node", "Store", "StoredModel", "Summary", "discover"]
