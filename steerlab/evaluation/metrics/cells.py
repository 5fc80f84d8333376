"""Metrics of a sweep's cells that need a model; measured in few batches and kept with the cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from steerlab.core.cell import Cell, MetricValue
from steerlab.core.setting import Setting
from steerlab.core.sweep import Sweep
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts
from steerlab.evaluation.metrics.items import Continuation, continuation
from steerlab.evaluation.metrics.texts import METRICS

if TYPE_CHECKING:
    from steerlab.lab.sweeps import CellMetric
    from steerlab.models.language_model import LanguageModel

SCORED = 12
"""Tokens of each text that are scored; scoring all 40 takes 0.6 of the time of writing them."""


class FluencyRatio:
    """Perplexity of a text over that of the baseline's, both by the unsteered model.

    scored: number of tokens of each text to score. bos: whether prompts began with BOS, as
        with a front vector.
    """

    name = "fluency-ratio"

    def __init__(self, scored: int = SCORED, *, bos: bool = False) -> None:
        self.scored, self.bos = scored, bos

    def __call__(
        self, model: LanguageModel, sweep: Sweep, cells: Sequence[Cell]
    ) -> list[MetricValue]:
        """One value for each cell; each text is scored once."""
        from steerlab.evaluation.metrics.likelihood import token_log_probs

        pairs = [(cell, sweep.baseline(cell)) for cell in cells]
        texts = {(c.prompt, c.text) for pair in pairs for c in pair if c is not None}
        items = {key: item for key in sorted(texts) if (item := self._item(model, sweep, *key))}
        found = token_log_probs(model, list(items.values()), [Setting()])[0]
        losses = {key: -float(logs.mean()) for key, logs in zip(items, found, strict=True)}
        return [_ratio(losses, cell, plain) for cell, plain in pairs]

    def _item(
        self, model: LanguageModel, sweep: Sweep, prompt: str, text: str
    ) -> Continuation | None:
        try:
            whole = continuation(model, prompt, text, chat=sweep.sampling.chat, bos=self.bos)
        except BadPrompts:  # a text without a token
            return None
        return Continuation(whole.ids[: whole.start + self.scored], whole.start)


class NextTokenKL:
    """KL(p_s‖p) of the next token after the prompt, in nats.

    vectors: layer -> the vector added there. All seeds of a prompt have the same value.
    """

    name = "KL"

    def __init__(
        self, vectors: Mapping[int, SteeringVector], *, allow_other_weights: bool = False
    ) -> None:
        self.vectors, self.allow_other_weights = vectors, allow_other_weights

    def __call__(
        self, model: LanguageModel, sweep: Sweep, cells: Sequence[Cell]
    ) -> list[MetricValue]:
        """One value for each cell; each prompt is read once under each setting."""
        from steerlab.evaluation.metrics.predictions import divergence

        by_prompts: dict[tuple[str, ...], list[Setting]] = defaultdict(list)
        for setting, prompts in _prompts(cells).items():
            by_prompts[prompts].append(setting)
        nats: dict[tuple[Setting, str], float] = {}
        for prompts, settings in by_prompts.items():
            found = divergence(
                model,
                prompts,
                [setting.with_vector(self.vectors) for setting in settings],
                top=1,
                chat=sweep.sampling.chat,
                positions=sweep.positions,
                allow_other_weights=self.allow_other_weights,
            ).nats
            for (s, p), value in np.ndenumerate(found):
                nats[settings[s], prompts[p]] = float(value)
        return [MetricValue(nats[cell.setting, cell.prompt]) for cell in cells]


def default_metrics(
    vectors: Mapping[int, SteeringVector], *, allow_other_weights: bool = False
) -> list[CellMetric]:
    """The metrics of a sweep's cells: repetition, fluency and KL.

    vectors: layer -> the vector that the sweep adds there. Other metrics of texts can be
    computed from the stored texts at any time.
    """
    front = any(vector.scope == "front" for vector in vectors.values())
    kl = NextTokenKL(vectors, allow_other_weights=allow_other_weights)
    return [METRICS["distinct-2"], METRICS["longest-run"], FluencyRatio(bos=front), kl]


def _ratio(losses: Mapping[tuple[str, str], float], cell: Cell, plain: Cell | None) -> MetricValue:
    if plain is None:
        return MetricValue(None, "there is no baseline to compare with")
    both = [losses.get((c.prompt, c.text)) for c in (cell, plain)]
    if both[0] is None or both[1] is None:
        return MetricValue(None, "a text without a token has no perplexity")
    with np.errstate(over="ignore"):
        return MetricValue(float(np.exp(both[0] - both[1])))


def _prompts(cells: Sequence[Cell]) -> dict[Setting, tuple[str, ...]]:
    """Setting -> its prompts, each once."""
    found: dict[Setting, dict[str, None]] = defaultdict(dict)
    for cell in cells:
        found[cell.setting][cell.prompt] = None
    return {setting: tuple(prompts) for setting, prompts in found.items()}
