"""Recording the residual stream at chosen layers, in batches that stop after the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steerlab.core.prompts import Read, Span
from steerlab.errors import Cancelled, ModelError
from steerlab.extraction.readings import Ids, Readings
from steerlab.models.blocks import (
    attends_by_column,
    attends_to_everything,
    check_shape,
    input_device,
    stream_of,
    takes_any_mask,
    text_config,
)
from steerlab.models.cache import cache_argument
from steerlab.models.identity import is_quantized
from steerlab.models.interrupts import attached
from steerlab.models.interventions import is_steered
from steerlab.models.prefix_groups import Group, group_by_prefix
from steerlab.models.prefix_trees import Row, laid_out, prefix_of, rows_of_trees, single_rows
from steerlab.models.reduction import Chunk, Reduction
from steerlab.models.uncompiled import Uncompiled
from steerlab.progress import Progress, ShouldStop

_BATCH_TOKENS = {"cpu": 2048}  # real and padding together; more is no faster on a CPU
_BATCH_TOKENS_ACCELERATOR = 16384
_PASS_TOKENS = {"cpu": 64}  # what a pass costs beside its tokens
_PASS_TOKENS_ACCELERATOR = 2048
_ROW_TOKENS = {"cpu": 128}  # of prompts side by side; attention costs their square
_ROW_TOKENS_ACCELERATOR = 512
_WORTH_A_MASK = 0.9  # of all tokens: if more remain to be computed, prompts stay rows of their own


class _Stop(Exception):
    pass


_sharing: WeakKeyDictionary[nn.Module, dict[tuple[int, bool], bool]] = WeakKeyDictionary()
"""Model -> (layer, as trees) -> whether prompts may share their prefix, as tried."""

Plan = tuple[list[Row], list[Group]]

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
    can_share = partial(_can_share, model, blocks, max(layers))
    for chunk, hidden in _passes(model, prompts, forward, can_share, progress):
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
    hidden = _forward(
        model, blocks, layers, should_stop, _whole([prompt], single_rows([prompt])), {}
    )
    return {layer: h[0].float().cpu() for layer, h in hidden.items()}


def is_causal(model: nn.Module, blocks: Sequence[nn.Module]) -> bool:
    """Whether a token leaves the activations before it as they are."""
    layer = min(1, len(blocks) - 1)
    first, second = (record(model, blocks, ids, [layer])[layer][0] for ids in ([1, 2], [1, 3]))
    # int8 kernels round a row by its neighbours
    rtol = 0.05 * float(first.norm()) if is_quantized(blocks) else 0.0
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 + rtol, equal_nan=True)


def _passes(
    model: nn.Module,
    prompts: Sequence[Ids],
    forward: Forward,
    can_share: Callable[[bool], bool],
    progress: Progress | None,
) -> Iterator[tuple[Chunk, dict[int, Tensor]]]:
    done = 0
    kind = input_device(model).type
    for width in (_ROW_TOKENS.get(kind, _ROW_TOKENS_ACCELERATOR), 0):
        rows, groups = _plan(model, prompts, width)
        shares = len(rows) < len(prompts) or any(group.prefix for group in groups)
        if not shares or can_share(width > 0):
            break
    else:
        rows, groups = _apart(single_rows(prompts))
    for batch in _batches(rows, groups, input_device(model)):
        which = [rows[n] for group in batch for n in group.members]
        if batch[0].prefix == 0:
            yield _run(model, _whole(prompts, which), forward)
        else:
            yield from _shared(model, prompts, rows, batch, forward)
        done += sum(len(row.members) for row in which)
        if progress is not None:
            progress(done, len(prompts))


def _plan(model: nn.Module, prompts: Sequence[Ids], width: int) -> Plan:
    """Rows of prompts (see `rows_of_trees`), and groups of rows to compute from a shared prefix."""
    # a prompt in two pieces would hide from steering where it ends
    together = attends_to_everything(model) and cache_argument(model) is not None
    if not together or is_steered(model):
        return _apart(single_rows(prompts))
    rows = rows_of_trees(prompts, width)
    groups = group_by_prefix([prompts[row.members[0]][: row.shared + 1] for row in rows])
    needed = sum(row.tokens for row in rows)
    saved = sum(group.prefix * (len(group.members) - 1) for group in groups)
    # a second pass and the copied cache cost about a tenth of the work
    if saved < 0.15 * needed:
        (rows, groups), saved = _apart(rows), 0
    worth = needed - saved < _WORTH_A_MASK * sum(map(len, prompts))
    return (rows, groups) if worth else _apart(single_rows(prompts))


def _apart(rows: list[Row]) -> Plan:
    """Rows without a prefix that is computed before them."""
    return rows, [Group(0, (n,)) for n in range(len(rows))]


def _can_share(model: nn.Module, blocks: Sequence[nn.Module], layer: int, as_trees: bool) -> bool:
    """Whether prompts give on a shared prefix what they give alone; tried once for each layer.

    as_trees: also side by side in a row, which Bloom's attention does not know. RoBERTa's
    positions begin elsewhere than at 0, unless it is told its positions.
    """
    if as_trees and (attends_by_column(model) or not takes_any_mask(model)):
        return False
    tried = _sharing.setdefault(model, {})
    if (layer, as_trees) not in tried:
        tried[layer, as_trees] = _agrees(model, blocks, layer, as_trees)
    return tried[layer, as_trees]


def _agrees(model: nn.Module, blocks: Sequence[nn.Module], layer: int, as_trees: bool) -> bool:
    """Other positions, and tokens of other prompts, show in what is read behind attention."""
    prompts = [[3, 4, 5], [3, 4, 6], [3, 7, 8, 9], [3, 7, 8, 10], [3, 7, 11]]
    rows, groups = single_rows(prompts), [Group(2, (0, 1)), Group(3, (2, 3)), Group(2, (4,))]
    if as_trees:
        rows, groups = [Row((0, 1), 2, 4), Row((2, 3, 4), 2, 6)], [Group(1, (0,)), Group(2, (1,))]
    forward = partial(_forward, model, blocks, [layer], None)

    def ends(passes: Iterable[tuple[Chunk, dict[int, Tensor]]]) -> Tensor:
        """The last token of each prompt; passes of prefixes come first."""
        found: dict[int, Tensor] = {}
        for chunk, hidden in passes:
            for row, values in zip(chunk.rows, hidden[layer].float(), strict=True):
                found |= {i: values[columns[-1]] for i, columns in row.columns.items()}
        return torch.stack([found[i] for i in range(len(prompts))])

    whole = ends([_run(model, _whole(prompts, single_rows(prompts)), forward)])
    precise = model.dtype in (torch.float32, torch.float64)
    try:
        together = ends([_run(model, _whole(prompts, rows), forward)])
        if as_trees and not precise:  # a few wrong positions are less than what rounding explains
            wrong = ends([_run(model, _whole(prompts, rows), partial(_by_column, forward))])
            if torch.equal(wrong, together):
                return False
        shared = ends(_shared(model, prompts, rows, groups, forward))
    except Exception:  # it takes no such mask, and says so as it likes
        return False
    limit = 1e-3 if precise else 0.05
    apart = torch.stack([together - whole, shared - whole]).norm(dim=-1)  # (2, prompts)
    return bool((apart < limit * whole.norm(dim=-1)).all())


def _by_column(forward: Forward, chunk: Chunk, arguments: Mapping[str, Any]) -> dict[int, Tensor]:
    """A pass in which each token's position is its column; as any, where that is all it counts."""
    positions = arguments["position_ids"]
    columns = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
    return forward(chunk, {**arguments, "position_ids": columns})


