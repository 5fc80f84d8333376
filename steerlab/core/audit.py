"""Audit: which positions a steering changed, in which pass, layer and row, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steerlab.core.display import count, number, printable
from steerlab.core.notation import layers_text, span
from steerlab.core.results import defined
from steerlab.errors import BadOption, SteeringError

MARKS = "·▂▄█"
"""Before a token: not changed, or by up to a third, two thirds or all of the largest ‖Δ‖."""


@dataclass(frozen=True)
class Change:
    """What one pass changed at the input of one layer, in one row.

    number: of the pass, from 0. row: of the prompts, in the order in which they were given.
    copy: which of the prompt's beams or return sequences, from 0.
    positions: absolute, from 0 at the first token. norms: ‖Δ‖ = ‖h' - h‖ at each of them.
    """

    number: int
    layer: int
    row: int
    copy: int
    positions: tuple[int, ...]
    norms: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The change as JSON values; a norm that is not finite is None."""
        return {
            "pass": self.number,
            "layer": self.layer,
            "row": self.row,
            "copy": self.copy,
            "positions": list(self.positions),
            "norms": [defined(norm) for norm in self.norms],
        }


@dataclass(frozen=True)
class Audit:
    """What one `steering(...)` changed, as measured in the passes themselves.

    changes: in the order of passes, layers and rows; a row that was not steered has none.
    rows: prompts that the passes had. passes: how many there were.
    problem: why it is unknown which positions were changed; "" if it is known.
    """

    changes: tuple[Change, ...] = ()
    rows: int = 0
    passes: int = 0
    problem: str = ""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers at whose input something was changed."""
        return tuple(sorted({change.layer for change in self.changes}))

    def norms(self, row: int = 0, layer: int | None = None) -> dict[int, float]:
        """Position -> the largest ‖Δ‖ there, over all passes; in order.

        layer: None takes the largest of all layers. Raises SteeringError if positions are
        unknown, BadOption for a row that was not run.
        """
        if self.problem:
            raise SteeringError(self.problem)
        if self.passes and not 0 <= row < self.rows:
            were = "was" if self.rows == 1 else "were"
            raise BadOption(
                f"{count(self.rows, 'row')} {were} run, from 0 on: there is no row {row}"
            )
        found: dict[int, float] = {}
        for change in self.changes:
            if change.row == row and layer in (None, change.layer):
                for position, norm in zip(change.positions, change.norms, strict=True):
                    found[position] = float(np.maximum(found.get(position, 0.0), norm))  # or NaN
        return dict(sorted(found.items()))

    def positions(self, row: int = 0, layer: int | None = None) -> tuple[int, ...]:
        """The positions that were changed, at one layer or at any; raises as `norms` does."""
        return tuple(self.norms(row, layer))

    def of_row(self, row: int, stop: int) -> Audit:
        """The audit of one row alone, as row 0, before the position `stop`.

        A row whose text has ended is run on with padding for as long as its batch is.
        """
        mine = [change for change in self.changes if change.row == row]
        cut = (_before(replace(change, row=0), stop) for change in mine)
        return replace(self, changes=tuple(c for c in cut if c.positions), rows=min(self.rows, 1))

    def to_json(self) -> dict[str, Any]:
        """The audit as JSON values."""
        return {
            "rows": self.rows,
            "passes": self.passes,
            "problem": self.problem,
            "changes": [change.to_json() for change in self.changes],
        }

    def __str__(self) -> str:
        """A line for each row and layer."""
        if self.problem:
            return f"unknown: {self.problem}"
        if not self.passes:
            return "nothing was steered"
        return "\n".join(line for row in range(self.rows) for line in self._lines(row))

    def _lines(self, row: int) -> Iterable[str]:
        mine = [change for change in self.changes if change.row == row]
        if not mine:
            yield f"row {row}  unsteered"
        for layer in sorted({change.layer for change in mine}):
            there = [change for change in mine if change.layer == layer]
            passes = span(sorted({change.number for change in there}))
            places = span(self.positions(row, layer))
            yield f"row {row}  layer {layer}  passes {passes}  positions {places}  {_sizes(there)}"


@dataclass(frozen=True)
class AuditedText:
    """A prompt and its continuation, token by token, with what was changed at each.

    tokens: as text, by position. The last one of a continuation was chosen, but not read, so
        nothing was changed there. prompt: how many are of the prompt.
    audit: of this text alone, as row 0.
    """

    tokens: tuple[str, ...]
    prompt: int
    audit: Audit

    def shades(self) -> list[float]:
        """For each token, ‖Δ‖ as a share of the largest one, over all layers; 0 if unchanged."""
        norms = {} if self.audit.problem else self.audit.norms()
        largest = max(filter(math.isfinite, norms.values()), default=1.0) or 1.0
        found = (norms.get(position, 0.0) / largest for position in range(len(self.tokens)))
        return [1.0 if math.isnan(share) else min(share, 1.0) for share in found]

    def pieces(self) -> list[tuple[str, float]]:
        """The tokens, each after its mark, with their shades: a line of text."""
        found = [
            (MARKS[math.ceil(3 * shade)] + printable(token.replace("␣", " ")), shade)
            for token, shade in zip(self.tokens, self.shades(), strict=True)
        ]
        return [*found[: self.prompt], (" → ", 0.0), *found[self.prompt :]]

    def summary(self) -> str:
        """One line: layers, positions, and ‖Δ‖ from the smallest to the largest."""
        audit = self.audit
        if audit.problem:
            return f"which tokens were changed is unknown: {audit.problem}"
        if not audit.changes:
            return "unsteered: no token was changed"
        places = audit.positions()
        return (
            f"changed: {len(places)} of {count(len(self.tokens), 'token')}, positions "
            f"{span(places)}, {layers_text(audit.layers)}, {_sizes(audit.changes)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Tokens and changes as JSON values."""
        return {
            "tokens": list(self.tokens),
            "prompt_tokens": self.prompt,
            "problem": self.audit.problem,
            "changes": [change.to_json() for change in self.audit.changes],
        }

    def __str__(self) -> str:
        return f"{''.join(text for text, _ in self.pieces())}\n{self.summary()}"


def _before(change: Change, stop: int) -> Change:
    pairs = zip(change.positions, change.norms, strict=True)
    kept = [(position, norm) for position, norm in pairs if position < stop]
    positions, norms = zip(*kept, strict=True) if kept else ((), ())
    return replace(change, positions=positions, norms=norms)


def _sizes(changes: Iterable[Change]) -> str:
    """The smallest and the largest ‖Δ‖."""
    norms = [norm for change in changes for norm in change.norms]
    low, high = number(min(norms), 4), number(max(norms), 4)
    return f"‖Δ‖ {low}" if low == high else f"‖Δ‖ {low} to {high}"
