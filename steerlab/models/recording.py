"""Recording the residual stream at chosen layers, in batches that stop after the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from steerlab.core.prompts import Read, Span
from steerlab.errors import Cancelled, ModelError
from steerlab.extraction.readings import Ids, Readings
from steerlab.models.blocks import (
    attends_to_everything,
    check_shape,
    input_device,
    stream_of,
    text_config,
)
from steerlab.models.cache import cache_argument
from steerlab.models.interrupts import attached
from steerlab.models.interventions import is_steered
from steerlab.models.prefix_groups import Group, group_by_prefix
from steerlab.models.reduction import Chunk, Reduction
from steerlab.models.uncompiled import Uncompiled
from steerlab.progress import Progress, ShouldStop

_BATCH_TOKENS = {"cpu": 2048}  # real and padding together; more is no faster on a CPU
_BATCH_TOKENS_ACCELERATOR = 16384
_PASS_TOKENS = {"cpu": 64}  # what a pass costs beside its tokens
_PASS_TOKENS_ACCELERATOR = 2048


class _Stop(Exception):
    pass


_sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Model -> whether prompts may share the passes of their prefix, as tried."""

Forward = Callable[[Chunk, Mapping[str, Any]], dict[int, Tensor]]
"""Runs a chunk with further arguments of the model: layer -> (rows, seq, d_model)."""


