"""Runtime: what comparing steered texts needs of a model, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from steerlab.core.cell import Key
from steerlab.core.completion import Completion
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.models.generation import OnText
from steerlab.progress import ShouldStop


@dataclass(frozen=True)
class Row:
    """One sequence under one setting, and the columns to return logits of.

    ids: token ids; column i predicts token i + 1. Columns first <= i < stop are returned.
    prompt_length: tokens of the prompt, for positions that depend on it.
    """

    ids: tuple[int, ...]
    prompt_length: int
    first: int
    stop: int
    setting: Setting


class Runtime(Protocol):
    """Runs batches whose rows are steered one by one; `interventions.runtime` has the first."""

    def batch_rows(self, prompts: Sequence[str], new_tokens: int) -> int:
        """How many rows to write at once, each prompt continued by at most `new_tokens`."""

    def generate(
        self,
        rows: Sequence[Key],
        sampling: Sampling,
        *,
        positions: Positions = "all",
        bos: bool = False,
        allow_other_weights: bool = False,
        audit: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[Completion]:
        """Continue each row's prompt under its setting, with its seed; one batch.

        bos: begin every prompt with BOS. allow_other_weights: as for `steering`. audit: measure
        what is changed in each row; its completion has it.
        """

    def logits(
        self,
        rows: Sequence[Row],
        *,
        positions: Positions = "all",
        allow_other_weights: bool = False,
    ) -> Sequence[Tensor]:
        """The logits of each row at its columns, in one pass: (columns, vocab) float32."""
