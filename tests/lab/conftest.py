from __future__ import annotations

from tests.registry.conftest import family, store

__all__ = ["family", "store"]