def read(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    prompts: Sequence[Ids],
    layers: Sequence[int],
    read_at: Read | Sequence[Span] = "last",
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Readings:
    """Read one activation per prompt and layer (`last`, `mean` over positions >= 1, or an index).

    read_at: spans instead give the mean over each prompt's own.
    prompts: token ids; prefixes that prompts share are computed once. An index has to be inside
        every prompt (negative ones count from the end).
    should_stop: asked before every block; raises Cancelled once it says so.
    """
    reader = Reduction(prompts, layers, read_at)
    forward = partial(_forward, model, blocks, layers, should_stop)
    for chunk, hidden in _passes(model, blocks, prompts, forward, progress):
        for layer, activations in hidden.items():
            reader.take(layer, chunk, activations)
    return reader.readings()


def record(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    prompt: Ids,
    layers: Sequence[int],
    *,
    should_stop: ShouldStop | None = None,
) -> dict[int, Tensor]:
    """Every position of one prompt: layer -> (seq, d_model) float32 on the CPU."""
    hidden = _forward(model, blocks, layers, should_stop, _whole([prompt], [0]), {})
    return {layer: h[0].float().cpu() for layer, h in hidden.items()}


def _passes(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    prompts: Sequence[Ids],
    forward: Forward,
    progress: Progress | None,
) -> Iterator[tuple[Chunk, dict[int, Tensor]]]:
    done = 0
    groups = _plan(model, prompts)
    if any(group.prefix for group in groups) and not _can_share(model, blocks):
        groups = _apart(prompts)
    for batch in _batches(groups, prompts, input_device(model)):
        if batch[0].prefix == 0:
            chunk = _whole(prompts, [i for group in batch for i in group.members])
            yield chunk, forward(chunk, {})
        else:
            yield from _shared(model, prompts, batch, forward)
        done += sum(len(group.members) for group in batch)
        if progress is not None:
            progress(done, len(prompts))


def _plan(model: nn.Module, prompts: Sequence[Ids]) -> list[Group]:
    """Groups of prompts to compute from a shared prefix; a group of one shares nothing."""
    groups = group_by_prefix(prompts)
    total = sum(len(ids) for ids in prompts)
    saved = sum(group.prefix * (len(group.members) - 1) for group in groups)
    # a second pass and the copied cache cost about a tenth of the work
    # a prompt in two pieces would hide from steering where it ends
    together = attends_to_everything(model) and cache_argument(model) is not None
    if saved < 0.15 * total or not together or is_steered(model):
        return _apart(prompts)
    return groups


def _apart(prompts: Sequence[Ids]) -> list[Group]:
    return [Group(0, (i,)) for i in range(len(prompts))]


def _can_share(model: nn.Module, blocks: Sequence[nn.Module]) -> bool:
    """Whether prompts give on a shared prefix what they give alone; tried once for each model.

    RoBERTa's positions begin elsewhere than at 0, unless it is told its positions.
    """
    if model not in _sharing:
        _sharing[model] = _agrees_on_prefixes(model, blocks)
    return _sharing[model]


def _agrees_on_prefixes(model: nn.Module, blocks: Sequence[nn.Module]) -> bool:
    """Other positions show at the input of the second block."""
    layer = min(1, len(blocks) - 1)
    prompts = [[3, 4, 5], [3, 4, 6], [3, 7, 8, 9], [3, 7, 8, 10]]
    forward = partial(_forward, model, blocks, [layer], None)
    alone = [forward(_whole(prompts, [i]), {})[layer][0, -1] for i in range(len(prompts))]
    *_, (_, rest) = _shared(model, prompts, [Group(2, (0, 1)), Group(3, (2, 3))], forward)
    whole = torch.stack(alone).float()
    apart = (rest[layer][:, -1].float() - whole).norm(dim=-1)
    precise = rest[layer].dtype in (torch.float32, torch.float64)
    return bool((apart < (1e-3 if precise else 0.05) * whole.norm(dim=-1)).all())


def _batches(
    groups: Sequence[Group], prompts: Sequence[Ids], device: torch.device
) -> Iterator[list[Group]]:
    """Batches of groups, never with and without prefix."""
    for some in ([g for g in groups if g.prefix == 0], [g for g in groups if g.prefix > 0]):
        widths = [group.prefix or len(prompts[group.members[0]]) for group in some]
        for batch in _packed(widths, device):
            yield [some[i] for i in batch]


def _packed(widths: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    """Batches of rows (by index) of similar width.

    A batch ends where more padding would cost as much as another pass.
    """
    limit = _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_ACCELERATOR)
    most = _PASS_TOKENS.get(device.type, _PASS_TOKENS_ACCELERATOR)
    batch: list[int] = []
    padding = 0
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        widest = widths[batch[0]] if batch else widths[i]
        padding += widest - widths[i]
        if batch and (widest * (len(batch) + 1) > limit or padding > most):
            yield batch
            batch, padding = [], 0
        batch.append(i)
    if batch:
        yield batch


def _whole(prompts: Sequence[Ids], which: list[int]) -> Chunk:
    pieces = [prompts[i] for i in which]
    return Chunk(
        ids=_padded(pieces, left=False),
        owners=[[i] for i in which],
        offsets=np.zeros(len(which), dtype=np.int64),
        lengths=np.array([len(p) for p in pieces]),
    )


def _shared(
    model: nn.Module, prompts: Sequence[Ids], groups: list[Group], forward: Forward
) -> Iterator[tuple[Chunk, dict[int, Tensor]]]:
    """The prefix of each group in one pass, then the rest of each prompt on its cache."""
    from transformers import DynamicCache

    prefixes = [prompts[g.members[0]][: g.prefix] for g in groups]
    head = Chunk(
        ids=_padded(prefixes, left=True),
        owners=[list(g.members) for g in groups],
        offsets=np.zeros(len(groups), dtype=np.int64),
        lengths=np.array([g.prefix for g in groups]),
        left=True,
    )
    device = input_device(model)
    seen = head.real(device)
    cache = DynamicCache(config=model.config)
    arguments = {str(cache_argument(model)): cache, "use_cache": True}
    places = {"attention_mask": seen.long(), "position_ids": _counted(seen)}
    yield head, forward(head, {**arguments, **places})
    rest = [(i, row, g.prefix) for row, g in enumerate(groups) for i in g.members]
    for batch in _packed([len(prompts[i]) - prefix for i, _, prefix in rest], device):
        which, row_of, starts = (list(part) for part in zip(*(rest[n] for n in batch), strict=True))
        pieces = [prompts[i][start:] for i, start in zip(which, starts, strict=True)]
        tail = Chunk(
            ids=_padded(pieces, left=False),
            owners=[[i] for i in which],
            offsets=np.array(starts),
            lengths=np.array([len(p) for p in pieces]),
        )
        mask = torch.cat([seen[row_of], tail.real(device)], dim=1)
        counted = _counted(mask)[:, seen.shape[1] :]
        places = {"attention_mask": mask.long(), "position_ids": counted}
        arguments[str(cache_argument(model))] = _rows_of(cache, row_of)
        yield tail, forward(tail, {**arguments, **places})


def _rows_of(cache: Any, rows: Sequence[int]) -> Any:
    """A cache of some rows of another, which stays as it is."""
    some = copy(cache)
    some.layers = [copy(layer) for layer in cache.layers]
    some.batch_select_indices(torch.tensor(rows))
    return some


def _counted(real: Tensor) -> Tensor:
    return (real.long().cumsum(-1) - 1).clamp(min=0)


def _padded(pieces: Sequence[Ids], *, left: bool) -> Tensor:
    rows = [torch.tensor(list(piece)) for piece in pieces]
    return pad_sequence(rows, batch_first=True, padding_side="left" if left else "right")


@torch.no_grad()
def _forward(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    layers: Sequence[int],
    should_stop: ShouldStop | None,
    chunk: Chunk,
    arguments: Mapping[str, Any],
) -> dict[int, Tensor]:
    """One forward pass up to the last layer wanted: layer -> (rows, seq, d_model).

    Right-padded rows of a causal model need no mask: no token attends to later ones.
    """
    recorded: dict[int, Tensor] = {}
    last, d_model = max(layers), int(text_config(model).hidden_size)

    def hook(layer: int) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if should_stop is not None and should_stop():
                raise Cancelled("cancelled: nothing was read")
            if layer in layers:
                recorded[layer] = stream_of(args, kwargs, d_model)
            if layer == last:
                raise _Stop

        return keep

    # a pass through a large model is long: ask before every block
    hooked = set(layers) if should_stop is None else range(last + 1)

    hooks = [
        partial(blocks[layer].register_forward_pre_hook, hook(layer), with_kwargs=True)
        for layer in hooked
    ]
    ids = chunk.ids.to(input_device(model))
    with attached(Uncompiled, *hooks), suppress(_Stop):
        model(input_ids=ids, **{"use_cache": False, **arguments})
    if missing := set(layers) - recorded.keys():
        raise ModelError(
            f"a pass did not come through block {min(missing)}: it can't be read; leave out layers "
            "that the model skips when it reads a text"
        )
    for hidden in recorded.values():
        check_shape(hidden, *chunk.ids.shape)
    return recorded
