"""The starter vectors: made from contrast prompts that come with steerlab."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from steerlab.errors import NotFound

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

LAYER = 15
"""The middle of the embedded model, where its vectors act well."""


@dataclass(frozen=True)
class Starter:
    """Contrast prompts of one starter vector."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    note: str
    tags: tuple[str, ...]


@cache
def starters() -> dict[str, Starter]:
    """Name -> prompts, read from `starter.toml` in the package."""
    text = files("steerlab.lab").joinpath("starter.toml").read_text(encoding="utf-8")
    return {
        name: Starter(
            tuple(entry["positive"]), tuple(entry["negative"]), entry["note"], tuple(entry["tags"])
        )
        for name, entry in tomllib.loads(text).items()
    }


def extract(lab: Lab, name: str, layer: int) -> SteeringVector:
    """A starter vector of the lab's model, extracted and stored."""
    entry = starters()[name]
    pairs = list(zip(entry.positive, entry.negative, strict=True))
    return lab.extract(name, pairs, layers=layer, tags=entry.tags, note=entry.note)


def ensure(
    lab: Lab, names: Iterable[str] | None = None, made: Callable[[str], object] | None = None
) -> dict[str, SteeringVector]:
    """The named starter vectors (by default all) on the embedded model.

    Those not in the store are extracted and stored. made: called with each name that was.
    """
    found = {}
    for name in names or starters():
        try:
            found[name] = lab.store.load(f"smollm2.{name}")
        except NotFound:
            found[name] = extract(lab, name, LAYER)
            if made is not None:
                made(name)
    return found
