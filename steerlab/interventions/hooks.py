"""The `steering(...)` context manager, which adds vectors to the residual stream."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ContextDecorator
from dataclasses import replace
from functools import partial
from types import TracebackType

import numpy as np
from torch import nn

from steerlab.core.arguments import checks_names
from steerlab.core.notation import runs, span, subscript
from steerlab.core.recipe import ModelIdentity, Verdict
from steerlab.core.run import Positions
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible, ModelMismatch, SteerlabWarning
from steerlab.interventions.active import ActiveSteering, Mechanism
from steerlab.interventions.applied import Applied
from steerlab.interventions.checked_model import CheckedWeights, check_causal
from steerlab.interventions.hooked import Hooked, block_list
from steerlab.interventions.in_graph import InGraph, graph_blocks
from steerlab.interventions.injection import Injection
from steerlab.interventions.positions import PositionTracker
from steerlab.models.blocks import find_blocks
from steerlab.models.identity import identify
from steerlab.models.interrupts import Uninterrupted
from steerlab.models.protocols import Steerable

Steers = str | SteeringVector | Injection
"""What steers: an expression over stored vectors, a vector, or an Injection."""


@checks_names()
def steering(
    model: Steerable | nn.Module,
    vectors: Steers | Sequence[Steers],
    coefficient: float | Sequence[float] = 1.0,
    positions: Positions = "all",
    *,
    dose: float | None = None,
    prompt_length: int | Sequence[int] | None = None,
    allow_other_weights: bool = False,
    blocks: str | None = None,
    audit: bool = False,
) -> AbstractContextManager[Applied]:
    """Steer every forward pass of a model inside the `with` block.

    model: a LanguageModel, or a plain transformers model (then also inside its `.generate`).
    vectors: one, or several that act together. Expressions ("love - anger") are over the vectors
        of the store that `Store()` finds. An `Injection` brings its own coefficient, positions
        and rows, so each prompt of a batch can be steered differently.
    coefficient: for all, or one for each vector. dose: used instead; every vector gets the
        coefficient at which it has this dose.
    prompt_length: tokens of the prompt (for all, or for each), needed where the passes don't show
        it: when prompt and answer are scored in one pass, and in speculative decoding.
    allow_other_weights: accept a vector made on a fine-tune or base of this model, and weights
        that change inside the block, as in training.
    blocks: dotted name of the block list, for models where it is not found.
    audit: measure which positions of which rows are changed, and how far, in every pass and
        layer. `with steering(..., audit=True) as applied` has it as `applied.audit`.

    The steering belongs to the context that enters it: asyncio tasks made in the block and
    `asyncio.to_thread` take it along, while other threads and tasks run the model unsteered.
    Contexts nest, and one can be entered again. Hooks are removed at exit, whatever happens, and
    do nothing in a copy of the model. Where a prompt ends is known for each cache and, without a
    cache, for the tokens that passes repeat: a pass without a cache that repeats an earlier one
    and adds a token goes on with it.

    Inside the block, what torch.compile has compiled runs uncompiled, since a graph made without
    the hooks would not be steered; `compilable(model)`, called before compiling, has it run
    compiled and steered at positions="all", unless it is audited.
    Raises ModelMismatch for vectors of another model; SteeringError if the steering never fired,
    missed a pass, changed nothing, or could not be placed, and at the end of a block that is left
    in another thread or task than it was entered in.
    """

    def prepared(applied: Applied) -> ActiveSteering | None:
        module, parent, block_list, here = _parts(model, blocks)
        injections = _injections(vectors, coefficient, positions, here)
        for i in injections:
            _warn_of_another_layer(i.vector)
        if dose is not None:
            injections = [replace(i, coefficient=i.vector.coefficient(dose)) for i in injections]
        for vector in {i.vector for i in injections}:
            check_fits(vector, here, allow_other_weights)
        effective = tuple(i for i in injections if not i.is_zero)
        placing = audit or any(i.place != "all" or i.rows is not None for i in effective)
        tracker = PositionTracker(prompt_length, placing=placing or prompt_length is not None)
        if not effective:
            return None
        if isinstance(model, nn.Module) and any(i.place != "all" for i in effective):
            check_causal(block_list)
        weights = None
        if not allow_other_weights:
            again = partial(identify, module, parent, block_list, here.source)
            weights = CheckedWeights(module, here, again)
        mechanism: Mechanism
        if not tracker.placing and (prepared_blocks := graph_blocks(parent)) is not None:
            mechanism = InGraph(prepared_blocks, effective, weights)
        else:
            mechanism = Hooked(module, parent, block_list, effective, tracker, applied, weights)
        return ActiveSteering(module, parent, effective, mechanism)

    return _Steering(prepared, audit)


class _Steering(ContextDecorator, AbstractContextManager[Applied]):
    """What `steering` returns: it begins anew whenever it is entered, also inside itself."""

    def __init__(self, prepare: Callable[[Applied], ActiveSteering | None], audit: bool) -> None:
        self._prepare, self._audit = prepare, audit
        self._entered: list[tuple[ActiveSteering | None, Callable[[], object]]] = []

    def __enter__(self) -> Applied:
        applied = Applied(measures=self._audit)
        active = self._prepare(applied)
        self._entered.append((active, self._closing_at_last(active)))
        try:
            if active is not None:
                with Uninterrupted():
                    active.open()
        except BaseException:
            self._leave()
            raise
        return applied

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        active = self._leave()
        if kind is None and active is not None:
            active.mechanism.check_applied()

    def _leave(self) -> ActiveSteering | None:
        active, forget = self._entered[-1]
        try:
            if active is not None:
                with Uninterrupted():
                    active.leave()
        finally:
            self._entered.pop()
            forget()
            if active is not None:
                active.leave()  # if the interrupt came before it was held off
        return active

    def _recreate_cm(self) -> _Steering:
        return _Steering(self._prepare, self._audit)  # one for each call of a decorated function

    def _closing_at_last(self, active: ActiveSteering | None) -> Callable[[], object]:
        """Close a steering when nobody can leave it any more; returns what calls that off.

        An interrupt may come at the very entrance of `__exit__`. A `__del__` would run each time,
        and swallow the interrupts that come then.
        """
        if active is None:
            return lambda: None
        closing = weakref.finalize(self, active.close)
        closing.atexit = False
        return closing.detach


def _parts(
    model: Steerable | nn.Module, blocks: str | None
) -> tuple[nn.Module, nn.Module, list[nn.Module], ModelIdentity]:
    """The model, the module that runs its blocks, the blocks, and which model it is."""
    if isinstance(model, nn.Module):
        parent, found = find_blocks(model, blocks)
        return model, parent, found, identify(model, parent, found)
    if not hasattr(model, "blocks"):
        raise BadOption(
            f"steering takes a LanguageModel or a transformers model, not {model!r:.60}: "
            "write steering(model, vector, dose=…)"
        )
    block_list(model.parent, model.blocks)  # other blocks would be taken for other weights
    return model.model, model.parent, model.blocks, model.identity


def _injections(
    vectors: Steers | Sequence[Steers],
    coefficient: float | Sequence[float],
    positions: Positions,
    here: ModelIdentity,
) -> list[Injection]:
    given = [vectors] if isinstance(vectors, Steers) else list(vectors)
    several = [_evaluated(v, here) if isinstance(v, str) else v for v in given]
    if wrong := [v for v in several if not isinstance(v, Steers)]:
        raise BadOption(f"what steers is a vector, an expression or an Injection, not {wrong[0]!r}")
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


def _evaluated(expression: str, here: ModelIdentity) -> SteeringVector:
    """An expression over stored vectors; names that several models have mean this model's."""
    from steerlab.registry import Store

    store = Store()
    try:
        return store.results.noted(store.evaluate(expression))
    except Incompatible:
        return store.results.noted(store.evaluate(expression, here))


def _warn_of_another_layer(vector: SteeringVector) -> None:
    """Say that a stored vector works at a layer that it does not have, and so does not act at."""
    if vector.works_at is not None:
        own = span(vector.layers)
        warnings.warn(
            f"{vector} works at layer {vector.works_at} and steers here at its own, {own}: "
            f"Lab(Store(), lm).steering({vector.ref!r}) steers where it works; "
            f"{vector.ref}[{subscript(runs(vector.layers)[0])}] says that its own is meant",
            SteerlabWarning,
            stacklevel=4,
        )


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
            f"{vector} was made on {vector.model.source}; {_other_weights(vector.model, here)}: "
            "pass allow_other_weights=True (--other-weights) if you mean it"
        )
    if verdict is Verdict.OTHER_QUANTIZATION:
        warnings.warn(
            f"{vector} was made in {vector.model.dtype} and is used in {here.dtype}: quantization "
            "changes activations, so calibrate it again here",
            SteerlabWarning,
            stacklevel=2,
        )


def _other_weights(then: ModelIdentity, here: ModelIdentity) -> str:
    if then.source == here.source:
        return "it has other weights now (trained, merged or replaced) or other adapters"
    return f"{here.source} has the same shape but other weights"
