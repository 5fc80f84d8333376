"""What is added at the input of one block, and the hook that adds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steerlab.core.display import count
from steerlab.errors import ModelError, SteeringError
from steerlab.interventions.applied import Applied
from steerlab.interventions.forward_pass import ForwardPass
from steerlab.interventions.injection import Injection, Place
from steerlab.interventions.positions import PositionTracker
from steerlab.interventions.unchanged import Unchanged
from steerlab.models.blocks import check_shape, stream_of


def adders_of(
    injections: tuple[Injection, ...],
    tracker: PositionTracker,
    start_ids: set[int],
    applied: Applied,
) -> dict[int, Adder]:
    """One adder for each layer that is steered.

    start_ids: the tokens that a prompt of this model may begin with; empty if unknown.
    """
    by_layer: dict[int, list[Term]] = {}
    for term in terms_of(injections):
        by_layer.setdefault(term.layer, []).append(term)
    return {b: Adder(by_layer[b], tracker, start_ids, applied) for b in sorted(by_layer)}


def terms_of(injections: Iterable[Injection]) -> list[Term]:
    """One term for each layer and the positions at which it is steered."""
    found: dict[tuple[int, Place], Term] = {}
    for one in injections:
        for key in ((layer, one.place) for layer in one.vector.directions):
            found.setdefault(key, Term(*key, [])).parts.append(one)
    return list(found.values())


@dataclass
class Term:
    """The sum of the injections of one layer that share positions.

    A delta is (batch or 1, positions, d_model), float64 on the CPU before it is rounded once.
    """

    layer: int
    positions: Place
    parts: list[Injection]
    cache: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        """What `Unchanged` knows it by."""
        return self.layer, self.positions

    @cached_property
    def by_row(self) -> bool:
        """Whether rows of a batch are steered differently."""
        return any(part.rows is not None for part in self.parts)

    def delta(self, like: Tensor, copies: int = 1) -> Tensor:
        """The summed c * v in the activation's dtype, on its device; rounded once.

        copies: rows of the batch for each prompt.
        """
        batch = like.shape[0] if self.by_row else 1
        key = (batch, copies, like.device, like.dtype)
        if (delta := self.cache.get(key)) is None:
            exact = torch.from_numpy(self._sum(batch, copies))
            delta = exact.to(device=like.device, dtype=like.dtype)
            lost = exact.any(2).any(1) & ~delta.any(2).any(1).cpu()
            check_lost(self.layer, exact, lost, like.dtype)
            self.cache[key] = delta
        return delta

    def spans(self, batch: int, copies: int) -> Tensor:
        """Rows of the longest front vector on each row of the batch, 0 for none: (batch,)."""
        longest = torch.zeros(batch, dtype=torch.long)
        for part in self.parts:
            rows = _batch_rows(part, copies)
            longest[rows] = longest[rows].clamp(min=len(part.vector.directions[self.layer]))
        return longest

    def _sum(self, batch: int, copies: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        first = next(iter(self.parts)).vector
        rows = max(len(part.vector.directions[self.layer]) for part in self.parts)
        total = np.zeros((batch, rows, first.model.d_model))
        for part in self.parts:
            direction = part.vector.directions[self.layer].astype(np.float32).astype(np.float64)
            if part.rows and max(part.rows) * copies >= batch:
                raise SteeringError(
                    f"row {max(part.rows)} is to be steered, but the batch has "
                    f"{count(batch // copies, 'row')}, one for each prompt"
                )
            total[_batch_rows(part, copies), : len(direction)] += part.coefficient * direction
        return total


def _batch_rows(part: Injection, copies: int) -> slice | list[int]:
    """The rows of a batch that an injection steers, each prompt having several copies."""
    if part.rows is None:
        return slice(None)
    return [row * copies + copy for row in part.rows for copy in range(copies)]


class Adder:
    """Adds the terms of one layer to the input of its block: a forward pre-hook."""

    def __init__(
        self,
        terms: list[Term],
        tracker: PositionTracker,
        start_ids: set[int],
        applied: Applied,
    ) -> None:
        self.layer, self.tracker, self.start_ids = terms[0].layer, tracker, start_ids
        self.measured = applied if applied.measures else None
        self.terms = terms
        self.d_model = terms[0].parts[0].vector.model.d_model
        self.fired = False
        self.applied: set[str] = set()
        self._partly: set[tuple[str, Unchanged]] = set()  # some rows are changed, some left

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Add to the hidden states in the arguments of the block."""
        self.fired = True
        now = self.tracker.now
        hidden = steered = self._entering(now, args, kwargs)
        for term in self.terms:
            steered = self._apply(term, now, steered)
        if self.measured is not None and steered is not hidden:
            self.measured.measure(now, self.layer, hidden, steered)
        if args:
            return (steered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": steered}

    def _entering(
        self, now: ForwardPass | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The input of the block, (batch, seq, d_model), of a pass that comes to it once."""
        if now is None:
            return stream_of(args, kwargs, self.d_model)
        if self.layer in now.entered:
            raise runs_again(f"block {self.layer}")
        now.entered.add(self.layer)
        hidden: Any = args[0] if args else kwargs.get("hidden_states")
        if now.shape is None or getattr(hidden, "shape", None) != (*now.shape, self.d_model):
            hidden = stream_of(args, kwargs, self.d_model)
            if now.shape is not None:
                check_shape(hidden, *now.shape)
        return hidden  # type: ignore[no-any-return]  # of this shape: a tensor

    def _apply(self, term: Term, now: ForwardPass | None, hidden: Tensor) -> Tensor:
        unchanged = self.tracker.unchanged if now is None else now.unchanged
        are_left = unchanged.are_left(term.key)
        everywhere = term.positions == "all"
        if everywhere and not (term.by_row or are_left):
            return hidden + term.delta(hidden)  # as in nearly every pass
        where = None if everywhere else self.tracker.current().where(term.positions)
        if where is None and not everywhere:
            return hidden
        copies = self.tracker.current().copies() if term.by_row else 1
        delta = whole = term.delta(hidden, copies)
        if where is not None:
            delta = self._placed(term, delta, where, hidden, copies)
        steered = hidden + delta  # (batch, seq, d_model)
        if are_left:
            rows = unchanged.of(term.key, whole, len(hidden))
            due = rows & delta.any(dim=2).any(dim=1)  # (batch,)
            lost = due & ~(hidden != steered).any(dim=2).any(dim=1)
            check_lost(self.layer, delta, lost, hidden.dtype)
            self._note(term, unchanged, due, rows & ~due)
        return steered

    def _note(self, term: Term, unchanged: Unchanged, due: Tensor, left: Tensor) -> None:
        """Note which rows were changed in this pass, and which are left; (batch,) bool both."""
        some_due, some_left = bool(due.any()), bool(left.any())
        unchanged.rows[term.key] = left if some_left else None
        if some_due or not some_left:
            self.applied.add(term.positions)
        if not some_left:
            self._partly.discard((term.positions, unchanged))
        elif some_due:
            self._partly.add((term.positions, unchanged))

    def _placed(
        self, term: Term, delta: Tensor, where: Tensor, hidden: Tensor, copies: int
    ) -> Tensor:
        """Spread a delta over (batch, seq): zero outside of `where`."""
        where = where.to(hidden.device)
        if term.positions != "front":
            return delta * where.unsqueeze(-1).to(delta.dtype)  # where: bool (batch, seq)
        # where: absolute position, -1 on padding (batch, seq)
        spans = term.spans(len(delta), copies).to(delta.device)
        self.tracker.current().check_front(spans, delta[:, 0].any(dim=-1), self.start_ids)
        rows = delta.shape[1]
        inside = (where >= 0) & (where < rows)
        batch = torch.arange(delta.shape[0], device=delta.device).unsqueeze(1)
        spread = delta[batch, where.clamp(0, rows - 1)]
        return spread * inside.unsqueeze(-1).to(delta.dtype)

    def check_applied(self) -> None:
        """Raise SteeringError if this layer should have been steered and was not."""
        if not self.fired:
            raise never_fired(self.layer)
        for term in self.terms:
            if term.positions not in self.applied:
                raise SteeringError(
                    f"the steering at layer {self.layer} never applied: no position was "
                    f"{term.positions!r} in what was run"
                )
        for positions, unchanged in self._partly:
            rows = unchanged.rows[self.layer, positions]
            assert rows is not None
            raise SteeringError(
                f"the steering at layer {self.layer} never applied to row "
                f"{int(rows.int().argmax())} of a batch: no position was {positions!r} there"
            )


def never_fired(layer: int) -> SteeringError:
    """The error of a steering whose model was not run."""
    return SteeringError(
        f"the steering at layer {layer} never fired: the model was not run inside "
        "`with steering(...)`, or another copy of it was, or another thread ran it"
    )


def runs_again(part: str) -> ModelError:
    """The error of a model that loops over its blocks, or some of them."""
    return ModelError(
        f"{part} runs several times in one pass of this model, so a layer is no single place in "
        "it: it can't be steered"
    )


def check_lost(layer: int, delta: Tensor, lost: Tensor, dtype: torch.dtype) -> None:
    """Raise SteeringError if some row's delta, (batch or 1, positions, d_model), is lost."""
    if bool(lost.any()):
        rows = delta.double().expand(len(lost), -1, -1)[lost]
        size = float(torch.linalg.vector_norm(rows, dim=-1).max())
        raise SteeringError(
            f"steering at layer {layer} changed nothing: ‖c·v‖ = {size:.2g} is lost in "
            f"the rounding of {str(dtype)[6:]}; use a larger coefficient"
        )
