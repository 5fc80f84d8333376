"""The terminal UI's memory between sessions: a small JSON file in the user's config."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlab.errors import StoreError
from steerlab.files import durable
from steerlab.files.location import expanded

STORES = 32
"""Stores that are remembered; the least recently used is dropped first."""

_LONGEST = 10_000  # characters of one value: an essay is kept, a book is not
_MOST = 64  # values of one store
_LARGEST = 4 * 2**20  # bytes of the file

Values = dict[str, Any]


@dataclass
class Memory:
    """The theme, whether the first hint was read, and the setup of each store.

    A missing, damaged or foreign file gives the defaults, and a file that can't be written is
    ignored: nothing may fail because of it.

    theme: empty if none was chosen.
    stores: directory -> names and plain values, the least recently used first.
    """

    theme: str = ""
    stores: dict[str, Values] = field(default_factory=dict)
    greeted: bool = False
    _kept: dict[str, Values] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls) -> Memory:
        """Read the file."""
        try:
            if (path := memory_path()).stat().st_size > _LARGEST:
                return cls()
            data = json.loads(path.read_bytes())
            stores = {name: _fitting(values) for name, values in data.get("stores", {}).items()}
            theme = data.get("theme")
        except (OSError, ValueError, RecursionError, AttributeError):
            return cls()
        theme = theme if isinstance(theme, str) and _fits(theme) else ""
        return cls(theme, _newest(stores), data.get("greeted") is True)

    def of_store(self, path: Path) -> Values:
        """The values of a store; empty for an unknown one."""
        return dict(self.stores.get(_key(path), {}))

    def keep(self, path: Path, values: Mapping[str, Any]) -> None:
        """Set the values of a store; only plain ones are kept."""
        key = _key(path)
        self._kept[key] = self.stores[key] = _fitting(values)

    def save(self) -> None:
        """Replace the file, or leave it as it is on an error.

        Values that other sessions saved for other stores are kept.
        """
        with suppress(OSError, StoreError):
            others = Memory.load().stores
            for key in self._kept:
                others.pop(key, None)
            self.stores = _newest({**others, **self._kept})
            data = {"theme": self.theme, "greeted": self.greeted, "stores": self.stores}
            with durable.writing(memory_path()) as file:
                os.chmod(file.name, 0o600)  # only the user may read prompts
                file.write(f"{json.dumps(data, indent=1)}\n".encode())


def memory_path() -> Path:
    """The file in STEERLAB_CONFIG, else in the user's config directory."""
    if chosen := os.environ.get("STEERLAB_CONFIG"):
        return expanded(chosen) / "tui.json"
    from platformdirs import user_config_path

    return user_config_path("steerlab") / "tui.json"


def _key(path: Path) -> str:
    return os.path.abspath(path)


def _fitting(values: Mapping[str, Any]) -> Values:
    plain = {name: value for name, value in values.items() if _fits(name) and _fits(value)}
    return dict(list(plain.items())[:_MOST])


def _fits(value: object) -> bool:
    """Whether a value is plain and short enough."""
    if isinstance(value, str):
        return len(value) <= _LONGEST
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None


def _newest(stores: dict[str, Values]) -> dict[str, Values]:
    return dict(list(stores.items())[-STORES:])
