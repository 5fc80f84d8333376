"""Layers that stored vectors lack, made while a server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, TypeVar

from steerlab.core.notation import span
from steerlab.errors import Incompatible
from steerlab.serving.engine import Busy

if TYPE_CHECKING:
    from steerlab.core.recipe import Contrast
    from steerlab.core.vector import SteeringVector

PROMPTS = 1000
"""Of a recipe that a request may run."""

WAITING = 24
"""Requests that may wait for layers; fewer than there are threads, so that others go on."""

_REMEMBERED = 32
_RETRY = 10  # seconds
_THREADS = ThreadPoolExecutor(32, "steerlab-request")  # asyncio's own are six on two cores

T = TypeVar("T")
Make = Callable[["Contrast", list[int]], "SteeringVector"]


class Extractions:
    """Runs recipes one at a time, and each once however many requests wait for it.

    make: runs one. Raises Incompatible for a recipe of more than PROMPTS prompts, and Busy while
    WAITING requests wait.
    """

    def __init__(self, make: Make) -> None:
        self._one, self._places = Lock(), Semaphore(WAITING)
        self._made = lru_cache(_REMEMBERED)(lambda recipe, layers: make(recipe, list(layers)))

    def __call__(self, recipe: Contrast, layers: Sequence[int]) -> SteeringVector:
        """The vector of a recipe at these layers."""
        if (prompts := sum(recipe.sizes)) > PROMPTS:
            raise Incompatible(
                f"a server makes layers from {PROMPTS} prompts at most, and this vector has "
                f"{prompts}: store it at layer {span(layers)} first, by `steerlab extract --layers`"
            )
        if not self._places.acquire(blocking=False):
            raise Busy(_RETRY)
        try:
            with self._one:
                return self._made(recipe, tuple(layers))
        finally:
            self._places.release()


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """What a function that may wait for layers returns, run in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, function, *arguments)
