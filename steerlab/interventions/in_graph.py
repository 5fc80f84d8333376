"""Steering inside of the graphs of torch.compile, and of CUDA graphs.

The hooks are on the blocks before anything is compiled, so that every graph has them, and they
stay. Each adds a buffer of its block, which is zero unless somebody steers. Before every pass of
the model, a hook that is never compiled fills the buffers for the context that runs the pass.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from steerlab.errors import SteeringError
from steerlab.interventions.active import ActiveSteering
from steerlab.interventions.adding import check_lost, never_fired, terms_of
from steerlab.interventions.checked_model import CheckedWeights
from steerlab.interventions.hooked import Inert, check_no_recomputing
from steerlab.interventions.injection import Injection
from steerlab.models.blocks import find_blocks, stream_of, text_config
from steerlab.models.protocols import Steerable

_DELTA, _COUNTS = "steerlab_delta", "steerlab_counts"
_POLL = 0.05  # seconds between two looks whether another thread's pass has broken off

_prepared: WeakKeyDictionary[nn.Module, GraphBlocks] = WeakKeyDictionary()


def compilable(model: Steerable | nn.Module, *, blocks: str | None = None) -> None:
    """Prepare a model so that it can be steered while torch.compile runs it; call it before.

        compilable(lm)
        lm.model.compile()  # or torch.compile(lm.model), or lm.model.forward = torch.compile(...)
        with steering(lm, love, 4.0):
            lm.generate("I think you are a")

    Inside `steering(...)` at positions="all", for all rows alike, the compiled graphs then run as
    they are, and add what the context asks for: another vector needs no compilation. Any other
    positions are steered by hooks, uncompiled, as in a model that was not prepared.

    blocks: dotted name of the block list, for models where it is not found.
    What was compiled so far, of any model, is compiled anew when it is next used. The model
    stays prepared; unsteered, its blocks add zeros. A graph of the whole `model.__call__` breaks
    once, before the forward: with fullgraph=True compile `model.forward`.
    """
    if isinstance(model, nn.Module):
        parent, found = find_blocks(model, blocks)
        module = model
    else:
        module, parent, found = model.model, model.parent, model.blocks
    if parent not in _prepared:
        _prepared[parent] = GraphBlocks(module, found)
        torch._dynamo.reset()  # graphs without the hooks


def graph_blocks(parent: nn.Module) -> GraphBlocks | None:
    """The blocks of a prepared model; None if it was not prepared."""
    return _prepared.get(parent)


class GraphBlocks:
    """The blocks of a prepared model, and what their buffers hold at the moment.

    Passes of several threads run at once if they need the same in the buffers; others wait.
    """

    def __init__(self, module: nn.Module, blocks: list[nn.Module]) -> None:
        self.blocks = blocks
        self.steerings: list[InGraph] = []
        self.begun = 0  # passes, whoever ran them
        self._shown: list[InGraph] | None = None  # None: anything
        self._running: set[int] = set()  # threads
        self._turn = threading.Condition()
        width = int(text_config(module).hidden_size)
        for block in blocks:
            first = next(p for p in block.parameters() if p.is_floating_point())
            delta = torch.zeros(width, dtype=first.dtype, device=first.device)
            block.register_buffer(_DELTA, delta, persistent=False)
            counts = torch.zeros(2, dtype=torch.long, device=first.device)
            block.register_buffer(_COUNTS, counts, persistent=False)
            block.register_forward_pre_hook(_Add(), with_kwargs=True)
        module.register_forward_pre_hook(_Uncompiled(self._before), prepend=True)
        module.register_forward_hook(_Uncompiled(self._after), always_call=True)

    def counts(self, layer: int) -> tuple[int, int]:
        """Passes through a block so far, and those with a change at the end of every row."""
        through, changed = getattr(self.blocks[layer], _COUNTS).tolist()
        return int(through), int(changed)

    def remove(self, steering: InGraph) -> None:
        """Fill the buffers for a steering no more."""
        with self._turn:
            if steering in self.steerings:
                self.steerings.remove(steering)
            if not self._others_run():
                self._fill([])  # for passes that come around the model

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        wanted = [one for one in self.steerings if one.acts_here()]
        if wanted:
            check_no_recomputing(module, self.blocks)
        for one in wanted:
            if one.weights is not None:
                one.weights.check()
        me = threading.get_ident()
        with self._turn:
            self._running.discard(me)  # of a pass that broke off
            while self._shown != wanted and self._others_run():
                self._turn.wait(_POLL)
            if self._shown != wanted:
                self._fill(wanted)
            self._running.add(me)
            self.begun += 1

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        with self._turn:
            for one in (self._shown or []) if output is not None else []:
                one.passes += 1
            self._running.discard(threading.get_ident())
            self._turn.notify_all()

    def _others_run(self) -> bool:
        self._running = {thread for thread in self._running if _runs_a_module(thread)}
        return bool(self._running)

    @torch.no_grad()
    def _fill(self, wanted: list[InGraph]) -> None:
        self._shown = None
        terms = {t.layer: t for t in terms_of(i for one in wanted for i in one.injections)}
        for layer, block in enumerate(self.blocks):
            delta = getattr(block, _DELTA)
            if layer in terms:
                delta.copy_(terms[layer].delta(delta.reshape(1, 1, -1))[0, 0])
            else:
                delta.zero_()
        self._shown = wanted


class InGraph:
    """A steering that the graphs of a prepared model add."""

    def __init__(
        self,
        blocks: GraphBlocks,
        injections: tuple[Injection, ...],
        weights: CheckedWeights | None,
    ) -> None:
        self.injections, self.weights = injections, weights
        self.passes = 0
        self._blocks = blocks
        self._owner: ActiveSteering | None = None
        self._terms = {term.layer: term for term in terms_of(injections)}
        self._begun = 0
        self._counts: dict[int, tuple[int, int]] = {}  # when it was entered
        self._text: dict[int, tuple[int, int]] = {}  # when the latest text began

    def acts_here(self) -> bool:
        """Whether it acts in the context that asks."""
        return self._owner is not None and self._owner.acts_here()

    def open(self, owner: ActiveSteering) -> None:
        """Have the buffers filled for the passes in which the owner acts."""
        self._owner = owner
        self._begun = self._blocks.begun
        self._counts = {layer: self._blocks.counts(layer) for layer in self._terms}
        self._text = dict(self._counts)
        self._blocks.steerings.append(self)

    def close(self) -> None:
        """Have them filled no more."""
        self._blocks.remove(self)

    def begin_prompt(self) -> None:
        """A text begins: raise SteeringError if the one before was not changed."""
        for layer in self._terms:
            self._check_text(layer, self._blocks.counts(layer))

    def end_early(self) -> None:
        """Do nothing: every position is steered."""

    def check_applied(self) -> None:
        """Raise SteeringError unless every pass went through every block, and was changed."""
        begun = self._blocks.begun - self._begun
        for layer in self._terms:
            now, before = self._blocks.counts(layer), self._counts[layer]
            through = now[0] - before[0]
            if not self.passes and not through:
                raise never_fired(layer)
            if not self.passes <= through <= begun:
                raise SteeringError(
                    f"{through} passes came through block {layer}, but {self.passes} through the "
                    "model that compilable(...) prepared: run that model, and compile it after "
                    "compilable(...), not before"
                )
            self._check_text(layer, now)
        if self.weights is not None:
            self.weights.check_at_end()

    def _check_text(self, layer: int, now: tuple[int, int]) -> None:
        (through, changed), self._text[layer] = self._text[layer], now
        if now[0] > through and now[1] == changed:
            self._check_changed(layer)

    def _check_changed(self, layer: int) -> None:
        delta = getattr(self._blocks.blocks[layer], _DELTA)
        exact = self._terms[layer].delta(delta.double().reshape(1, 1, -1))
        check_lost(layer, exact, exact.any(2).any(1), delta.dtype)


class _Uncompiled:
    """A permanent hook that is never compiled, and does nothing in a copy of its model."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = torch.compiler.disable(call)  # type: ignore[no-untyped-call]  # torch's own

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()


class _Add:
    """Adds the buffer of a block to its input, and counts; it is compiled with the block."""

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        delta, counts = getattr(module, _DELTA), getattr(module, _COUNTS)
        hidden = stream_of(args, kwargs, len(delta))
        steered = hidden + delta.to(hidden.dtype)  # (batch, seq, d_model)
        changed = (steered[:, -1] != hidden[:, -1]).any(dim=-1).all().long()
        counts.add_(torch.stack([torch.ones_like(changed), changed]))
        if args:
            return (steered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": steered}

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()


def _runs_a_module(thread: int) -> bool:
    """Whether a thread is inside of a module's call."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename == _MODULE_FILE:
            return True
        frame = frame.f_back
    return False


_MODULE_FILE = nn.Module.__call__.__code__.co_filename
