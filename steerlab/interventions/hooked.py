"""Hooked: steering by hooks on the blocks, and the check that every pass went through them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from steerlab.errors import SteeringError
from steerlab.interventions.active import ActiveSteering
from steerlab.interventions.adding import adders_of, runs_again
from steerlab.interventions.applied import Applied
from steerlab.interventions.checked_model import CheckedWeights
from steerlab.interventions.injection import Injection
from steerlab.interventions.positions import PositionTracker
from steerlab.models.cache import named_arguments
from steerlab.models.identity import adapter_layers, adapters_on
from steerlab.models.interrupts import Removable, remove_all
from steerlab.models.uncompiled import Uncompiled, compiled_parts


class Hook:
    """A hook that acts for one steering, in its context; in a copy of the model it does nothing."""

    def __init__(self, owner: ActiveSteering, call: Callable[..., Any]) -> None:
        self.owner, self.call = owner, call

    def __call__(self, *args: Any) -> Any:
        """Call the hook if its steering acts here."""
        return self.call(*args) if self.owner.acts_here() else None

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()


class Inert:
    """A hook that does nothing: what copying or pickling makes of one of ours."""

    def __call__(self, *_: Any) -> None:
        """Leave everything as it is."""


class Hooked:
    """Adds at any positions and rows; what torch.compile has compiled runs uncompiled meanwhile.

    module: the model. parent: the module in it that runs the blocks. weights: None if they may
    change meanwhile.
    """

    def __init__(
        self,
        module: nn.Module,
        parent: nn.Module,
        blocks: list[nn.Module],
        injections: tuple[Injection, ...],
        tracker: PositionTracker,
        applied: Applied,
        weights: CheckedWeights | None,
    ) -> None:
        self.module, self.parent, self.blocks = module, parent, blocks
        self.tracker, self.applied, self.weights = tracker, applied, weights
        self.adders = adders_of(injections, tracker, _start_ids(module), applied)
        self._list = block_list(parent, blocks)
        self._adapted = adapter_layers(module)
        self._adapters = adapters_on(self._adapted)
        self._outer = threading.local()  # the pass of the whole model that a thread is in
        self._handles: list[Removable] = []

    def open(self, owner: ActiveSteering) -> None:
        """Put the hooks on."""
        self._handles.append(Uncompiled())
        if self.module is not self.parent:
            self._hang(owner, self.module, self._enter_model, self._leave_model)
        self._hang(owner, self.parent, self._enter_blocks, self._leave_blocks)
        for layer, adder in self.adders.items():
            self._hang(owner, self.blocks[layer], adder)

    def _hang(
        self,
        owner: ActiveSteering,
        module: nn.Module,
        before: Callable[..., Any],
        after: Callable[..., Any] | None = None,
    ) -> None:
        hook = Hook(owner, before)
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True, prepend=True))
        if after is not None:
            hook = Hook(owner, after)
            self._handles.append(module.register_forward_hook(hook, always_call=True))

    def close(self) -> None:
        """Take the hooks off; does nothing the second time."""
        remove_all(self._handles)

    def begin_prompt(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""
        self.tracker.forget()

    def end_early(self) -> None:
        """Accept that no position was "continuation"."""
        for adder in self.adders.values():
            adder.applied.add("continuation")

    def check_applied(self) -> None:
        """Raise SteeringError unless everything that was asked for has come to pass."""
        for adder in self.adders.values():
            adder.check_applied()
        self.tracker.check_prompt_length()
        if self.weights is not None and adapters_on(self._adapted) == self._adapters:
            self.weights.check_at_end()

    def _enter_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._outer.arguments = named_arguments(module.forward, args, kwargs)
        self._outer.passes = 0

    def _leave_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        passes = self._outer.passes
        self._outer.arguments, self._outer.passes = {}, None
        if output is not None and not passes:
            raise self._not_seen("the module that runs the blocks")

    def _enter_blocks(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if list(self._list) != self.blocks:
            raise SteeringError(
                "the model's blocks were changed inside of `with steering(...)`, so layer numbers "
                "no longer hold: change them outside of it"
            )
        if adapters_on(self._adapted) != self._adapters:
            raise SteeringError(
                "adapters were switched inside of `with steering(...)`, so the model is another "
                "one than the vectors were checked against: switch them outside of it"
            )
        if self.weights is not None:
            self.weights.check()
        check_no_recomputing(self.parent, [self.blocks[layer] for layer in self.adders])
        self._count_pass()
        given = named_arguments(module.forward, args, kwargs)
        if args and given.get("input_ids") is None and given.get("inputs_embeds") is None:
            given["input_ids"] = args[0]
        self.tracker.begin(given, getattr(self._outer, "arguments", {}))

    def _count_pass(self) -> None:
        passes = getattr(self._outer, "passes", None)
        if passes:
            raise runs_again("the module that runs the blocks")
        if passes is not None:  # inside a pass of the model
            self._outer.passes = 1

    def _leave_blocks(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        now = self.tracker.end(output)
        if now is None:
            return
        if self.applied.measures and (output is not None or now.changes):
            self.applied.end(now)  # a recording, or an error, may have ended it half-way
        if output is None:
            return
        for layer in self.adders:
            if layer not in now.entered:
                raise self._not_seen(f"block {layer}")

    def _not_seen(self, part: str) -> SteeringError:
        """The error about a pass that did not come through a part of the model."""
        named = {"the model": self.module, "the module that runs its blocks": self.parent}
        blocks = {f"block {layer}": self.blocks[layer] for layer in self.adders}
        why = "the model skips it"
        if compiled := compiled_parts({**named, **blocks}):
            why = f"torch.compile has compiled {', '.join(compiled)} without the steering"
        return SteeringError(f"a pass did not come through {part}, so it was not steered: {why}")


def block_list(parent: nn.Module, blocks: list[nn.Module]) -> nn.ModuleList:
    """The list that holds exactly these blocks; SteeringError if they were exchanged."""
    for child in parent.children():
        if isinstance(child, nn.ModuleList) and list(child) == blocks:
            return child
    raise SteeringError(
        "the model's blocks are not those that were found when it was loaded: load it anew, or "
        "make a new LanguageModel of it"
    )


def check_no_recomputing(parent: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Raise SteeringError if the backward pass will run our hooks again, maybe when they are off.

    In transformers 5.23, the gradient checkpoint of a block begins behind its hooks; in 5.20 it
    holds them.
    """
    if torch.is_grad_enabled() and any(_is_recomputed(parent, block) for block in blocks):
        raise SteeringError(
            "gradient checkpointing runs the blocks again in the backward pass, where the steering "
            "may be over: call model.gradient_checkpointing_disable() first, or use a newer "
            "transformers"
        )


def _is_recomputed(parent: nn.Module, block: nn.Module) -> bool:
    """Whether a checkpoint is around a block and its hooks."""
    own = getattr(block, "gradient_checkpointing", None)
    if own is None:
        return parent.training and bool(getattr(parent, "gradient_checkpointing", False))
    return bool(own) and block.training and type(block).__call__ is not nn.Module.__call__


def _start_ids(module: nn.Module) -> set[int]:
    """The tokens that a prompt of this model may begin with; empty if that is unknown."""
    found: set[int] = set()
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(getattr(module, "config", None), name, None)
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return found
