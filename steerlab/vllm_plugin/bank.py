"""Bank: the rows that a model adds, and which token gets which."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steerlab.vllm_plugin.steering import Steering, span


class Scheduled(NamedTuple):
    """The part of a request that the next pass reads.

    message: of its `Steering`; None if it is unsteered. first: the absolute position of its first
    token in the pass. tokens: how many of them. prompt_length: in tokens.
    """

    message: Mapping[str, Any] | None
    first: int
    tokens: int
    prompt_length: int


class Bank:
    """Persistent buffers, whose addresses a captured CUDA graph may keep.

    A slot holds the rows of one `Steering` at all layers; slot 0 is zero, for what is not steered.
    There is one for each request that may run, so that none has to wait for another; a slot that
    no running request uses is taken by the next new one, the longest unused first.

    requests: that may run at once. tokens: of the largest pass. layers: that this process runs.
    """

    def __init__(
        self,
        layers: Sequence[int],
        d_model: int,
        *,
        requests: int,
        tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (requests + 1, d_model)
        self.rows = {b: torch.zeros(shape, dtype=dtype, device=device) for b in layers}
        self.slots = torch.zeros(tokens, dtype=torch.long, device=device)
        self.active: frozenset[int] = frozenset()
        self._always = self.slots.is_cuda  # CUDA graphs repeat a pass
        self._spans: list[tuple[int, int, str]] = []  # first token, stop, fingerprint: of `slots`
        self._layers: dict[int, frozenset[int]] = {}  # slot -> layers where it is not zero
        self._known: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free = list(range(requests, 0, -1))

    def acts_at(self, layer: int) -> bool:
        """Whether the pass may differ at a layer; always true where CUDA graphs repeat a pass."""
        return self._always or layer in self.active

    def add_to(self, hidden: Tensor, layer: int) -> Tensor:
        """hidden: (tokens, d_model), of the pass that was prepared; steered, out of place."""
        return hidden + self.rows[layer][self.slots[: hidden.shape[0]]]

    def prepare(self, requests: Sequence[Scheduled]) -> None:
        """Point each token of the next pass at its slot; requests: in the order of its rows.

        Most passes read one token of the same requests as the one before: nothing is copied then.
        """
        used = self._slots_of(requests)
        spans, start = [], 0
        for request in requests:
            begin, end = steered(request)
            if request.message is not None and begin < end:
                spans.append((start + begin, start + end, request.message["fingerprint"]))
            start += request.tokens
        if spans == self._spans:
            return
        slots = torch.zeros(len(self.slots), dtype=torch.long)
        for first, stop, fingerprint in spans:
            slots[first:stop] = used[fingerprint]
        self.slots.copy_(slots)
        self._spans = spans
        self.active = frozenset().union(*(self._layers[used[f]] for _, _, f in spans))

    def _slots_of(self, requests: Sequence[Scheduled]) -> dict[str, int]:
        """Fingerprint -> slot of all that the pass needs; loads those that are new."""
        messages = {r.message["fingerprint"]: r.message for r in requests if r.message is not None}
        for fingerprint in messages:
            if fingerprint in self._known:
                self._known.move_to_end(fingerprint)
        for fingerprint, message in messages.items():
            if fingerprint not in self._known:
                slot = self._free.pop() if self._free else self._known.popitem(last=False)[1]
                self._load(slot, Steering.from_message(message))
                self._known[fingerprint] = slot
        return {fingerprint: self._known[fingerprint] for fingerprint in messages}

    def _load(self, slot: int, steering: Steering) -> None:
        held = self._layers.get(slot, frozenset()) - steering.rows.keys()
        for layer in held:
            self.rows[layer][slot] = 0
        here = self.rows.keys() & steering.rows.keys()  # others run in other pipeline stages
        for layer in here:
            row = torch.from_numpy(steering.rows[layer].copy())
            self.rows[layer][slot] = row.to(self.rows[layer])
        self._layers[slot] = frozenset(here)


def steered(request: Scheduled) -> tuple[int, int]:
    """Which tokens of the pass are steered, counted from the request's first one in it."""
    if request.message is None:
        return 0, 0
    first, stop = span(request.message["positions"], request.prompt_length)
    begin = min(max(first - request.first, 0), request.tokens)
    return begin, max(min(stop - request.first, request.tokens), begin)
