"""Sampling: how a text is written. Needs no torch, so options are checked before a model loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

from steerlab.errors import BadOption


@dataclass(frozen=True)
class Sampling:
    """How a prompt is continued, its seed aside.

    temperature: 0 is greedy. top_k: 0 is off. top_p, repetition_penalty: 1 is off.
    chat: the prompt is a user's message, put into the model's chat template.
    Raises BadOption for a value outside its range.
    """

    max_new_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    chat: bool = False

    def __post_init__(self) -> None:
        for name, fine, what in (
            ("max_new_tokens", _is_count(self.max_new_tokens, 1), "a whole number from 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", _is_count(self.top_k, 0), "a whole number, or 0 (off)"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
        ):
            if not fine:
                raise BadOption(f"{name} has to be {what}, not {getattr(self, name)}")

    @classmethod
    def pop_from(cls, values: dict[str, Any]) -> Sampling:
        """Take the options of a Sampling out of other named values."""
        return cls(**{f.name: values.pop(f.name) for f in fields(cls) if f.name in values})

    def shown(self, prompt: str) -> str:
        """A prompt as it is shown before its continuation: an answer begins after a blank line."""
        return f"{prompt}\n\n" if self.chat else prompt

    def options(self) -> dict[str, Any]:
        """The options by name, as `LanguageModel.generate` takes them."""
        return asdict(self)


def seeds_of(seed: int | Sequence[int], rows: int) -> list[int]:
    """One seed a row.

    Each row draws from its own stream; rows with one seed draw the same numbers, so a baseline
    and its steered twin differ by the steering alone.
    Raises BadOption for anything but a whole number, or one for each row.
    """
    if isinstance(seed, Integral):
        return [int(seed)] * rows
    seeds: Any = seed
    if isinstance(seeds, str) or not hasattr(seeds, "__len__"):
        raise BadOption(f"a seed is a whole number, or one for each prompt, not {seeds!r}")
    if len(seeds) != rows:
        raise BadOption(f"{len(seeds)} seeds for {rows} prompts: give one, or one for each")
    return [int(seed) for seed in seeds]


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


GREEDY = Sampling()
