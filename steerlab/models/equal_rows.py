"""Equal rows of a batch, computed once up to the layer at which they are steered apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steerlab.models.blocks import attends_to_everything, input_device, stream_of, text_config
from steerlab.models.inference import eval_mode
from steerlab.models.interrupts import Removable, attached
from steerlab.models.uncompiled import Uncompiled

_WORTH = 0.75  # of the rows: with more different ones, gathering them saves nothing
_TRIED = [[3, 4, 5, 6], [3, 7, 8, 9], [3, 4, 5, 6], [3, 4, 5, 6]]

_sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Model -> whether its lower blocks may run on fewer rows, as tried."""

Hooks = list[Callable[[], Removable]]


def shared_below(model: nn.Module, blocks: Sequence[nn.Module], ids: Tensor, layer: int) -> Hooks:
    """What to attach to a model so that a pass runs equal rows once in the blocks below a layer.

    ids: (rows, seq), padded on the right and given without mask and cache. Whatever is steered
    at `layer` or later finds all rows. Empty where that saves nothing, and for models whose blocks
    need more of a row than its stream.
    """
    if layer == 0 or len(ids) < 2:
        return []
    places: dict[tuple[int, ...], int] = {}
    place_of = [places.setdefault(tuple(row), len(places)) for row in ids.tolist()]
    if len(places) > _WORTH * len(ids) or not _can_share(model, blocks, layer):
        return []
    firsts = [place_of.index(place) for place in range(len(places))]
    return _hooks(model, blocks, layer, firsts, place_of)


def _hooks(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    layer: int,
    firsts: Sequence[int],
    place_of: Sequence[int],
) -> Hooks:
    """Keep the first of equal rows at block 0; give each row its stream back at `layer`."""
    d_model = int(text_config(model).hidden_size)

    def take(rows: Sequence[int]) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = stream_of(args, kwargs, d_model)
            taken = hidden[torch.tensor(rows, device=hidden.device)]  # (len(rows), seq, d_model)
            return (
                ((taken, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": taken})
            )

        return hook

    return [
        partial(blocks[b].register_forward_pre_hook, take(rows), with_kwargs=True, prepend=True)
        for b, rows in ((0, firsts), (layer, place_of))
    ]


def _can_share(model: nn.Module, blocks: Sequence[nn.Module], layer: int) -> bool:
    """Tried once for each model, unsteered; hooks of others may want all rows."""
    parts = (part for block in blocks[:layer] for part in block.modules())
    if any(part._forward_pre_hooks or part._forward_hooks for part in parts):
        return False
    if model not in _sharing:
        _sharing[model] = Context().run(_gives_the_same, model, blocks)
    return _sharing[model]


@torch.no_grad()
def _gives_the_same(model: nn.Module, blocks: Sequence[nn.Module]) -> bool:
    if len(blocks) < 2 or not attends_to_everything(model):
        return False
    ids = torch.tensor(_TRIED, device=input_device(model))
    hooks = _hooks(model, blocks, len(blocks) - 1, [0, 1], [0, 1, 0, 0])
    with eval_mode(model):
        whole = model(input_ids=ids, use_cache=False).logits
        try:
            with attached(Uncompiled, *hooks):
                shared = model(input_ids=ids, use_cache=False).logits
        except Exception:  # its blocks want all rows, and say so as they like
            return False
    precise = whole.dtype in (torch.float32, torch.float64)
    apart = (shared.float() - whole.float()).norm(dim=-1)
    return bool((apart < (1e-4 if precise else 0.02) * whole.float().norm(dim=-1)).all())
