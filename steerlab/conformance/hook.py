"""A hook of ten lines on a transformers model, written without steerlab's own hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from steerlab.conformance.conform import Case, Session
from steerlab.conformance.plain import PlainSession, load


@contextmanager
def session(case: Case, steered: bool) -> Iterator[Session]:
    """The model, with the vector added to what each block returns."""
    model = load(case)
    n = case.vector.model.n_layers
    blocks = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)
    for b, row in case.vector.float32().items() if steered else ():
        direction = torch.tensor(row[0])
        if b == 0:
            blocks[0].register_forward_pre_hook(_before(direction), with_kwargs=True)
        else:
            blocks[b - 1].register_forward_hook(_after(direction))
    yield PlainSession(model, case.ends)


def _after(direction: torch.Tensor) -> Any:
    def add(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + direction, *output[1:])
        return output + direction

    return add


def _before(direction: torch.Tensor) -> Any:
    def add(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0] + direction, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + direction}

    return add
