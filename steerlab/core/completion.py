"""Completion: a text that a model wrote after a prompt, in this process or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from steerlab.core import above
from steerlab.core.audit import AuditedText
from steerlab.core.display import count

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, repr=False)
class Completion(above.Shown):
    """The text that a model wrote after a prompt; str() joins the two.

    token_ids: empty where an engine tells none. finish: "stop" (end of text), "length" or
        "cancelled". audit: what a steering changed, where a runtime was asked for it.
    told: the number of tokens, where an engine tells that alone.
    """

    prompt: str
    text: str
    token_ids: tuple[int, ...]
    finish: Finish
    audit: AuditedText | None = field(default=None, compare=False, repr=False)
    told: int | None = field(default=None, compare=False, repr=False)

    @property
    def tokens(self) -> int:
        """How many tokens the text has."""
        return len(self.token_ids) if self.told is None else self.told

    def __str__(self) -> str:
        return self.prompt + self.text

    def __repr__(self) -> str:
        return f"<Completion {self.text!r}: {count(self.tokens, 'token')}, {self.finish}>"
