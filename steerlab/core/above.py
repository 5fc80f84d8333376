"""What values of the lower rooms get from the rooms above them, found by name when it is used.

A value can show itself in a notebook and draw itself, but pages and pictures are made above it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from steerlab.core.recipe import ModelIdentity


def html(value: object) -> str:
    """A value as notebooks show it: escaped, without scripts."""
    return str(import_module("steerlab.notebook.pages").html(value))


def figure(value: object, **options: Any) -> Figure:
    """A value as a matplotlib figure that no window shows."""
    found: Figure = import_module("steerlab.notebook.figures").figure(value, **options)
    return found


def identity(model: object) -> ModelIdentity:
    """Which model a LanguageModel or a transformers model is; BadOption for anything else."""
    found: ModelIdentity = import_module("steerlab.models.identity").identity_of(model)
    return found
