"""Where things are when nobody says: the store, and what can be made again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def discover(environment: Mapping[str, str] | None = None) -> Path:
    """The store's directory: STEERLAB_STORE, ./store if it is one, the user's data directory."""
    named = (os.environ if environment is None else environment).get("STEERLAB_STORE")
    if named:
        return Path(named).expanduser()
    here = Path("store")
    if (here / "payloads").is_dir() or (here / "registry.db").is_file():
        return here
    from platformdirs import user_data_path

    return user_data_path("steerlab", appauthor=False) / "store"


def cache_directory() -> Path:
    """Where what can be made again is kept: STEERLAB_CACHE, or the user's cache directory."""
    chosen = os.environ.get("STEERLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("steerlab")
