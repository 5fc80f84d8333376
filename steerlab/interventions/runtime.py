"""The transformers runtime: a LanguageModel whose rows are steered by hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerlab.core.cell import Key
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.errors import SteeringError
from steerlab.interventions.hooks import Injection, steering
from steerlab.models.batch_size import batch_rows
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    from steerlab.models.generation import Completion, OnText
    from steerlab.models.language_model import LanguageModel


def injection(setting: Setting, row: int, positions: Positions) -> Injection | None:
    """What steers a row of a batch; None for the baseline.

    Raises SteeringError for a setting that was read from a store: its vector is missing.
    """
    if setting.vector is not None:
        return Injection(setting.vector, setting.coefficient, positions, rows=(row,))
    if setting.is_baseline:
        return None
    raise SteeringError(f"the setting at layer {setting.layer} comes without its vector")


class TransformersRuntime:
    """A `Runtime` over a LanguageModel."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    def batch_rows(self, prompts: Sequence[str], new_tokens: int) -> int:
        """How many rows to write at once: what is fastest, as far as memory goes."""
        return batch_rows(self.lm, prompts, new_tokens)

    def generate(
        self,
        rows: Sequence[Key],
        sampling: Sampling,
        *,
        positions: Positions = "all",
        bos: bool = False,
        allow_other_weights: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[Completion]:
        """Continue each row's prompt under its setting, with its seed; see `Runtime`."""
        found = [injection(setting, row, positions) for row, (setting, _, _) in enumerate(rows)]
        steered = [one for one in found if one is not None]
        with steering(self.lm, steered, allow_other_weights=allow_other_weights):
            return self.lm.generate(
                [prompt for _, prompt, _ in rows],
                seed=[seed for _, _, seed in rows],
                bos=bos or None,
                on_text=on_text,
                should_stop=should_stop,
                **sampling.options(),
            )