def _batches(
    rows: Sequence[Row], groups: Sequence[Group], device: torch.device
) -> Iterator[list[Group]]:
    """Batches of groups, never with and without prefix."""
    for some in ([g for g in groups if g.prefix == 0], [g for g in groups if g.prefix > 0]):
        widths = [group.prefix or rows[group.members[0]].tokens for group in some]
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


def _whole(prompts: Sequence[Ids], rows: Sequence[Row]) -> Chunk:
    return Chunk([laid_out(prompts, row) for row in rows])


def _run(model: nn.Module, chunk: Chunk, forward: Forward) -> tuple[Chunk, dict[int, Tensor]]:
    """Right-padded rows without trees need no mask: no token attends to later ones."""
    return chunk, forward(chunk, _places(model, chunk) if chunk.has_trees else {})


def _places(model: nn.Module, chunk: Chunk, before: Tensor | None = None) -> dict[str, Tensor]:
    """What each token attends to, and its position. before: (rows, prefix), what is real there."""
    device, dtype = input_device(model), cast(torch.dtype, model.dtype)
    before = torch.ones(len(chunk.rows), 0, dtype=torch.bool) if before is None else before
    positions = chunk.positions.to(device)
    if not chunk.has_trees:
        real = torch.cat([before, chunk.real], dim=1).long()
        return {"attention_mask": real.to(device), "position_ids": positions}
    visible = chunk.visible  # (rows, seq, seq)
    prefix = before.unsqueeze(1).expand(-1, visible.shape[1], -1)
    hidden = ~torch.cat([prefix, visible], dim=2).unsqueeze(1).to(device)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
    mask.masked_fill_(hidden, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": positions}


def _shared(
    model: nn.Module,
    prompts: Sequence[Ids],
    rows: Sequence[Row],
    groups: list[Group],
    forward: Forward,
) -> Iterator[tuple[Chunk, dict[int, Tensor]]]:
    """The prefix of each group in one pass, then the rest of its rows on its cache."""
    from transformers import DynamicCache

    members = [[i for n in g.members for i in rows[n].members] for g in groups]
    starts = [prompts[of[0]][: g.prefix] for g, of in zip(groups, members, strict=True)]
    width = max(map(len, starts))
    head = Chunk([prefix_of(ids, of, width) for ids, of in zip(starts, members, strict=True)])
    cache, name = DynamicCache(config=model.config), str(cache_argument(model))
    yield head, forward(head, {name: cache, "use_cache": True, **_places(model, head)})
    real = head.real
    rest = [(rows[n], row, g.prefix) for row, g in enumerate(groups) for n in g.members]
    for batch in _packed([row.tokens - start for row, _, start in rest], input_device(model)):
        tail = Chunk([laid_out(prompts, rest[n][0], rest[n][2]) for n in batch])
        row_of = [rest[n][1] for n in batch]
        places = _places(model, tail, real[row_of])
        yield tail, forward(tail, {name: _rows_of(cache, row_of), "use_cache": True, **places})


def _rows_of(cache: Any, rows: Sequence[int]) -> Any:
    """A cache of some rows of another, which stays as it is."""
    some = copy(cache)
    some.layers = [copy(layer) for layer in cache.layers]
    some.batch_select_indices(torch.tensor(rows))
    return some


@torch.no_grad()
def _forward(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    layers: Sequence[int],
    should_stop: ShouldStop | None,
    chunk: Chunk,
    arguments: Mapping[str, Any],
) -> dict[int, Tensor]:
    """One forward pass up to the last layer wanted: layer -> (rows, seq, d_model)."""
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
        check_shape(hidden, *ids.shape)
    return recorded
