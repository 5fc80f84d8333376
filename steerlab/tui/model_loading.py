"""Loading a model in a worker, with a line on how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel

MODEL = "smollm2"
"""Loaded where neither the lab nor a vector names a model."""


def load_model(
    lab: Lab, vector: SteeringVector | None, say: Callable[[str], object]
) -> LanguageModel:
    """The model for a vector, loaded if need be; `say` receives a line at each step."""
    if not lab.is_loaded:
        say(f"loading {lab.source or (vector.model.source if vector else MODEL)} …")
        from steerlab.models.loading import hush

        hush()

    def progress(what: str, done: int, total: int) -> None:
        percent = f" {100 * done // total}%" if total > 1 else ""
        say(f"{what} the embedded model{percent} …")

    return lab.load(vector, progress)
