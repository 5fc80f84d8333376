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
    """Give the makers by name: of pages (html), of pictures (figure), and of identities."""
    _makers.update(makers)


def figure(value: object, **options: Any) -> Figure:
    """A value as a matplotlib figure that no window shows."""
    found: Figure = _makers["figure"](value, **options)
    return found


class Shown:
    """A value that notebooks show as a page."""

    def _repr_html_(self) -> str:
        return str(_makers["html"](self))


class Drawn(Shown):
    """A value that notebooks show as a page, and that has a picture."""

    def plot(self) -> Figure:
        """The value's picture, as a matplotlib figure.

        Of a vector, a record or an inspection: norm, dose and diagnostics by layer. Of a
        calibration: effect over dose, with its controls. Of an evaluation: the effect in each
        style of text, with its controls. Of a difference: cosine and norms by layer.
        """
        return figure(self)


def identity(model: object) -> ModelIdentity:
    """Which model a LanguageModel or a transformers model is; BadOption for anything else."""
    found: ModelIdentity = _makers["identity"](model)
    return found
