"""The `steering(...)` context manager, which adds vectors to the residual stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from steerlab.core.recipe import ModelIdentity, Verdict
from steerlab.core.run import POSITIONS, Positions
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, ModelMismatch, SteeringError
from steerlab.interventions.positions import EVERYWHERE, PositionTracker
from steerlab.models.blocks import find_blocks, identify
from steerlab.models.interventions import active
from steerlab.models.protocols import Steerable

_identities: WeakKeyDictionary[nn.Module, ModelIdentity] = WeakKeyDictionary()


@dataclass(frozen=True)
class Injection:
    """One vector to add: h' = h + coefficient * v at the input of each of its layers.

    positions: "all"; "prompt"; "generated" (from the last prompt position on, the one that
        produces the first new token); "continuation" (strictly after the prompt). A front
        vector always goes on the first tokens of the prompt, whatever `positions` says.
    rows: which rows of the batch; None is every row.
    """

    vector: SteeringVector
    coefficient: float = 1.0
    positions: Positions = "all"
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.coefficient):
            raise BadOption(f"a coefficient has to be a finite number, not {self.coefficient}")
        if self.positions not in POSITIONS:
            raise BadOption(f"positions are {', '.join(POSITIONS)}, not {self.positions!r}")
        if self.rows is not None and not (self.rows and all(map(_is_row, self.rows))):
            raise BadOption(f"rows are row numbers of the batch, from 0, not {self.rows!r}")

    @property
    def is_zero(self) -> bool:
        """Whether it adds nothing: c = 0, or a zero vector.

        Raises SteeringError for a vector that is zero only once it is rounded to float32.
        """
        if self.coefficient == 0 or self.vector.norm == 0:
            return True
        if not any(array.any() for array in self.vector.float32().values()):
            raise SteeringError(
                f"{self.vector} is so small (norm {self.vector.norm:.2g}) that it is zero "
                "in float32: scale the vector up, not the coefficient"
            )
        return False


@contextmanager
def steering(
    model: Steerable | nn.Module,
    vectors: SteeringVector | Injection | Sequence[SteeringVector | Injection],
    coefficient: float | Sequence[float] = 1.0,
    positions: Positions = "all",
    *,
    dose: float | None = None,
    prompt_length: int | Sequence[int] | None = None,
    allow_other_weights: bool = False,
    blocks: str | None = None,
) -> Iterator[None]:
    """Steer every forward pass of a model inside the `with` block.

    model: a LanguageModel, or a plain transformers model (then also inside its `.generate`).
    vectors: one, or several that act together. An `Injection` brings its own coefficient,
        positions and rows, so each row of a batch can be steered differently.
    coefficient: for all, or one for each vector. dose: used instead; every vector gets the
        coefficient at which it has this dose.
    prompt_length: tokens of the prompt (per row), needed where the passes don't show it: when
        prompt and answer are scored in one pass, and in speculative decoding.
    allow_other_weights: accept a vector made on a fine-tune or base of this model.
    blocks: dotted name of the block list, for models where it is not found.

    Hooks are removed at exit, whatever happens; contexts nest. A LanguageModel is locked inside
    the block: other threads wait, and are not steered.
    Raises ModelMismatch for vectors of another model; SteeringError if the steering never fired,
    changed nothing, or could not be placed.
    """
    injections = _injections(vectors, coefficient, positions)
    if dose is not None:
        injections = [replace(i, coefficient=i.vector.coefficient(dose)) for i in injections]
    lock: AbstractContextManager[Any] = nullcontext()
    if isinstance(model, nn.Module):
        module = model
        parent, block_list = find_blocks(module, blocks)
        here = _identity(module, block_list)
    else:
        module, parent, block_list, here = model.model, model.parent, model.blocks, model.identity
        lock = model.lock
    _check_model(here, injections, allow_other_weights)
    effective = tuple(i for i in injections if not i.is_zero)
    tracker = PositionTracker(module, prompt_length)
    adders = _adders(effective, tracker)
    with lock, ExitStack() as stack:
        if adders:
            stack.callback(
                parent.register_forward_pre_hook(tracker, with_kwargs=True, prepend=True).remove
            )
        for layer, adder in adders.items():
            handle = block_list[layer].register_forward_pre_hook(
                adder, with_kwargs=True, prepend=True
            )
            stack.callback(handle.remove)
        stack.enter_context(active(module, _Context(effective, tracker)))
        yield
    for adder in adders.values():
        adder.check_applied()


def _is_row(row: object) -> bool:
    return isinstance(row, int) and not isinstance(row, bool) and row >= 0


@dataclass(frozen=True, eq=False)
class _Context:
    """One active `steering(...)`."""

    injections: tuple[Injection, ...]
    tracker: PositionTracker

    @property
    def acts(self) -> bool:
        return bool(self.injections)

    def begin_prompt(self) -> None:
        self.tracker.forget()

    def front_rows(self, batch: int) -> Iterator[int]:
        for injection in self.injections:
            if injection.vector.scope == "front":
                yield from range(batch) if injection.rows is None else injection.rows


def _injections(
    vectors: SteeringVector | Injection | Sequence[SteeringVector | Injection],
    coefficient: float | Sequence[float],
    positions: Positions,
) -> list[Injection]:
    several = [vectors] if isinstance(vectors, SteeringVector | Injection) else list(vectors)
    if np.ndim(coefficient):
        coefficients = [float(c) for c in np.asarray(coefficient)]
        if len(coefficients) != len(several):
            raise BadOption(f"{len(several)} vectors but {len(coefficients)} coefficients")
    else:
        coefficients = [float(coefficient)] * len(several)  # type: ignore[arg-type]  # a number
    return [
        v if isinstance(v, Injection) else Injection(v, c, positions)
        for v, c in zip(several, coefficients, strict=True)
    ]


def _identity(module: nn.Module, blocks: list[nn.Module]) -> ModelIdentity:
    if module not in _identities:
        _identities[module] = identify(module, blocks)
    return _identities[module]


def _check_model(
    here: ModelIdentity, injections: list[Injection], allow_other_weights: bool
) -> None:
    for vector in {i.vector for i in injections}:
        check_fits(vector, here, allow_other_weights)


def check_fits(vector: SteeringVector, here: ModelIdentity, allow_other_weights: bool) -> None:
    """Raise ModelMismatch for a vector of another model, or of other weights unless allowed."""
    verdict = vector.model.verdict(here)
    if verdict is Verdict.INCOMPATIBLE:
        raise ModelMismatch(
            f"{vector} was made on {vector.model.source} ({vector.model.architecture}, "
            f"{vector.model.n_layers} layers of {vector.model.d_model}) and does not fit "
            f"{here.source} ({here.architecture}, {here.n_layers} layers of {here.d_model})"
        )
    if verdict is Verdict.OTHER_WEIGHTS and not allow_other_weights:
        raise ModelMismatch(
            f"{vector} was made on {vector.model.source}; {here.source} has the same shape "
            "but other weights: pass allow_other_weights=True (--other-weights) if you mean it"
        )


def _adders(injections: tuple[Injection, ...], tracker: PositionTracker) -> dict[int, _Adder]:
    layers = sorted({b for i in injections for b in i.vector.directions})
    return {
        b: _Adder(b, [i for i in injections if b in i.vector.directions], tracker) for b in layers
    }


@dataclass
class _Term:
    """The sum of the injections of one layer that share positions.

    delta: (batch or 1, positions, d_model) float64 on CPU.
    """

    positions: Positions | Literal["front"]
    parts: list[Injection]
    cache: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict)

    def delta(self, layer: int, like: Tensor) -> Tensor:
        """The summed c * v in the activation's dtype, on its device; rounded once."""
        per_row = any(part.rows is not None for part in self.parts)
        batch = like.shape[0] if per_row else 1
        key = (batch, like.device, like.dtype)
        if key not in self.cache:
            exact = torch.from_numpy(self._sum(layer, batch))
            delta = exact.to(device=like.device, dtype=like.dtype)
            _check_lost(layer, exact, exact.any(2).any(1) & ~delta.any(2).any(1).cpu(), like.dtype)
            self.cache[key] = delta
        return self.cache[key]

    def spans(self, layer: int, batch: int) -> Tensor:
        """Rows of the longest front vector on each row of the batch, 0 for none: (batch,)."""
        longest = torch.zeros(batch, dtype=torch.long)
        for part in self.parts:
            rows = slice(None) if part.rows is None else list(part.rows)
            longest[rows] = longest[rows].clamp(min=len(part.vector.directions[layer]))
        return longest

    def is_nothing(self, layer: int, batch: int) -> bool:
        """Whether the parts are zero at this layer, or cancel exactly."""
        return not self._sum(layer, batch).any()

    def _sum(self, layer: int, batch: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        first = next(iter(self.parts)).vector
        rows = max(len(part.vector.directions[layer]) for part in self.parts)
        total = np.zeros((batch, rows, first.model.d_model))
        for part in self.parts:
            direction = part.vector.directions[layer].astype(np.float32).astype(np.float64)
            if part.rows and max(part.rows) >= batch:
                raise SteeringError(
                    f"row {max(part.rows)} is to be steered, but the batch has {batch} rows"
                )
            index = slice(None) if part.rows is None else list(part.rows)
            total[index, : len(direction)] += part.coefficient * direction
        return total


class _Adder:
    """The forward pre-hook of one block."""

    def __init__(self, layer: int, injections: list[Injection], tracker: PositionTracker) -> None:
        self.layer, self.tracker = layer, tracker
        groups: dict[Positions | Literal["front"], _Term] = {}
        for injection in injections:
            place = "front" if injection.vector.scope == "front" else injection.positions
            groups.setdefault(place, _Term(place, [])).parts.append(injection)
        self.terms = list(groups.values())
        self.fired = False
        self.applied: set[str] = set()

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.fired = True
        hidden = args[0] if args else kwargs["hidden_states"]
        steered = hidden
        for term in self.terms:
            steered = self._apply(term, steered)
        if args:
            return (steered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": steered}

    def _apply(self, term: _Term, hidden: Tensor) -> Tensor:
        where = self.tracker.where(term.positions)
        if where is None:
            return hidden
        delta = term.delta(self.layer, hidden)
        if where is not EVERYWHERE:
            delta = self._placed(term, delta, where, hidden)
        steered = hidden + delta  # (batch, seq, d_model)
        if term.positions not in self.applied:
            self._check_changed(term, hidden, steered, delta)
        return steered

    def _placed(self, term: _Term, delta: Tensor, where: Tensor, hidden: Tensor) -> Tensor:
        """Spread a delta over (batch, seq): zero outside of `where`."""
        where = where.to(hidden.device)
        if term.positions != "front":
            return delta * where.unsqueeze(-1).to(delta.dtype)  # where: bool (batch, seq)
        # where: absolute position, -1 on padding (batch, seq)
        spans = term.spans(self.layer, len(delta)).to(delta.device)
        self.tracker.check_front(spans, delta[:, 0].any(dim=-1))
        rows = delta.shape[1]
        inside = (where >= 0) & (where < rows)
        batch = torch.arange(delta.shape[0], device=delta.device).unsqueeze(1)
        spread = delta[batch, where.clamp(0, rows - 1)]
        return spread * inside.unsqueeze(-1).to(delta.dtype)

    def _check_changed(self, term: _Term, before: Tensor, after: Tensor, delta: Tensor) -> None:
        due = delta.any(dim=2).any(dim=1)  # (batch or 1,)
        if bool(due.any()):
            changed = (before != after).any(dim=2).any(dim=1)
            _check_lost(self.layer, delta, due & ~changed, before.dtype)
        elif not term.is_nothing(self.layer, len(before)):
            return  # nothing was due in this pass
        self.applied.add(term.positions)

    def check_applied(self) -> None:
        """Raise SteeringError if this layer should have been steered and was not."""
        if not self.fired:
            raise SteeringError(
                f"the steering at layer {self.layer} never fired: the model was not run inside "
                "`with steering(...)`, or another copy of it was"
            )
        for term in self.terms:
            if term.positions not in self.applied:
                raise SteeringError(
                    f"the steering at layer {self.layer} never applied: no position was "
                    f"{term.positions!r} in what was run"
                )


def _check_lost(layer: int, delta: Tensor, lost: Tensor, dtype: torch.dtype) -> None:
    """Raise SteeringError if some row's delta, (batch or 1, positions, d_model), is lost."""
    if bool(lost.any()):
        rows = delta.double().expand(len(lost), -1, -1)[lost]
        size = float(torch.linalg.vector_norm(rows, dim=-1).max())
        raise SteeringError(
            f"steering at layer {layer} changed nothing: ‖c·v‖ = {size:.2g} is lost in "
            f"the rounding of {str(dtype)[6:]}; use a larger coefficient"
        )
