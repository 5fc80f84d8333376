"""From the hidden states of a pass to one activation for each prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steerlab.core.prompts import Read, Span
from steerlab.extraction.readings import Ids, Readings


@dataclass(frozen=True)
class Chunk:
    """Tokens of several prompts as one batch: row i is a piece of the prompts in owners[i].

    offsets: absolute position of each row's first real token.
    lengths: real tokens in each row; padding is on their left if `left`, else on their right.
    """

    ids: Tensor  # (rows, seq)
    owners: list[list[int]]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    left: bool = False

    def real(self, device: torch.device) -> Tensor:
        """A mask of the real tokens: (rows, seq) bool."""
        columns = torch.arange(self.ids.shape[1], device=device).unsqueeze(0)
        start = torch.as_tensor(self.first_columns(), device=device).unsqueeze(1)
        return (columns >= start) & (columns < start + self._lengths_on(device))

    def first_columns(self) -> NDArray[np.int64]:
        """The column of each row's first real token."""
        width = self.ids.shape[1]
        return width - self.lengths if self.left else np.zeros_like(self.lengths)

    def _lengths_on(self, device: torch.device) -> Tensor:
        return torch.as_tensor(self.lengths, device=device).unsqueeze(1)


class Reduction:
    """Reduces the chunks of all prompts to one activation for each prompt."""

    def __init__(
        self, prompts: Sequence[Ids], layers: Sequence[int], read_at: Read | Sequence[Span]
    ) -> None:
        self.spans = _spans([len(p) for p in prompts], read_at)
        self._last: tuple[Chunk | None, list[tuple[int, int, int, int]]] = (None, [])
        self.values: dict[int, NDArray[np.float64]] = {}
        self.norms: dict[int, list[NDArray[np.float64]]] = {b: [] for b in layers}

    def take(self, layer: int, chunk: Chunk, hidden: Tensor) -> None:
        """Read the wanted positions in this chunk; hidden: (rows, seq, d_model)."""
        if layer not in self.values:
            self.values[layer] = np.zeros((len(self.spans), hidden.shape[-1]))
        later = chunk.real(hidden.device)
        starts = torch.as_tensor(chunk.first_columns(), device=hidden.device)
        begins = torch.as_tensor(chunk.offsets == 0, device=hidden.device)
        later[begins, starts[begins]] = False  # position 0 is an attention sink
        self._take_norms(layer, chunk, hidden, later)
        self._take_tokens(layer, chunk, hidden)
        self._take_sums(layer, chunk, hidden)

    def readings(self) -> Readings:
        """All that was read; sums become means only now, when every chunk is in."""
        counts = np.array([max(stop - start, 1) for start, stop in self.spans])[:, None]
        self.values = {b: sums / counts for b, sums in self.values.items()}
        sizes = {b: np.concatenate(parts) for b, parts in self.norms.items() if parts}
        found = {b: float(np.median(n)) for b, n in sizes.items() if n.size}
        return Readings(self.values, found, sizes)

    def _take_norms(self, layer: int, chunk: Chunk, hidden: Tensor, later: Tensor) -> None:
        sizes = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)  # (rows, seq)
        times = torch.tensor([len(owners) for owners in chunk.owners], device=hidden.device)
        repeats = times.unsqueeze(1).expand_as(later)[later]
        self.norms[layer].append(
            torch.repeat_interleave(sizes[later], repeats).double().cpu().numpy()
        )

    def _take_tokens(self, layer: int, chunk: Chunk, hidden: Tensor) -> None:
        """The prompts of which one token is read, and it is in this chunk."""
        wanted = [
            (row, owner, start)
            for row, owner, start, stop in self._here(chunk)
            if stop - start == 1 and self._is_single(owner)
        ]
        if not wanted:
            return
        rows, owners, columns = (list(part) for part in zip(*wanted, strict=True))
        places = np.array(columns) + chunk.first_columns()[rows]
        picked = hidden[rows, torch.as_tensor(places, device=hidden.device)]
        self.values[layer][owners] = picked.float().double().cpu().numpy()

    def _take_sums(self, layer: int, chunk: Chunk, hidden: Tensor) -> None:
        """Add what the mean of several tokens has in this chunk; owners that read alike share."""
        sharing: dict[Span, dict[int, list[int]]] = {}
        for row, owner, start, stop in self._here(chunk):
            if not self._is_single(owner):
                sharing.setdefault((row, start), {}).setdefault(stop, []).append(owner)
        wanted = [
            (row, start, stop, owners)
            for (row, start), ends in sharing.items()
            for stop, owners in ends.items()
        ]
        if not wanted:
            return
        rows, starts, stops, owners_ = (list(part) for part in zip(*wanted, strict=True))
        firsts = chunk.first_columns()[rows]
        columns = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        low, high = (
            torch.as_tensor(np.array(ends) + firsts, device=hidden.device).unsqueeze(1)
            for ends in (starts, stops)
        )
        read = (columns >= low) & (columns < high)
        taken = hidden if rows == list(range(len(hidden))) else hidden[rows]
        sums = (taken.float() * read.unsqueeze(-1)).sum(dim=1).double().cpu().numpy()
        for total, owners in zip(sums, owners_, strict=True):
            self.values[layer][owners] += total

    def _is_single(self, owner: int) -> bool:
        start, stop = self.spans[owner]
        return stop - start == 1

    def _here(self, chunk: Chunk) -> list[tuple[int, int, int, int]]:
        """What of the prompts is read in this chunk; the same at every layer."""
        if self._last[0] is not chunk:
            self._last = (chunk, list(self._places(chunk)))
        return self._last[1]

    def _places(self, chunk: Chunk) -> Iterator[tuple[int, int, int, int]]:
        """(row, prompt, start, stop) of what is read here, counted from the first real token."""
        for row, owners in enumerate(chunk.owners):
            offset, length = int(chunk.offsets[row]), int(chunk.lengths[row])
            for owner in owners:
                start, stop = (end - offset for end in self.spans[owner])
                if start < length and stop > 0:
                    yield row, owner, max(start, 0), min(stop, length)


def _spans(lengths: Sequence[int], read_at: Read | Sequence[Span]) -> list[Span]:
    """The tokens read of each prompt: from the first to before the second."""
    if not isinstance(read_at, str | int):
        return list(read_at)
    if read_at == "mean":
        return [(1, n) for n in lengths]
    index = -1 if read_at == "last" else int(read_at)
    starts = [n + index if index < 0 else index for n in lengths]
    return [(start, start + 1) for start in starts]
