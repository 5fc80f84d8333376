"""Layers that stored vectors lack, made while a server runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from steerlab.core.notation import span
from steerlab.errors import Incompatible

if TYPE_CHECKING:
    from steerlab.core.recipe import Contrast
    from steerlab.core.vector import SteeringVector

PROMPTS = 1000
"""Of a recipe that a request may run."""

_REMEMBERED = 32

Make = Callable[["Contrast", list[int]], "SteeringVector"]


class Extractions:
    """Runs recipes one at a time, and each once however many requests wait for it.

    make: runs one. Raises Incompatible for a recipe of more than PROMPTS prompts.
    """

    def __init__(self, make: Make) -> None:
        self._one = Lock()
        self._made = lru_cache(_REMEMBERED)(lambda recipe, layers: make(recipe, list(layers)))

    def __call__(self, recipe: Contrast, layers: Sequence[int]) -> SteeringVector:
        """The vector of a recipe at these layers."""
        if (prompts := sum(recipe.sizes)) > PROMPTS:
            raise Incompatible(
                f"a server makes layers from {PROMPTS} prompts at most, and this vector has "
                f"{prompts}: store it at layer {span(layers)} first, by `steerlab extract --layers`"
            )
        with self._one:
            return self._made(recipe, tuple(layers))
