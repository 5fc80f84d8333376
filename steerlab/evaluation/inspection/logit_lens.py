"""Logit lens: which tokens a direction promotes and which it suppresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.direction import SMALLEST, Array
from steerlab.core.display import printable
from steerlab.errors import BadOption

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.models.language_model import LanguageModel

CONTROLS = 16
"""Random directions that say how far a token gets by chance."""

_AT_ONCE = 32  # directions whose logits are in memory at a time


@dataclass(frozen=True)
class TokenLogit:
    """A token and how far it moves; text is legible: ␣ for a space, escapes for control."""

    id: int
    text: str
    logit: float


@dataclass(frozen=True)
class Lens:
    """The tokens at the two ends of one direction; both empty for a direction that is zero.

    row: which row of a front tensor; None for a broadcast direction.
    promoted, suppressed: the largest and the smallest logits, from the outside in.
    chance: the largest logit of a random direction, the median of `CONTROLS` of them.
    """

    layer: int
    row: int | None
    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]
    chance: float

    def to_json(self) -> dict[str, Any]:
        """The lens as JSON values."""
        sides = {"promoted": self.promoted, "suppressed": self.suppressed}
        listed = {name: [vars(token) for token in tokens] for name, tokens in sides.items()}
        return {"layer": self.layer, "row": self.row, **listed, "chance": self.chance}


def logit_lens(
    lm: LanguageModel,
    vector: SteeringVector,
    *,
    top: int = 10,
    should_stop: Callable[[], bool] | None = None,
) -> list[Lens]:
    """The tokens that each direction promotes and suppresses, read through the unembedding.

    A direction is a difference, so the final norm is taken by its linear part (gain, centring;
    no bias), with its scale held: `W_U (gain * v) * sqrt(d_model) / ‖v‖`. That is the change of
    the logits per unit of dose in the last residual stream, to first order and but for what a
    direction along that stream itself would lose. From it, the mean over the vocabulary is
    taken away, as a shift of all logits changes no probability.

    It tells what the direction says of the next token by itself, not what the blocks after its
    layer make of it: early layers are often illegible. A random direction has ends too, as far
    out as `chance`: it is the sense of the tokens together that tells, not one token's logit.
    Source: "interpreting GPT: the logit lens" (nostalgebraist, 2020).

    top: how many of each. should_stop: asked between layers; what was read is kept.
    Raises BadOption, ModelError.
    """
    if top < 1:
        raise BadOption(f"at least one token has to be shown, not {top}")
    places = _places(vector)
    chance = _chance(lm, vector.model.d_model)
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

    See `logit_lens` for the unit; a direction that is zero gives zeros.
    """
    from steerlab.models.unembedding import logits

    sizes = np.linalg.norm(directions, axis=1, keepdims=True)  # (n, 1)
    units = np.divide(directions, sizes, out=np.zeros_like(directions), where=sizes >= SMALLEST)
    scores = logits(lm, lm.final_norm.linear(units) * np.sqrt(directions.shape[1]))
    return np.asarray(scores - scores.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)


def _places(vector: SteeringVector) -> list[tuple[int, int | None, Array]]:
    """(layer, row, direction) of all that a vector adds; row None for a broadcast one."""
    front = vector.scope == "front"
    return [
        (layer, row if front else None, direction)
        for layer, rows in vector.directions.items()
        for row, direction in enumerate(rows)
        if row or not front or direction.any()  # the row at BOS is zero by construction
    ]


def _chance(lm: LanguageModel, d_model: int) -> float:
    noise = np.random.default_rng(0).standard_normal((CONTROLS, d_model))
    return float(np.median(token_logits(lm, noise).max(axis=1)))


def _ends(scores: NDArray[np.float32], top: int) -> tuple[Sequence[int], Sequence[int]]:
    """Token ids of the largest and of the smallest scores; equal ones by id."""
    order = np.argsort(scores, kind="stable")
    top = min(top, len(order))
    largest = np.argsort(-scores, kind="stable")[:top]
    return largest.tolist(), order[:top].tolist()


def _named(lm: LanguageModel, scores: NDArray[np.float32], ids: Sequence[int]) -> list[TokenLogit]:
    return [TokenLogit(i, token_text(lm.tokenizer, i), float(scores[i])) for i in ids]


def token_text(tokenizer: Any, token: int) -> str:
    """One token as a reader tells it from others: `␣love` is not `love`, a newline is `\\n`.

    Bytes that are no whole character are shown as the tokenizer spells them.
    """
    text = str(tokenizer.decode([token]))
    piece = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
    if "\ufffd" in text or not text:
        text = piece
    elif piece.startswith("▁") and not text.startswith(" "):  # SentencePiece drops it alone
        text = f" {text}"
    return printable(text.replace(" ", "␣"))
