"""What one request adds to the stream, and how it travels to the processes that run the model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.run import Positions
from steerlab.errors import Incompatible

if TYPE_CHECKING:
    from steerlab.interventions.injection import Injection

KEY = "steerlab"
"""Of a request's extra arguments: the message of its `Steering`. Clients can't set it."""

FOREVER = 2**62
"""A position that no text reaches."""


@dataclass(frozen=True)
class Steering:
    """What is added at each layer: c·v, summed over the vectors of a request.

    rows: layer -> (d_model,) float32, in units of the residual stream.
    """

    positions: Positions
    rows: Mapping[int, NDArray[np.float32]]

    @cached_property
    def fingerprint(self) -> str:
        """Tells it from every other one: of positions, layers and bytes."""
        return hashlib.sha256(repr(self.positions).encode() + _packed(self.rows)).hexdigest()

    def to_message(self) -> dict[str, Any]:
        """As a request carries it."""
        return {
            "fingerprint": self.fingerprint,
            "positions": self.positions,
            "layers": list(self.rows),
            "rows": b"".join(row.tobytes() for row in self.rows.values()),
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Steering:
        """Of what `to_message` made."""
        layers = message["layers"]
        rows = np.frombuffer(message["rows"], "<f4").reshape(len(layers), -1)
        return cls(message["positions"], dict(zip(layers, rows, strict=True)))


def span(positions: Positions, prompt_length: int) -> tuple[int, int]:
    """The first steered position of a text, and the first after them."""
    if positions == "prompt":
        return 0, prompt_length
    return {"all": 0, "generated": prompt_length - 1, "continuation": prompt_length}[
        positions
    ], FOREVER


def summed(injections: Sequence[Injection]) -> Steering | None:
    """The sum of what a request injects; None if that is nothing.

    Rounded once to float32, as the hooks do. Raises Incompatible for vectors of the first tokens,
    and for injections that differ in positions.
    """
    acting = [one for one in injections if not one.is_zero]
    if any(one.vector.scope == "front" for one in acting):
        raise Incompatible(
            "vLLM serves no vectors of scope front: serve the model with `--engine transformers`"
        )
    if len(places := dict.fromkeys(one.positions for one in acting)) > 1:
        raise Incompatible(
            f"vLLM adds all vectors of a request at the same positions: {', '.join(places)}"
        )
    rows: dict[int, NDArray[np.float64]] = {}
    for one in acting:
        for layer, direction in one.vector.float32().items():
            added = one.coefficient * direction[0].astype(np.float64)
            rows[layer] = rows[layer] + added if layer in rows else added
    rounded = {layer: rows[layer].astype("<f4") for layer in sorted(rows)}
    return Steering(next(iter(places)), rounded) if rounded else None


def _packed(rows: Mapping[int, NDArray[np.float32]]) -> bytes:
    return b"".join(str(layer).encode() + row.tobytes() for layer, row in rows.items())
