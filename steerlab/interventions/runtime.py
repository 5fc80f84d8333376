"""The transformers runtime: a LanguageModel whose rows are steered by hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steerlab.core.audit import Audit, AuditedText
from steerlab.core.cell import Key
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting, is_front
from steerlab.errors import ModelError, SteeringError
from steerlab.interventions.hooks import steering
from steerlab.interventions.injection import Injection
from steerlab.models.batch_size import batch_rows
from steerlab.models.blocks import input_device
from steerlab.models.equal_rows import shared_below
from steerlab.models.generation import numbered
from steerlab.models.inference import batches_of_rows, eval_mode
from steerlab.models.interrupts import attached
from steerlab.models.interventions import begin_prompt
from steerlab.models.prompts import token_text
from steerlab.models.runtime import Row
from steerlab.models.uncompiled import Uncompiled
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    from steerlab.core.completion import Completion
    from steerlab.models.generation import OnText
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
        audit: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[Completion]:
        """Continue each row's prompt under its setting, with its seed; see `Runtime`."""
        lm = self.lm
        with lm.lock, eval_mode(lm.model):
            ids = [lm.tokens(p, chat=sampling.chat, bos=bos or is_front([s])) for s, p, _ in rows]
            batches = batches_of_rows(lm.model, ids)
        how: dict[str, Any] = {"allow_other_weights": allow_other_weights, "audit": audit}
        found: dict[int, Completion] = {}
        for batch in batches:
            part = [rows[row] for row in batch]
            steered = [
                injection(setting, row, positions) for row, (setting, _, _) in enumerate(part)
            ]
            with steering(lm, [one for one in steered if one is not None], **how) as applied:
                made = lm.generate(
                    [prompt for _, prompt, _ in part],
                    seed=[seed for _, _, seed in part],
                    bos=bos or None,
                    on_text=numbered(on_text, batch),
                    should_stop=should_stop,
                    **sampling.options(),
                )
            if audit:
                made = self._audited([ids[row] for row in batch], made, applied.audit)
            found |= dict(zip(batch, made, strict=True))
        return [found[row] for row in range(len(rows))]

    def _audited(
        self, prompts: Sequence[Sequence[int]], made: Sequence[Completion], audit: Audit
    ) -> list[Completion]:
        """The completions of a batch, each with what was changed in it."""
        found = []
        for row, (prompt, one) in enumerate(zip(prompts, made, strict=True)):
            ids = [*prompt, *one.token_ids]
            read = len(ids) - bool(one.token_ids)  # the last token was chosen, not read
            tokens = tuple(token_text(self.lm.tokenizer, token) for token in ids)
            text = AuditedText(tokens, len(prompt), audit.of_row(row, read))
            found.append(replace(one, audit=text))
        return found

    @torch.no_grad()
    def logits(
        self,
        rows: Sequence[Row],
        *,
        positions: Positions = "all",
        allow_other_weights: bool = False,
    ) -> Sequence[Tensor]:
        """The logits of each row at its columns, in one pass: (columns, vocab) float32.

        Rows are padded on the right, where a causal model never looks.
        """
        lm = self.lm
        found = [_acting(row, index, positions) for index, row in enumerate(rows)]
        # the prompt goes in whole, since steering has to see where it ends
        pieces = [row.ids[: max(row.stop, row.prompt_length)] for row in rows]
        lm.check_length(pieces)
        ids = torch.zeros(len(rows), max(map(len, pieces)), dtype=torch.long)
        for index, piece in enumerate(pieces):
            ids[index, : len(piece)] = torch.tensor(piece)
        steered = steering(
            lm,
            [one for one in found if one is not None],
            prompt_length=[row.prompt_length for row in rows],
            allow_other_weights=allow_other_weights,
        )
        with lm.lock, eval_mode(lm.model), steered:
            begin_prompt(lm.model)
            # (columns, vocab)
            values = self._narrowed(ids.to(input_device(lm.model)), rows)
        return torch.split(values.float(), [row.stop - row.first for row in rows])

    def _narrowed(self, ids: Tensor, wanted: Sequence[Row]) -> Tensor:
        """Logits at the rows' columns, with everything that the model does after its head."""
        rows = [index for index, row in enumerate(wanted) for _ in range(row.first, row.stop)]
        columns = [column for row in wanted for column in range(row.first, row.stop)]
        fired = False

        def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            nonlocal fired
            fired = True
            return (args[0][rows, columns].unsqueeze(0), *args[1:])  # (1, columns, d_model)

        model = self.lm.model
        hook = partial(model.get_output_embeddings().register_forward_pre_hook, narrow)
        first = min((b for row in wanted for b in row.setting.layers), default=0)
        shared = shared_below(model, self.lm.blocks, ids, first)
        with attached(Uncompiled, hook, *shared):
            found: Tensor = model(input_ids=ids, use_cache=False).logits
        if not fired or found.shape[:2] != (1, len(rows)):
            raise ModelError(
                f"{self.lm.source} does not compute its logits from its output embeddings"
            )
        return found[0]


def _acting(row: Row, index: int, positions: Positions) -> Injection | None:
    """What steers a row; None also if it would act after the last column."""
    found = injection(row.setting, index, positions)
    if found is None or found.vector.scope == "front" or positions != "continuation":
        return found
    return found if row.stop > row.prompt_length else None
