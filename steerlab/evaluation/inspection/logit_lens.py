"""Logit lens: the tokens that a direction promotes and suppresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerlab.core.algebra import CONTROL_STREAM
from steerlab.core.direction import SMALLEST, Array
from steerlab.errors import BadOption
from steerlab.models.prompts import token_text

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.models.language_model import LanguageModel

CONTROLS = 512
"""Number of random directions that show how large logits get by chance."""

_AT_ONCE = 32  # directions whose logits are in memory at once


@dataclass(frozen=True)
class TokenLogit:
    """A token and its change; text shows ␣ for a space and escapes for control characters."""

    id: int
    text: str
    logit: float


@dataclass(frozen=True)
class Lens:
    """The tokens at the two ends of one direction; both empty for a zero direction.

    row: of a front tensor; None for a broadcast direction.
    promoted, suppressed: the largest and the smallest logits, the most extreme first.
    chance: as many random directions as there are in the lens have no token beyond it, at either
        end, in 95 of 100 cases.
    """

    layer: int
    row: int | None
    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]
    chance: float


def logit_lens(
    lm: LanguageModel,
    vector: SteeringVector,
    *,
    top: int = 10,
    should_stop: Callable[[], bool] | None = None,
) -> list[Lens]:
    """The tokens that each direction promotes and suppresses, read through the unembedding.

    A direction is a difference, so only the linear part of the final norm applies (gain and
    centring, no bias), at a fixed scale: `W_U (gain * v) * sqrt(d_model) / ‖v‖`. This is the
    change of the logits per unit of dose in the last residual stream, to first order, if the
    direction does not lie along that stream. The mean over the vocabulary is subtracted, since
    a shift of all logits changes no probability.

    The lens shows the direct effect on the next token, not what later blocks make of the
    direction, so early layers are often illegible. Random directions have extreme tokens too,
    with logits up to `chance` or so: judge by the meaning that the tokens share, not by one logit.
    Source: "interpreting GPT: the logit lens" (nostalgebraist, 2020).

    top: number of tokens at either end. should_stop: asked between layers; those read are kept.
    Raises BadOption, ModelError.
    """
    if top < 1:
        raise BadOption(f"the number of tokens must be at least 1, not {top}")
    places = _places(vector)
    chance = _chance(lm, vector.model.d_model, len(places))
    found: list[Lens] = []
    for start in range(0, len(places), _AT_ONCE):
        if should_stop is not None and should_stop():
            break
        some = places[start : start + _AT_ONCE]
        scores = token_logits(lm, np.stack([direction for _, _, direction in some]))
        for (layer, row, direction), line in zip(some, scores, strict=True):
            if np.linalg.norm(direction) < SMALLEST:
                found.append(Lens(layer, row, (), (), chance))
                continue
            order = _ends(line, top)
            ends = [tuple(_named(lm, line, ids)) for ids in order]
            found.append(Lens(layer, row, ends[0], ends[1], chance))
    return found


def token_logits(lm: LanguageModel, directions: Array) -> NDArray[np.float32]:
    """The logit of every token under each direction: (n, d_model) -> (n, vocabulary).

    In the unit of `logit_lens`; zeros for a zero direction.
    """
    from steerlab.models.unembedding import logits

    sizes = np.linalg.norm(directions, axis=1, keepdims=True)  # (n, 1)
    units = np.divide(directions, sizes, out=np.zeros_like(directions), where=sizes >= SMALLEST)
    scores = logits(lm, lm.final_norm.linear(units) * np.sqrt(directions.shape[1]))
    return np.asarray(scores - scores.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)


def _places(vector: SteeringVector) -> list[tuple[int, int | None, Array]]:
    """(layer, row, direction) of everything a vector adds; row None for a broadcast vector."""
    front = vector.scope == "front"
    return [
        (layer, row if front else None, direction)
        for layer, rows in vector.directions.items()
        for row, direction in enumerate(rows)
        if row or not front or direction.any()  # the row at BOS is zero by construction
    ]


def _chance(lm: LanguageModel, d_model: int, count: int) -> float:
    """The quantile of the most extreme logit of random directions that `count` stay below."""
    noise = np.random.default_rng([0, 0, CONTROL_STREAM]).standard_normal((CONTROLS, d_model))
    extremes = [
        np.abs(token_logits(lm, noise[start : start + _AT_ONCE])).max(axis=1)
        for start in range(0, CONTROLS, _AT_ONCE)
    ]
    return float(np.quantile(np.concatenate(extremes), 0.95 ** (1 / max(count, 1))))


def _ends(scores: NDArray[np.float32], top: int) -> tuple[Sequence[int], Sequence[int]]:
    """Token ids of the largest and the smallest scores; ties by id."""
    order = np.argsort(scores, kind="stable")
    top = min(top, len(order))
    largest = np.argsort(-scores, kind="stable")[:top]
    return largest.tolist(), order[:top].tolist()


def _named(lm: LanguageModel, scores: NDArray[np.float32], ids: Sequence[int]) -> list[TokenLogit]:
    return [TokenLogit(i, token_text(lm.tokenizer, i), float(scores[i])) for i in ids]


def beyond_chance(lenses: Sequence[Lens]) -> str:
    """What logits random directions reach, in words."""
    several = f"{len(lenses)} random directions" if len(lenses) > 1 else "a random direction"
    return f"95 of 100 times, no token of {several} lies beyond ±{lenses[0].chance:.1f}"
