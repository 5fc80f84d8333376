"""From the hidden states of a pass to one activation for each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steerlab.core.prompts import Read, Span
from steerlab.extraction.readings import Ids, Readings
from steerlab.models.prefix_trees import Layout


@dataclass(frozen=True)
class Chunk:
    """Rows of tokens as one batch, padded to one width; a token may belong to several prompts."""

    rows: list[Layout]

    @property
    def ids(self) -> Tensor:
        """Token ids: (rows, seq)."""
        return _padded([row.ids for row in self.rows])

    @property
    def positions(self) -> Tensor:
        """Each token's position in its prompts: (rows, seq)."""
        return _padded([row.positions for row in self.rows])

    @property
    def real(self) -> Tensor:
        """What is no padding: (rows, seq) bool."""
        return _padded([[c >= row.padding for c in range(len(row.ids))] for row in self.rows])

    @property
    def has_trees(self) -> bool:
        """Whether some tokens of a row attend to only some of those before them."""
        return any(row.is_tree for row in self.rows)

    @property
    def visible(self) -> Tensor:
        """Which token of a row attends to which: (rows, seq, seq) bool."""
        width = max(len(row.ids) for row in self.rows)
        return torch.from_numpy(np.stack([row.visible(width) for row in self.rows]))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@dataclass(frozen=True)
class _Places:
    """What of a chunk is read, by indices into all tokens of its rows, the same at every layer.

    later: tokens at positions >= 1, once for each prompt. tokens, owners: those that are read
    alone, and of which prompts. sums: those that are read together, with their prompts.
    """

    later: Tensor
    tokens: Tensor
    owners: list[int]
    sums: list[tuple[Tensor, list[int]]]


class Reduction:
    """Reduces the chunks of all prompts to one activation for each prompt."""

    def __init__(
        self, prompts: Sequence[Ids], layers: Sequence[int], read_at: Read | Sequence[Span]
    ) -> None:
        self.spans = _spans([len(p) for p in prompts], read_at)
        self._last: tuple[Chunk, _Places] | None = None
        self.values: dict[int, NDArray[np.float64]] = {}
        self.norms: dict[int, list[NDArray[np.float64]]] = {b: [] for b in layers}

    def take(self, layer: int, chunk: Chunk, hidden: Tensor) -> None:
        """Read the wanted positions in this chunk; hidden: (rows, seq, d_model)."""
        if layer not in self.values:
            self.values[layer] = np.zeros((len(self.spans), hidden.shape[-1]))
        if self._last is None or self._last[0] is not chunk:
            self._last = (chunk, self._places(chunk, hidden.shape[1], hidden.device))
        places, values = self._last[1], self.values[layer]
        tokens = hidden.reshape(-1, hidden.shape[-1])  # (rows * seq, d_model)
        sizes = torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float32)
        self.norms[layer].append(sizes[places.later].double().cpu().numpy())
        if places.owners:
            values[places.owners] = tokens[places.tokens].float().double().cpu().numpy()
        for which, owners in places.sums:
            values[owners] += tokens[which].float().sum(dim=0).double().cpu().numpy()

    def readings(self) -> Readings:
        """All that was read; sums become means only now, when every chunk is in."""
        counts = np.array([max(stop - start, 1) for start, stop in self.spans])[:, None]
        self.values = {b: sums / counts for b, sums in self.values.items()}
        sizes = {b: np.concatenate(parts) for b, parts in self.norms.items() if parts}
        found = {b: float(np.median(n)) for b, n in sizes.items() if n.size}
        return Readings(self.values, found, sizes)

    def _places(self, chunk: Chunk, width: int, device: torch.device) -> _Places:
        later, tokens, owners = [], [], []
        sums: dict[bytes, tuple[NDArray[np.int64], list[int]]] = {}  # those that read alike share
        for n, row in enumerate(chunk.rows):
            first = row.start
            for prompt, columns in row.columns.items():
                places = n * width + columns
                later.append(places[max(1 - first, 0) :])  # position 0 is an attention sink
                start, stop = self.spans[prompt]
                read = places[max(start - first, 0) : max(stop - first, 0)]
                if stop - start == 1 and len(read):
                    tokens.append(int(read[0]))
                    owners.append(prompt)
                elif len(read):
                    sums.setdefault(read.tobytes(), (read, []))[1].append(prompt)
        on = [(torch.as_tensor(read, device=device), of) for read, of in sums.values()]
        together = torch.as_tensor(np.concatenate(later), device=device)
        return _Places(together, torch.tensor(tokens, device=device), owners, on)


def _spans(lengths: Sequence[int], read_at: Read | Sequence[Span]) -> list[Span]:
    """The tokens read of each prompt: from the first to before the second."""
    if not isinstance(read_at, str | int):
        return list(read_at)
    if read_at == "mean":
        return [(1, n) for n in lengths]
    index = -1 if read_at == "last" else int(read_at)
    starts = [n + index if index < 0 else index for n in lengths]
    return [(start, start + 1) for start in starts]
