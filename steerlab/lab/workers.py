"""Dividing work among the processes that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PATIENCE = timedelta(days=7)  # for the slowest process


@dataclass(frozen=True)
class WorkerShard:
    """One of `count` processes that divide the work; by default the only one.

    device: where this process loads its model; None leaves it to the model.
    """

    index: int = 0
    count: int = 1
    device: str | None = None
    _state: Any = None

    @classmethod
    def current(cls, device: str | None = None) -> WorkerShard:
        """This process's shard, according to the launcher's environment.

        device: as the user asked; "cpu" joins the processes by gloo on any machine.
        """
        if not any(os.environ.get(name, "1") not in ("", "1") for name in _SIZES):
            return cls(device=device)
        import torch
        from accelerate import PartialState

        forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
        cpu = device == "cpu" or forced or not torch.cuda.is_available()
        state = PartialState(cpu=cpu, timeout=_PATIENCE)
        own = "cpu" if cpu else device or str(state.device)
        return cls(state.process_index, state.num_processes, own, state)

    @property
    def is_first(self) -> bool:
        """Whether this process reports for all."""
        return self.index == 0

    def of(self, units: Sequence[T]) -> Sequence[T]:
        """This process's units: every `count`-th."""
        return units[self.index :: self.count]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def leave(self) -> None:
        """Wait for the others, then leave the process group."""
        if self._state is not None:
            self.wait()
            self._state.destroy_process_group()
