from __future__ import annotations

from tests.registry.conftest import family, relatives, store

__all__ = ["family", "relatives", "store"]
