"""The interventions that act on a model here: steering registers, running a model asks.

An intervention belongs to the context (`contextvars`) that entered it. An asyncio task and
`asyncio.to_thread` take the context along; any other thread or task runs the model without it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import nn


class Intervention(Protocol):
    """Changes the residual stream of a model while it is active."""

    @property
    def acts(self) -> bool:
        """Whether it changes anything at all; False once it was left."""

    @property
    def by_row(self) -> bool:
        """Whether rows of a batch are steered differently."""

    def is_on(self, module: nn.Module) -> bool:
        """Whether it acts on the blocks of this module."""

    def begin_prompt(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""

    def front_rows(self, batch: int) -> Iterator[int]:
        """Rows of a batch that a front vector steers; these have to begin with BOS."""

    def end_texts(self, finishes: Mapping[int, str]) -> None:
        """Judge texts of one token, by row: how each was finished."""


_active: ContextVar[tuple[Intervention, ...]] = ContextVar("steerlab_interventions", default=())
_locks: WeakKeyDictionary[nn.Module, AbstractContextManager[Any]] = WeakKeyDictionary()


def activate(intervention: Intervention) -> None:
    """Let an intervention act in this context, and forget those that act no more."""
    _active.set((*(one for one in _active.get() if one.acts), intervention))


def deactivate(intervention: Intervention) -> bool:
    """Take an intervention out of this context; False if it was not active in it."""
    before = _active.get()
    _active.set(tuple(one for one in before if one is not intervention))
    return intervention in before


def acts_here(intervention: Intervention) -> bool:
    """Whether this context, or the one it was copied from, entered the intervention."""
    return intervention in _active.get()


def lock_of(module: nn.Module) -> AbstractContextManager[Any]:
    """The lock of a module, whichever wrapper it is reached through; reentrant."""
    return _locks.setdefault(module, threading.RLock())


def is_steered(module: nn.Module) -> bool:
    """Whether any intervention of this context acts on this model."""
    return bool(_on(module))


def is_steered_by_row(module: nn.Module) -> bool:
    """Whether interventions of this context steer rows of a batch differently."""
    return any(intervention.by_row for intervention in _on(module))


def begin_prompt(module: nn.Module) -> None:
    """Tell every intervention on this model that the next pass is a new prompt."""
    for intervention in _on(module):
        intervention.begin_prompt()


def end_texts(module: nn.Module, finishes: Mapping[int, str]) -> None:
    """Tell every intervention on this model which rows' texts have one token, and why.

    That token was chosen, but not read: nothing is due in it.
    """
    for intervention in _on(module):
        intervention.end_texts(finishes)


def rows_with_front(module: nn.Module, batch: int) -> list[bool]:
    """For each row of a batch, whether a front vector steers it: it then has to begin with BOS."""
    rows = {row for found in _on(module) for row in found.front_rows(batch)}
    return [row in rows for row in range(batch)]


def _on(module: nn.Module) -> list[Intervention]:
    """Those that act; an interrupt at the end of a `with` block may leave a dead one behind."""
    return [one for one in _active.get() if one.acts and one.is_on(module)]
