"""Projection: how far the tokens of a text lie along a direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.direction import SMALLEST
from steerlab.errors import Incompatible

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.models.language_model import LanguageModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Projections:
    """How far each token of a prompt lies along a vector, layer by layer.

    tokens: as text. values: layer -> (seq,), in doses: the component of h along the direction
    over the median residual norm there; from the midpoint of its pairs if centred. Position 0 is
    an attention sink whose residual stream may be 100 times the others, so scales and medians
    leave it out.
    """

    prompt: str
    tokens: tuple[str, ...]
    values: dict[int, Array]
    centred: bool = False

    def shades(self, layer: int) -> Array:
        """Colours from -1 to 1: the distance of each token from the midpoint of the pairs, (seq,).

        From the prompt's median if that is unknown. ±1 is the largest distance; position 0 is 0.
        """
        values = self.values[layer]
        if len(values) < 2:
            return np.zeros_like(values)
        away = values - (0.0 if self.centred else np.median(values[1:]))
        away[0] = 0.0
        largest = np.abs(away).max()
        return np.asarray(away / largest if largest else away)

    def to_json(self) -> dict[str, Any]:
        """The projections as JSON values."""
        layers = {str(b): values.tolist() for b, values in self.values.items()}
        known = {"prompt": self.prompt, "tokens": list(self.tokens), "centred": self.centred}
        return {**known, "projections": layers}


def projections(
    lm: LanguageModel,
    vector: SteeringVector,
    prompt: str,
    *,
    chat: bool = False,
    midpoint: Mapping[int, Array] | None = None,
) -> Projections:
    """Project the residual stream of every token on the directions of a broadcast vector.

    The value is `(h - m) · v / (‖v‖ · median ‖h‖)` at the input of the vector's layers. The median
    is that of the vector's extraction, or of this prompt if it is unknown. Zeros for a zero
    direction. midpoint: layer -> m, halfway between the vector's positive and negative prompts;
    without it m is 0, and values tell only how tokens differ from one another.
    Raises Incompatible for a front vector, BadPrompts for a prompt that can't be read.
    """
    from steerlab.models.prompts import token_text

    check_projectable(vector)
    ids = lm.tokens(prompt, chat=chat)
    read = lm.record(prompt, list(vector.layers), chat=chat)
    values = {}
    for b, h in read.items():
        hidden = h.double().numpy()  # (seq, d_model)
        direction = vector.directions[b][0]
        size = np.linalg.norm(direction)
        sizes = np.linalg.norm(hidden, axis=1)
        scale = vector.residual_norms.get(b) or float(
            np.median(sizes[1:] if len(ids) > 1 else sizes)
        )
        away = hidden - (midpoint[b] if midpoint else 0.0)
        along = away @ direction / size if size >= SMALLEST else np.zeros(len(ids))
        values[b] = along / scale
    return Projections(
        prompt, tuple(token_text(lm.tokenizer, i) for i in ids), values, bool(midpoint)
    )


def check_projectable(vector: SteeringVector) -> None:
    """Raise Incompatible for a front vector."""
    if vector.scope == "front":
        raise Incompatible(
            f"{vector} is a front vector, with a direction for each of the first tokens, and only "
            "broadcast vectors can be projected on"
        )
