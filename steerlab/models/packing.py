"""Weights in oneDNN's own order, held beside the plain ones while a batch or a calibration runs.

A product brings a weight into the order of its kernel at each call, which at 3 to 1,000 rows takes
an eighth to a half of its time. So what runs for many passes, a batch of texts, a calibration or an
evaluation, has a copy in that order, which only its own context sees, and which ends with it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

_SHARE = 0.25
"""Of the free memory: a larger copy is not made."""

_GROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_here: ContextVar[Mapping[nn.Module, Packed] | None] = ContextVar("packed", default=None)
_log = logging.getLogger("steerlab.models")


@dataclass(frozen=True)
class Packed:
    """A copy of a layer's weight in oneDNN's order, and at which rows it is the fastest."""

    weight: nn.Parameter
    state: tuple[int, int]
    """Of the parameter when it was copied; another one says that it was changed since.

    Changes of `weight.data` in place, past torch's own count of them, are not seen.
    """
    copy: Tensor
    gains: tuple[bool, ...]
    """For each of `products.ROWS`."""


def pack(weight: Tensor) -> Tensor:
    """A copy of a weight, (d_out, d_in), that `_linear_pointwise` takes as it is."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return found


def packed(layer: nn.Module, weight: nn.Parameter) -> Packed | None:
    """The copy of a layer's weight, if this context has one."""
    held = _here.get()
    found = held.get(layer) if held else None
    return found if found and weight is found.weight and found.state == _state(weight) else None


def is_packed() -> bool:
    """Whether this context has copies of weights."""
    return bool(_here.get())


def _state(weight: Tensor) -> tuple[int, int]:
    return weight._version, weight.data_ptr()


class Packing:
    """Holds copies of the weights of layers in this context until it is removed."""

    def __init__(self, layers: Sequence[tuple[nn.Module, Tensor, tuple[bool, ...]]]) -> None:
        """layers: each with its weight as (d_out, d_in) and the rows at which a copy gains."""
        self._held = {}
        for layer, plain, gains in layers:
            weight: nn.Parameter = layer.weight  # type: ignore[assignment]
            self._held[layer] = Packed(weight, _state(weight), pack(plain), gains)
        self._token = _here.set(self._held)

    def remove(self) -> None:
        """Drop the copies, also in contexts that were made within; does nothing the second time."""
        if self._held:
            _here.reset(self._token)
            self._held.clear()


def has_room(size: int) -> bool:
    """Whether so many bytes are a small part of the free memory; False where that is unknown."""
    free = _free_memory()
    if size > _SHARE * free:
        _log.info("weights of %d MB are not copied: %d MB are free", size >> 20, free >> 20)
    return size <= _SHARE * free


def _free_memory() -> int:
    """Bytes that this process may still take, on Linux; 0 elsewhere."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return min(1024 * int(line.split()[1]), *_left_in_group())
    return 0


def _left_in_group() -> Iterator[int]:
    """What the limits of this process's control groups and of those around them leave.

    A container sees its own as the root; a batch system or systemd names one below it.
    """
    yield sys.maxsize
    groups = [["", "", "/"]]
    with suppress(OSError):
        groups += [line.split(":", 2) for line in _OWN.read_text("utf-8", "replace").splitlines()]
    paths = [Path(path.lstrip("/")) for _, kinds, path in groups if "memory" in kinds or not kinds]
    for group in dict.fromkeys(place for path in paths for place in (path, *path.parents)):
        for most, used in (
            (group / "memory.max", group / "memory.current"),
            (
                "memory" / group / "memory.limit_in_bytes",
                "memory" / group / "memory.usage_in_bytes",
            ),
        ):
            with suppress(OSError, ValueError):
                yield int((_GROUP / most).read_text()) - int((_GROUP / used).read_text())
