"""Readings of a model's activations, and the protocol to take them: arrays only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from steerlab.core.prompts import Prompt, Read, Span
from steerlab.core.recipe import ModelIdentity
from steerlab.progress import ShouldStop, Watch

Array = NDArray[np.float64]
Ids = Sequence[int]


@dataclass
class Readings:
    """One activation a prompt: layer -> (n_prompts, d_model) float64, and the residual norm there.

    residual_norms: layer -> median over all prompts' positions >= 1 (None without any).
    sizes: layer -> the norms that it is the median of.
    """

    values: dict[int, Array]
    residual_norms: dict[int, float] = field(default_factory=dict)
    sizes: dict[int, Array] = field(default_factory=dict)


class Reader(Protocol):
    """A model whose residual stream can be read; a LanguageModel is one."""

    source: str

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while the model runs; reentrant."""

    def tokens(self, prompt: Prompt, *, chat: bool = False, bos: bool = False) -> list[int]:
        """Token ids of one prompt."""

    def span(self, prompt: Prompt, read: Read, *, chat: bool = False) -> Span:
        """The tokens of a prompt that are read, for a read that depends on its turns."""

    def space_token(self) -> int | None:
        """The token of a single space; None if the tokenizer has none."""

    def check_length(self, ids: Sequence[Ids], new: int = 0) -> None:
        """Raise BadPrompts for prompts that are too long for the model."""

    def read_tokens(
        self,
        prompts: Sequence[Ids],
        layers: Sequence[int],
        read: Read | Sequence[Span],
        **watch: Unpack[Watch],
    ) -> Readings:
        """One activation a prompt, at the token or the mean given by `read`, or its span's mean."""

    def record_tokens(
        self, prompt: Ids, layers: Sequence[int], should_stop: ShouldStop | None = None
    ) -> dict[int, Array]:
        """Every position of one prompt: layer -> (seq, d_model)."""
