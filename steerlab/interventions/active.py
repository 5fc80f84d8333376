"""ActiveSteering: one entered `steering(...)`, and the context that it acts in."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import nn

from steerlab.core.display import count
from steerlab.errors import SteeringError, SteerlabWarning
from steerlab.interventions.injection import Injection
from steerlab.models.interventions import activate, acts_here, deactivate


class Mechanism(Protocol):
    """How a steering reaches the blocks of its model."""

    def open(self, owner: ActiveSteering) -> None:
        """Steer the passes in which the owner acts."""

    def close(self) -> None:
        """Leave the model as it was; does nothing the second time."""

    def begin_prompt(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""

    def end_early(self) -> None:
        """Accept that no position was "continuation": a text ended at its first token."""

    def check_applied(self) -> None:
        """Raise SteeringError unless everything that was asked for has come to pass."""


class ActiveSteering:
    """Steers the passes that run in the context that opened it, until it is closed.

    module: the model. parent: the module in it that runs the blocks.
    """

    def __init__(
        self,
        module: nn.Module,
        parent: nn.Module,
        injections: tuple[Injection, ...],
        mechanism: Mechanism,
    ) -> None:
        self.module, self.parent = module, parent
        self.injections, self.mechanism = injections, mechanism
        self._is_open = self._was_open = False
        self._thread = threading.get_ident()

    @property
    def acts(self) -> bool:
        """Whether it changes anything at all; False once it was left."""
        return self._is_open

    def acts_here(self) -> bool:
        """Whether it acts in the context that asks."""
        return self._is_open and acts_here(self)

    def is_on(self, module: nn.Module) -> bool:
        """Whether it acts on the blocks of this module."""
        return module is self.module or any(part is self.parent for part in module.modules())

    @property
    def by_row(self) -> bool:
        """Whether rows of a batch are steered differently."""
        return any(injection.rows is not None for injection in self.injections)

    def begin_prompt(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""
        self.mechanism.begin_prompt()

    def end_texts(self, finishes: Mapping[int, str]) -> None:
        """Warn of texts in which no position was "continuation", or raise SteeringError."""
        wanted = [i.rows for i in self.injections if self._is_open and i.place == "continuation"]
        short = [row for row in finishes if any(rows is None or row in rows for rows in wanted)]
        if any(finishes[row] == "length" for row in short):
            raise SteeringError(
                "no position was 'continuation' in a text of one token, which is not read any "
                "more: generate at least two, or steer at 'generated'"
            )
        if short:
            self.mechanism.end_early()
            warnings.warn(
                f"{count(len(short), 'text')} ended at the first token, so no position was "
                "'continuation' there: nothing was added",
                SteerlabWarning,
                stacklevel=4,
            )

    def front_rows(self, batch: int) -> Iterator[int]:
        """Rows of a batch that a front vector steers; these have to begin with BOS."""
        for injection in self.injections if self._is_open else ():
            if injection.vector.scope == "front":
                yield from range(batch) if injection.rows is None else injection.rows

    def open(self) -> None:
        """Act in this context from now on."""
        self._is_open = True
        self.mechanism.open(self)
        activate(self)
        self._was_open = True

    def close(self) -> None:
        """Act nowhere any more; does nothing the second time."""
        self._is_open = False
        self.mechanism.close()

    def leave(self) -> None:
        """Close it, and take it out of this context; does nothing the second time.

        Raises SteeringError if another context opened it.
        """
        self.close()
        was_open, self._was_open = self._was_open, False
        is_here = deactivate(self) and threading.get_ident() == self._thread
        if was_open and not is_here:
            raise SteeringError(
                "this steering(...) was entered in another thread or task than it is left in: "
                "leave it where it was entered. The model is no longer steered"
            )
