"""The absolute positions of the tokens in a forward pass, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from steerlab.errors import SteeringError
from steerlab.models.cache import Past


@dataclass(frozen=True)
class Layout:
    """Positions count real tokens: the first one is at 0, padding has -1.

    positions: (batch or 1, seq). packed: whether rows hold several requests, each from 0 on.
    problem: why the positions can't be trusted; "" if they can.
    """

    positions: Tensor
    packed: bool = False
    problem: str = ""

    def ends(self) -> Tensor:
        """Real tokens of each row up to the end of the pass: (batch or 1, 1)."""
        return self.positions.max(dim=-1, keepdim=True).values + 1

    def request_lengths(self) -> Tensor:
        """For each token, how many tokens its request has in this pass: (batch, seq)."""
        requests = self.requests()
        counts = torch.zeros_like(requests).scatter_add(1, requests, torch.ones_like(requests))
        return counts.gather(1, requests)

    def requests(self) -> Tensor:
        """For each token, the number of its request in the row: (batch, seq)."""
        return (self.positions == 0).long().cumsum(-1) - 1


def lay_out(
    given: Mapping[str, Any],
    past: Past,
    shape: tuple[int, int],
    device: torch.device,
    padding: Tensor | None,
) -> Layout:
    """Positions from the cache's length and the mask or, without a mask, the position ids.

    given: the arguments of the pass. shape: its rows and tokens. padding: columns without a token
    in each row, as far as earlier passes told: (batch or 1, 1).
    """
    if mismatch := _rows_problem(given, shape[0]):
        raise SteeringError(mismatch)
    layout = _read(given, past, shape[1], device, padding)
    apart = not layout.problem and (
        _is_cut(given, past, layout.positions) or _is_bounded(given, layout.positions, shape)
    )
    return replace(layout, problem=_APART) if apart else layout


def _read(
    given: Mapping[str, Any], past: Past, seq: int, device: torch.device, padding: Tensor | None
) -> Layout:
    columns = torch.arange(past.length, past.length + seq, device=device).unsqueeze(0)
    places = _position_ids(given, seq, device)
    if problem := _unseen(given, past, seq, places):
        return Layout(columns, problem=problem)
    mask = flat_mask(given)
    if mask is None:
        if places is not None:
            return _by_places(places, columns, padding)
        return Layout(columns if padding is None else (columns - padding).clamp(min=-1))
    if mask.shape[1] < past.length + seq:
        covered = f"the attention_mask covers {mask.shape[1]} of {past.length + seq} tokens"
        return Layout(columns, problem=covered)
    counted = _counted(mask.to(device), past.length + seq, seq)
    return Layout(counted) if places is None else _agreed(counted, places, past.length)


def flat_mask(given: Mapping[str, Any]) -> Tensor | None:
    """The mask with one entry a token: (batch, columns); None if there is none of this kind."""
    mask = given.get("attention_mask")
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _position_ids(given: Mapping[str, Any], seq: int, device: torch.device) -> Tensor | None:
    places = given.get("position_ids")
    if isinstance(places, Tensor) and places.ndim == 2 and places.shape[-1] == seq:
        return places.to(device)
    return None


def _counted(mask: Tensor, end: int, seq: int) -> Tensor:
    real = mask.to(torch.long)
    counted = (real.cumsum(-1) - 1).masked_fill(real == 0, -1)
    return counted[:, :end][:, -seq:]  # a static cache's mask reaches further


def _agreed(counted: Tensor, places: Tensor, cached: int) -> Layout:
    """Positions that the mask and the position ids agree on."""
    if not bool(((counted != places) & (counted >= 0)).any()):
        return Layout(counted)
    packed = None if bool((counted < 0).any()) else _packed(places, cached)
    return packed or Layout(counted, problem=_CONTRADICTION)


def _by_places(places: Tensor, columns: Tensor, padding: Tensor | None) -> Layout:
    """Positions from position ids alone: a mask already expanded hides the padding."""
    shift = columns[:, -1:] - places[:, -1:]  # the last column's position shows it
    positions = (columns - shift).clamp(min=-1)
    real = positions >= 0
    filled = ~real & (places != places[:, :1])  # padding has one number all along
    wrong = (real & (positions != places)) | filled | (shift < 0)
    if bool(wrong.any()):
        packed = _packed(places, int(columns[0, 0]))
        return packed or Layout(positions, problem=_CONTRADICTION)
    if len(places) == 1 and not bool(real.all()):
        return Layout(positions, problem=_PADDING_OR_PACKED)
    if padding is not None and bool((shift != padding.to(shift.device)).any()):
        return Layout(positions, problem=_CONTRADICTION)
    return Layout(positions)


def _packed(places: Tensor, cached: int) -> Layout | None:
    """Rows of several requests whose position ids all begin at 0; None if they are none."""
    restarts = places == 0
    goes_on = places[:, 1:] == places[:, :-1] + 1
    whole = bool(restarts[:, 0].all()) and bool((goes_on | restarts[:, 1:]).all())
    several = bool(restarts[:, 1:].any())
    return Layout(places, packed=True) if whole and several and cached == 0 else None


def _rows_problem(given: Mapping[str, Any], batch: int) -> str:
    """What is wrong with the rows of the mask; "" if nothing is."""
    mask = flat_mask(given)
    if mask is None or len(mask) == batch or (len(mask) == 1 and bool(mask.all())):
        return ""
    return (
        f"the batch has {batch} rows and the attention_mask {len(mask)}: give it one row for each"
    )


def _is_cut(given: Mapping[str, Any], past: Past, positions: Tensor) -> bool:
    """Whether a mask of (batch, heads, seq, columns) does not show each token the one before it,
    but for the first ones, which have none. Where there are position ids, the mask of a single
    token is not read, nor one of a window that slides, whose columns are not those of the text.
    """
    mask = given.get("attention_mask")
    if isinstance(mask, Mapping):  # by kind of layer
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None or flat_mask(given) is not None:
        return False
    seq = positions.shape[1]
    told = _position_ids(given, seq, positions.device) is not None
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[3] < past.length + seq:
        return not told
    if told and seq == 1:
        return False
    shown = mask > torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else mask.bool()
    linked = shown[:, 0].diagonal(past.length - 1, -2, -1)[:, :seq]  # (batch, seq or seq - 1)
    own = positions[:, positions.shape[1] - linked.shape[1] :]
    return bool(((own >= 0) & (linked.to(own.device) != (own > 0))).any())


def _is_bounded(given: Mapping[str, Any], positions: Tensor, shape: tuple[int, int]) -> bool:
    """Whether requests begin elsewhere than at the positions 0, by the bounds of flash attention
    or of recurrent layers.
    """
    bounds, numbers = given.get("cu_seq_lens_q"), given.get("seq_idx")
    if bounds is None and numbers is None:
        return False
    starts = (positions == 0).expand(shape).clone()
    starts[:, 0] = True
    if isinstance(bounds, Tensor):
        found = starts.flatten().nonzero().flatten()
        return not torch.equal(found, bounds[:-1].to(found))
    if isinstance(numbers, Tensor) and numbers.shape == shape:
        return not torch.equal(starts[:, 1:], (numbers.diff(dim=-1) != 0).to(starts.device))
    return False


_APART = (
    "the attention_mask, or the bounds of requests, do not fit the positions of the tokens "
    "(position_ids would tell of padding, and of several requests in a row)"
)
_CONTRADICTION = "the position_ids contradict the positions that cache and attention_mask show"
_PADDING_OR_PACKED = (
    "the position_ids begin with several equal numbers, for padding or for requests of one "
    "token: the attention_mask would tell"
)


def _unseen(given: Mapping[str, Any], past: Past, seq: int, places: Tensor | None) -> str:
    """Why the tokens before this pass are unknown; "" if they are known."""
    if past.unknown:
        return (
            f"this model keeps its state in {past.unknown}, which does not tell how far it has come"
        )
    if past.length == 0:
        mask = flat_mask(given)
        # a static cache, still empty, has a mask as wide as it will become
        wider = mask is not None and mask.shape[1] > seq and not past.cached
        if wider or (places is not None and bool((places[:, -1] >= seq).any())):
            return "the model was given no cache that steerlab knows, but has read tokens before"
    return ""
