"""Models under torch.compile.

A compiled graph does not see hooks that were put on after it was made, and some of a model's
passes may run in such a graph while others are compiled anew. So what is steered by hooks runs
uncompiled.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from steerlab.errors import SteeringError

_lock = threading.RLock()  # a finalizer may come in between
_stances: list[Any] = []  # torch's own; the first one that is open remembers what was before
_open = 0


def run_uncompiled() -> None:
    """Run what torch.compile has compiled as plain Python, until `run_compiled` is called.

    It holds for the process, as torch offers no less; calls nest.
    Raises SteeringError inside of a compiled function.
    """
    global _open
    with _lock:
        if _open == 0:
            try:
                _stances.append(torch.compiler.set_stance("force_eager"))
            except RuntimeError as e:
                raise SteeringError(
                    "steering(...) can't be entered inside of a function that torch.compile runs: "
                    "enter it around the call"
                ) from e
        _open += 1


def run_compiled() -> None:
    """Undo one `run_uncompiled`."""
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            _stances.pop().__exit__(None, None, None)


def compiled_parts(modules: dict[str, nn.Module]) -> list[str]:
    """The names of those modules that torch.compile has compiled."""
    return [name for name, module in modules.items() if _is_compiled(module)]


def _is_compiled(module: nn.Module) -> bool:
    call = getattr(module, "_compiled_call_impl", None)
    return call is not None or hasattr(module.forward, "_torchdynamo_orig_callable")
