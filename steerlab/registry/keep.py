"""Storing a vector unless it is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from steerlab.core.vector import SteeringVector
from steerlab.errors import NotFound

if TYPE_CHECKING:
    from steerlab.registry import Store


def keep(
    store: Store, name: str, vector: SteeringVector, *, tags: Iterable[str] = (), note: str = ""
) -> tuple[SteeringVector, bool]:
    """Store a vector unless it is the newest of that name; returns it, and whether it was new.

    Tags and a note are added to the version that is there.
    """
    try:
        newest = store.load(name, vector.model)
    except NotFound:
        newest = None
    if newest is None or newest != vector:
        return store.save(name, vector, tags=tags, note=note), True
    if tags:
        store.tag(name, add=tags, model=vector.model)
    if note:
        store.note(name, note, model=vector.model)
    return newest, False
