"""Run: one prompt written under several strengths, and all that decided the texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Positions = Literal["all", "prompt", "generated", "continuation"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated", "continuation")
"""Where along a text a vector is added."""


@dataclass(frozen=True)
class Generation:
    """One text of a run. coefficient 0 is the baseline; dose None where none is known."""

    coefficient: float
    dose: float | None
    text: str
    finish: str = "length"
    tokens: int = 0


@dataclass(frozen=True)
class Run:
    """A comparison that was made once, with everything needed to make it again.

    expression: as typed; empty for a run without a vector. layers: where it was steered, as
        typed ("15", "10:20"); empty for the vector's own. model: the source it was written with.
    best: index of the generation that a reader liked best, None before anyone said.
    id, created: given by the store. created: UTC, ISO 8601.
    """

    expression: str
    prompt: str
    model: str
    generations: tuple[Generation, ...]
    layers: str = ""
    positions: Positions = "all"
    seed: int = 0
    chat: bool = False
    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    best: int | None = None
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    @property
    def sampling(self) -> dict[str, Any]:
        """How tokens were chosen, as `LanguageModel.generate` takes it."""
        names = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "chat")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values."""
        return asdict(self)
