"""The default locations of the store and the cache."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def discover() -> Path:
    """The store's directory: STEERLAB_STORE, ./store if it is one, the user's data directory.

    Absolute, so that a later change of the working directory finds the same one.
    """
    if named := os.environ.get("STEERLAB_STORE"):
        return expanded(named).absolute()
    here = Path("store").absolute()
    finish_move(here)
    if (here / "payloads").is_dir() or (here / "registry.db").is_file():
        return here
    from platformdirs import user_data_path

    return user_data_path("steerlab", appauthor=False) / "store"


def expanded(path: str | Path) -> Path:
    """A path with ~ expanded, unless the user is unknown."""
    return Path(os.path.expanduser(path))


def finish_move(directory: Path) -> None:
    """Finish the last step of a restore: move a waiting store into place if there is none.

    Call it before checking whether a store exists: a restore may be in its last step, or may
    have been killed there.
    """
    if not directory.exists():
        target = Path(os.path.realpath(directory))
        with contextlib.suppress(OSError):
            os.rename(waiting(target), target)


def waiting(target: Path) -> Path:
    """Where a restored store waits to be moved into place."""
    return target.with_name(f".tmp-{target.name}.restored")


def extractions_directory() -> Path:
    """Where the activations of large sets are kept while they are read."""
    return cache_directory() / "extractions"


def cache_directory() -> Path:
    """The cache directory: STEERLAB_CACHE, or the user's cache directory."""
    if chosen := os.environ.get("STEERLAB_CACHE"):
        return expanded(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("steerlab")
