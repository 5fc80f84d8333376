from __future__ import annotations

from pathlib import Path

import pytest

from steerlab.registry import Store
from tests.registry.samples import vector


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store; its directory does not exist yet."""
    return Store(tmp_path / "store")


@pytest.fixture
def family(store: Store) -> Store:
    """love, anger, warm = love - 0.5*anger, and deep = 2*warm."""
    love = store.save("love", vector(1), tags=["feeling"], note="the first")
    anger = store.save("anger", vector(2))
    warm = store.save("warm", love - 0.5 * anger)
    store.save("deep", 2 * warm)
    return store
