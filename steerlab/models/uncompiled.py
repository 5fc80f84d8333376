"""Running what torch.compile has compiled as plain Python.

A compiled graph does not see hooks that were put on after it was made, and some of a model's
passes may run in such a graph while others are compiled anew. So what is steered or read by hooks
runs uncompiled.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

_lock = threading.RLock()  # reentrant: a finalizer may come in between
_open: list[Uncompiled] = []
_stance: Any = None  # torch's own; it remembers what was before


class Uncompiled:
    """Runs compiled functions uncompiled until it is removed, in the whole process.

    Make it where Ctrl-C is held off: in `with attached(Uncompiled)`.
    """

    def __init__(self) -> None:
        global _stance
        with _lock:
            if not _open:
                _stance = torch.compiler.set_stance("force_eager")
            _open.append(self)

    def remove(self) -> None:
        """Let them run compiled again, if nobody else needs them uncompiled."""
        with _lock:
            if self in _open:
                _open.remove(self)
                if not _open:
                    _stance.__exit__(None, None, None)


def compiled_parts(modules: dict[str, nn.Module]) -> list[str]:
    """The names of those modules that torch.compile has compiled."""
    return [name for name, module in modules.items() if _is_compiled(module)]


def _is_compiled(module: nn.Module) -> bool:
    call = getattr(module, "_compiled_call_impl", None)
    return call is not None or hasattr(module.forward, "_torchdynamo_orig_callable")
