"""Steering of a batch whose rows come and go: each row with its own vectors, at told positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steerlab.errors import SteeringError
from steerlab.interventions.adding import Term, check_lost, terms_of
from steerlab.interventions.injection import Injection, Place
from steerlab.models.blocks import check_shape, stream_of
from steerlab.models.interrupts import Removable, remove_all
from steerlab.models.protocols import Readable


class RowSteering:
    """What is added to one row, and what its residual stream is read along.

    prompt_length: tokens of its prompt. watched: (layer, direction / (‖direction‖ · median ‖h‖))
    by name; their product with the stream is a projection in units of dose.
    """

    def __init__(
        self,
        injections: Sequence[Injection] = (),
        prompt_length: int = 1,
        watched: Sequence[tuple[int, Tensor]] = (),
    ) -> None:
        self.terms = terms_of(one for one in injections if not one.is_zero)
        self.prompt_length, self.watched = prompt_length, list(watched)
        self.unchanged = {term.key for term in self.terms}
        self.problem: SteeringError | None = None

    @property
    def layers(self) -> set[int]:
        """The layers that it acts on or reads."""
        return {term.layer for term in self.terms} | {layer for layer, _ in self.watched}

    def follow(self, other: RowSteering) -> None:
        """Take over what was found of another row that read the same, steered alike."""
        self.unchanged, self.problem = set(other.unchanged), other.problem

    def added(self, layer: int, positions: Tensor, hidden: Tensor) -> Tensor | None:
        """What is added at a layer: (seq, d_model), or None. positions: (seq,), -1 on padding.

        hidden: (seq, d_model), to which it will be added. An error is the row's `problem`, since
        other rows of the pass are other people's.
        """
        total: Tensor | None = None
        try:
            for term in self.terms:
                where = self._where(term.positions, positions) if term.layer == layer else None
                if where is not None and bool(where.any()):
                    delta = self._delta(term, where, positions, hidden)
                    total = delta if total is None else total + delta
        except SteeringError as problem:
            self.problem = problem
        return total

    def _delta(self, term: Term, where: Tensor, positions: Tensor, hidden: Tensor) -> Tensor:
        """A term's part of what is added: (seq, d_model), zero outside of `where`.

        Raises SteeringError if the term's first addition is lost in rounding.
        """
        delta = term.delta(hidden.unsqueeze(0))[0]  # (positions, d_model)
        if term.positions == "front":
            where = where & (positions < len(delta))
            delta = delta[positions.clamp(0, len(delta) - 1)]
        delta = delta * where.unsqueeze(1).to(delta.dtype)
        if term.key in self.unchanged:
            self.unchanged.discard(term.key)
            lost = delta.any() & (hidden + delta == hidden).all()
            check_lost(term.layer, delta.unsqueeze(0), lost.unsqueeze(0), hidden.dtype)
        return delta

    def _where(self, place: Place, positions: Tensor) -> Tensor:
        """Where a place is: (seq,) bool."""
        if place == "prompt":
            return (positions >= 0) & (positions < self.prompt_length)
        first = {"generated": self.prompt_length - 1, "continuation": self.prompt_length}
        return positions >= first.get(place, 0)


@dataclass
class _Pass:
    """One pass. positions: (rows, seq), -1 on padding. decoding: each row reads one new token."""

    rows: Sequence[RowSteering]
    positions: Tensor
    decoding: dict[int, Tensor | None] | None
    entered: set[int] = field(default_factory=set)


class RowHooks:
    """Hooks on all blocks that steer the passes made through `run`, and no others.

    Every pass tells where its tokens are, so rows may join and leave between passes. Hold the
    model's lock around `run`.
    """

    def __init__(self, lm: Readable) -> None:
        self._now: _Pass | None = None
        self._handles: list[Removable] = []
        self._constant: tuple[list[RowSteering], dict[int, Tensor | None]] = ([], {})
        self.projections: list[dict[int, Tensor]] = []
        self._lm = lm

    def __enter__(self) -> RowHooks:
        for layer, block in enumerate(self._lm.blocks):
            hook = partial(self._enter, layer)
            self._handles.append(
                block.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        remove_all(self._handles)

    def run(
        self, rows: Sequence[RowSteering], positions: Tensor, *, decoding: bool, **arguments: Any
    ) -> Any:
        """Run the model on a pass of these rows; positions: (rows, seq), -1 on padding.

        decoding: whether each row reads one token after its prompt. Raises SteeringError if the
        pass missed a steered block.
        """
        constant = None
        if decoding:
            if self._constant[0] != [*rows]:
                self._constant = ([*rows], {})
            constant = self._constant[1]
        now = self._now = _Pass(rows, positions, constant)
        self.projections = [{} for _ in rows]
        try:
            output = self._lm.model(**arguments)
        finally:
            self._now = None
        missed = set().union(*(row.layers for row in rows)) - now.entered
        if missed:
            raise SteeringError(f"a pass did not come through block {min(missed)}: not steered")
        return output

    def _enter(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        now = self._now
        if now is None or not any(layer in row.layers for row in now.rows):
            return None
        if layer in now.entered:
            raise SteeringError(f"block {layer} runs several times in one pass: not steered")
        now.entered.add(layer)
        hidden = stream_of(args, kwargs, self._lm.d_model)
        check_shape(hidden, *now.positions.shape)
        delta = self._delta(now, layer, hidden)
        steered = hidden if delta is None else hidden + delta
        self._read(now, layer, steered)
        if args:
            return (steered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": steered}

    def _delta(self, now: _Pass, layer: int, hidden: Tensor) -> Tensor | None:
        """What is added to the rows: (rows, seq, d_model); the same in steps of the same rows."""
        if now.decoding is not None and layer in now.decoding:
            return now.decoding[layer]
        parts = [
            row.added(layer, positions, own)
            for row, positions, own in zip(now.rows, now.positions, hidden, strict=True)
        ]
        delta = None
        if any(part is not None for part in parts):
            blank = torch.zeros_like(hidden[0])
            delta = torch.stack([blank if part is None else part for part in parts])
        if now.decoding is not None:
            now.decoding[layer] = delta
        return delta

    def _read(self, now: _Pass, layer: int, steered: Tensor) -> None:
        """Note the projections of each row's last token."""
        for row, found, own in zip(now.rows, self.projections, steered[:, -1], strict=True):
            for place, (at, direction) in enumerate(row.watched):
                if at == layer:
                    found[place] = own.float() @ direction.to(own.device)
