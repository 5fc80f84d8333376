"""The slow way to every likelihood: float64, one sequence at a time, all logits, own hooks."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import cache

import numpy as np
import torch

from steerlab.core.setting import Setting
from tests.watching import blocks_of, shared


@cache
def _double(architecture: str) -> torch.nn.Module:
    return copy.deepcopy(shared(architecture).model).double()


def log_probs(
    architecture: str, ids, setting: Setting, start: int, positions: str = "all"
) -> np.ndarray:
    """(seq, vocab): what follows each token, all of them fed at once without a batch."""
    model = _double(architecture)
    where = {
        "all": lambda i: True,
        "prompt": lambda i: i < start,
        "generated": lambda i: i >= start - 1,
        "continuation": lambda i: i >= start,
    }[positions]

    def adding(rows):
        def hook(module, args, kwargs):
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            for i in range(hidden.shape[1]):
                if setting.vector.scope == "front":
                    row = rows[i] if i < len(rows) else None
                else:
                    row = rows[0] if where(i) else None
                if row is not None:
                    added = np.float32(row).astype(np.float64)
                    hidden[0, i] += setting.coefficient * torch.from_numpy(added)
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    with ExitStack() as stack, torch.no_grad():
        if setting.vector is not None:
            for b, rows in setting.vector.directions.items():
                block = blocks_of(model, architecture)[b]
                handle = block.register_forward_pre_hook(adding(rows), with_kwargs=True)
                stack.callback(handle.remove)
        found = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].double()
    return torch.log_softmax(found, dim=-1).numpy()


def scored(architecture: str, ids, start: int, setting: Setting, positions="all") -> np.ndarray:
    """log p of each token from `start` on."""
    table = log_probs(architecture, ids, setting, start, positions)
    return np.array([table[i - 1, ids[i]] for i in range(start, len(ids))])
