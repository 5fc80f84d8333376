from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steerlab.registry import Store
from tests.registry.samples import vector


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store; its directory does not exist yet."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def relatives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `family` copies, which is faster than saving."""
    store = Store(tmp_path_factory.mktemp("family") / "store")
    love = store.save("love", vector(1), tags=["feeling"], note="the first")
    anger = store.save("anger", vector(2))
    warm = store.save("warm", love - 0.5 * anger)
    store.save("deep", 2 * warm)
    return store.path


@pytest.fixture
def family(store: Store, relatives: Path) -> Store:
    """love, anger, warm = love - 0.5*anger, and deep = 2*warm."""
    shutil.copytree(relatives, store.path)
    return store
