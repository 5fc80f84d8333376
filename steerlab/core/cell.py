"""Cell: one text of a comparison or a sweep, and what metrics say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.audit import AuditedText
from steerlab.core.results import defined
from steerlab.core.setting import Setting

Key = tuple[Setting, str, int]
"""What tells cells apart: setting, prompt, seed."""


@dataclass(frozen=True)
class MetricValue:
    """What a metric says of a cell; value None where it is undefined, reason: why, if known."""

    value: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        found = None if self.value is None else defined(float(self.value))
        object.__setattr__(self, "value", found)
        if self.value is not None:
            object.__setattr__(self, "reason", None)


@dataclass(frozen=True)
class Cell:
    """One text: a prompt and a seed under a setting.

    text: without the prompt. finish: "stop" (end of text), "length" or "cancelled"; cancelled
        texts are never stored.
    tokens: how many the text has. token_ids: the tokens, empty for texts read from a store.
    metrics: by name, those that were measured with a model.
    audit: what the steering changed, token by token; None unless that was asked for.
    """

    setting: Setting
    prompt: str
    seed: int
    text: str
    finish: str
    tokens: int
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    audit: AuditedText | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> Key:
        """What tells it from other cells."""
        return (self.setting, self.prompt, self.seed)

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON values, without its metrics; with its audit, if it has one."""
        audited = {} if self.audit is None else {"audit": self.audit.to_json()}
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "vector": self.setting.label or None,
            "layers": list(self.setting.layers),
            "coefficient": self.setting.coefficient,
            "dose": self.setting.dose,
            "text": self.text,
            "finish": self.finish,
            **audited,
        }
