"""Sequences: what forward passes continue, and how a pass is recognised as going on with one.

Where a prompt ends belongs to the sequence, never to "the last pass": passes of several sequences
may alternate, as in classifier-free guidance. A sequence is known by the cache that holds its
tokens or, where there is no cache, by the tokens themselves, which every pass repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from steerlab.interventions.generate_call import GenerateCall
from steerlab.interventions.unchanged import Unchanged


@dataclass(eq=False)
class Sequences:
    """The sequences of one batch: the rows of one cache, or the rows that passes repeat and extend.

    lengths: tokens of each row's prompt, (batch or 1, 1).
    padding: columns of each row without a token, (batch or 1, 1).
    columns: of the prompt, padding included.
    decoding: whether the prompt is over. in_chunks: whether it came in several passes.
    ambiguous: why it is unknown where the prompt ended; "" if it is known.
    packed: whether a row holds several requests, one after the other.
    call: the identity of the latest `generate` that they were seen in; see GenerateCall.
    """

    batch: int
    lengths: Tensor
    padding: Tensor
    columns: int
    decoding: bool = False
    in_chunks: bool = False
    ambiguous: str = ""
    packed: bool = False
    unchanged: Unchanged = field(default_factory=Unchanged)
    call: object = None

    def begin(self, lengths: Tensor, columns: int) -> None:
        """Take what was read so far as the prompt."""
        self.lengths, self.columns, self.decoding = lengths, columns, False

    def is_new_to(self, call: GenerateCall) -> bool:
        """Whether a `generate` has not run them before; never if it can't be told."""
        return call.identity is not None and call.identity is not self.call


@dataclass(frozen=True)
class Rows:
    """The tokens of a pass without a cache, as bytes: one row for each sequence.

    stride: bytes of one token. use_cache: as the pass was told; passes of one sequence agree.
    """

    rows: tuple[bytes, ...]
    stride: int
    use_cache: bool | None

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor | None, use_cache: bool | None) -> Rows:
        """tokens: ids (batch, seq), or embeddings (batch, seq, d). Padding counts as such."""
        if mask is not None:
            hidden = (mask == 0).to(tokens.device)
            tokens = tokens.masked_fill(hidden.reshape(*hidden.shape, *[1] * (tokens.ndim - 2)), -1)
        flat = tokens.detach().contiguous().cpu()
        rows = flat.view(torch.uint8).reshape(len(flat), -1).numpy()
        return cls(tuple(row.tobytes() for row in rows), rows.shape[1] // flat.shape[1], use_cache)

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return len(self.rows[0]) // self.stride

    def prefixes(self, width: int) -> list[bytes]:
        """Digests of the first `width` tokens of every row."""
        end, kind = width * self.stride, f"{self.use_cache} {self.stride}".encode()
        return [blake2b(row[:end], digest_size=16, key=kind).digest() for row in self.rows]


@dataclass(frozen=True)
class Extension:
    """What a pass without a cache extends.

    width: tokens that it repeats. rows: for each of its rows, the row that it repeats.
    forked: whether another pass has already gone on from there.
    """

    sequences: Sequences
    width: int
    rows: list[int]
    forked: bool


class KnownSequences:
    """The sequences that were seen, by their cache or by their tokens."""

    def __init__(self) -> None:
        self._by_cache: Any = WeakIdKeyDictionary()
        self._by_prefix: dict[int, dict[bytes, tuple[Sequences, int]]] = {}
        self._widths: dict[Sequences, int] = {}  # of the latest pass

    def of_cache(self, caches: Iterable[Any]) -> Sequences | None:
        """The sequences in these caches; None if they were filled unseen."""
        for cache in caches:
            if (found := self._by_cache.get(cache)) is not None:
                return found  # type: ignore[no-any-return]  # torch's dictionary is untyped
        return None

    def extended_by(self, pass_: Rows) -> Extension | None:
        """The sequences that every row of a pass repeats, with more at its end; the longest."""
        for width in sorted((w for w in self._by_prefix if w < pass_.width), reverse=True):
            known = self._by_prefix[width]
            found = [known.get(prefix) for prefix in pass_.prefixes(width)]
            owners = {entry[0] for entry in found if entry is not None}
            if None not in found and len(owners) == 1:
                owner = owners.pop()
                rows = [entry[1] for entry in found if entry is not None]
                return Extension(owner, width, rows, self._widths[owner] != width)
        return None

    def remember_caches(self, caches: Sequence[Any], sequences: Sequences) -> None:
        """Know the sequences by their caches, for as long as these exist."""
        for cache in caches:
            self._by_cache[cache] = sequences

    def remember_tokens(self, pass_: Rows, sequences: Sequences) -> None:
        """Know the sequences by the tokens of their latest pass."""
        known = self._by_prefix.setdefault(pass_.width, {})
        for row, prefix in enumerate(pass_.prefixes(pass_.width)):
            known[prefix] = (sequences, row)
        self._widths[sequences] = pass_.width

    def forget_tokens(self) -> None:
        """Take what is repeated from now on as a new prompt."""
        self._by_prefix.clear()
        self._widths.clear()
