"""Applied: what `with steering(...) as applied` gives, which measures what is really added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steerlab.core.audit import Audit, Change
from steerlab.errors import SteeringError
from steerlab.interventions.forward_pass import ForwardPass
from steerlab.interventions.sequence import Sequences

_OUTSIDE = "the blocks ran outside of the model's own forward pass, so positions are unknown"


class Applied:
    """What a steering has changed so far, if it was asked to measure that.

    measures: whether it was, by `steering(..., audit=True)`.
    """

    def __init__(self, *, measures: bool) -> None:
        self.measures = measures
        self._passes: list[_Pass] = []
        self._outside = False

    @property
    def audit(self) -> Audit:
        """Which positions of which rows were changed, and by how much, up to now.

        Raises SteeringError if the steering was entered without audit=True.
        """
        if not self.measures:
            raise SteeringError(
                "what this steering changes was not measured: enter steering(..., audit=True)"
            )
        passes = list(self._passes)  # other threads may add to it
        if problem := next(filter(None, (p.problem for p in passes)), _OUTSIDE * self._outside):
            return Audit(passes=len(passes), problem=problem)
        changes: list[Change] = []
        first_rows: dict[Sequences | None, int] = {}
        rows = 0
        for number, one in enumerate(passes):
            first = first_rows.setdefault(one.sequences, rows)
            rows = max(rows, first + one.prompts)
            changes += one.changes(number, first)
        return Audit(tuple(changes), rows, len(passes))

    def measure(self, now: ForwardPass | None, layer: int, before: Tensor, after: Tensor) -> None:
        """Note how far a layer's input was moved; before, after: (batch, seq, d_model)."""
        if now is None:
            self._outside = True
            return
        exact = torch.promote_types(before.dtype, torch.float32)
        difference = after.detach().to(exact) - before.detach().to(exact)
        largest = difference.abs().amax(dim=-1, keepdim=True)
        # the squares of 1e-30, or of 1e30, are outside of float32
        scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        norms = torch.linalg.vector_norm(difference / scale, dim=-1) * scale.squeeze(-1)
        now.changes[layer] = norms  # (batch, seq)

    def end(self, now: ForwardPass) -> None:
        """Note a pass that is over."""
        problem = now.unplaced or now.rows_problem()
        if problem:
            self._passes.append(_Pass(problem))
            return
        assert now.positions is not None
        positions = now.positions.clone()  # it may be the end of a whole mask's
        prompts, copies = now.prompts(), now.copies()
        self._passes.append(_Pass("", now.changes, positions, now.sequences, prompts, copies))

    def __str__(self) -> str:
        return str(self.audit) if self.measures else "not measured: steering(..., audit=True) does"

    def __repr__(self) -> str:
        return f"<Applied: {self}>"


@dataclass(frozen=True)
class _Pass:
    """What is kept of a pass; the tensors stay on their devices until they are asked for.

    problem: why it can't be placed; "" if it can. norms: layer -> (batch, seq).
    positions: (batch or 1, seq), -1 on padding. copies: rows of the batch for each prompt.
    """

    problem: str
    norms: dict[int, Tensor] = field(default_factory=dict)
    positions: Tensor | None = None
    sequences: Sequences | None = None
    prompts: int = 0
    copies: int = 1

    def changes(self, number: int, first: int) -> Iterator[Change]:
        """The changes by layer and row. first: the number of the pass's first row."""
        assert self.positions is not None
        for layer, tensor in sorted(self.norms.items()):
            norms: NDArray[np.float64] = tensor.cpu().double().numpy()
            places = np.broadcast_to(self.positions.cpu().numpy(), norms.shape)
            changed = (norms != 0) & (places >= 0)
            for index in np.flatnonzero(changed.any(axis=1)).tolist():
                there = changed[index]
                row, copy = divmod(index, self.copies)
                where = tuple(places[index][there].tolist())
                how_far = tuple(norms[index][there].tolist())
                yield Change(number, layer, first + row, copy, where, how_far)
