"""What values of the lower rooms get from the rooms above them.

A value can show itself in a notebook and draw itself, but pages and pictures are made above it.
`steerlab/__init__.py` brings the makers, which load what they need at their first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from steerlab.core.recipe import ModelIdentity

_makers: dict[str, Callable[..., Any]] = {}


def bring(**makers: Callable[..., Any]) -> None:
    """Give the maker behind each of the functions below, by name."""
    _makers.update(makers)


def html(value: object) -> str:
    """A value as notebooks show it: escaped, without scripts."""
    return str(_makers["html"](value))


def figure(value: object, **options: Any) -> Figure:
    """A value as a matplotlib figure that no window shows."""
    found: Figure = _makers["figure"](value, **options)
    return found


def identity(model: object) -> ModelIdentity:
    """Which model a LanguageModel or a transformers model is; BadOption for anything else."""
    found: ModelIdentity = _makers["identity"](model)
    return found
