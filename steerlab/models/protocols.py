"""Protocols of a LanguageModel, so that its parts need not import it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from steerlab.core.recipe import ModelIdentity
from steerlab.extraction.readings import Reader


class Steerable(Protocol):
    """A loaded model with its blocks."""

    model: Any
    parent: nn.Module
    blocks: list[nn.Module]

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while the model runs; reentrant."""


class Writer(Protocol):
    """A model that continues prompts; a LanguageModel is one."""

    parent: nn.Module

    @property
    def generate(self) -> Callable[..., Any]:
        """Continue one prompt, or several."""


class Readable(Reader, Steerable, Protocol):
    """A loaded model with its tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
