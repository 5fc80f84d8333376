"""The interventions that are active on a model: steering registers here, running a model asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import nn


class Intervention(Protocol):
    """Changes the residual stream of a model while it is active."""

    @property
    def acts(self) -> bool:
        """Whether it changes anything at all."""

    def begin_prompt(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""

    def front_rows(self, batch: int) -> Iterator[int]:
        """Rows of a batch that a front vector steers; these have to begin with BOS."""


_active: WeakKeyDictionary[nn.Module, list[Intervention]] = WeakKeyDictionary()


@contextmanager
def active(module: nn.Module, intervention: Intervention) -> Iterator[None]:
    """Register an intervention on a model for the duration of the `with` block."""
    stack = _active.setdefault(module, [])
    stack.append(intervention)
    try:
        yield
    finally:
        stack.remove(intervention)


def is_steered(module: nn.Module) -> bool:
    """Whether any intervention acts on this model right now."""
    return any(intervention.acts for intervention in _active.get(module, []))


def begin_prompt(module: nn.Module) -> None:
    """Tell every intervention on this model that the next pass is a new prompt."""
    for intervention in _active.get(module, []):
        intervention.begin_prompt()


def rows_with_front(module: nn.Module, batch: int) -> list[bool]:
    """For each row of a batch, whether a front vector steers it: it then has to begin with BOS."""
    rows = {row for found in _active.get(module, []) for row in found.front_rows(batch)}
    return [row in rows for row in range(batch)]
