"""The effect of a setting on an item as one number: a propensity, or a metric of its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from steerlab.core.cell import Cell, Key
from steerlab.core.display import printable
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting
from steerlab.errors import BadOption, Cancelled
from steerlab.lab.batches import write
from steerlab.lab.lab import Lab
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.evaluation.metrics.items import ContrastItem
    from steerlab.evaluation.metrics.texts import Metric

Array = NDArray[np.float64]
Request = tuple[int, Setting]
"""Index of an item, and how it is steered."""


class Measure(Protocol):
    """A value for an item under a setting."""

    name: str
    count: int

    def values(self, requests: Sequence[Request], **watch: Unpack[Watch]) -> Array:
        """One value for each request: (n_requests,), NaN where undefined."""


class Propensity:
    """The log-odds of an item's two continuations, in nats; see `likelihood.log_odds`."""

    name = "propensity"

    def __init__(
        self,
        lab: Lab,
        items: Sequence[ContrastItem],
        *,
        chat: bool = False,
        bos: bool = False,
        allow_other_weights: bool = False,
    ) -> None:
        from steerlab.evaluation.metrics.items import contrast

        self.lm, self.count = lab.model, len(items)
        self.allow_other_weights = allow_other_weights
        self._sides = [contrast(self.lm, item, chat=chat, bos=bos) for item in items]

    def values(self, requests: Sequence[Request], **watch: Unpack[Watch]) -> Array:
        """All requests in as few batches as memory allows."""
        from steerlab.evaluation.metrics.likelihood import log_odds

        both = [(self._sides[item], setting) for item, setting in requests]
        return log_odds(self.lm, both, allow_other_weights=self.allow_other_weights, **watch)


class Attribute:
    """A metric of the text written after a prompt, sampled with one seed for each prompt."""

    def __init__(
        self,
        lab: Lab,
        metric: Metric,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        bos: bool = False,
        allow_other_weights: bool = False,
    ) -> None:
        self.lab, self.metric, self.prompts, self.seed = lab, metric, prompts, seed
        self.how = {"bos": bos, "allow_other_weights": allow_other_weights}
        self.name, self.count = metric.name, len(prompts)
        self.reason = ""
        self._plain: dict[int, str] = {}

    def values(self, requests: Sequence[Request], **watch: Unpack[Watch]) -> Array:
        """The value of each text; the baseline's texts are written once."""
        if self.metric.compares and not self._plain:
            rows = [self._row(i, Setting()) for i in range(self.count)]
            texts = written(self.lab, rows, should_stop=watch.get("should_stop"), **self.how)
            self._plain = {i: text.text for i, text in enumerate(texts)}
        rows = [self._row(*request) for request in requests]
        texts = written(self.lab, rows, **watch, **self.how)
        return np.array(
            [self._value(item, text) for (item, _), text in zip(requests, texts, strict=True)]
        )

    def _row(self, item: int, setting: Setting) -> Key:
        return (setting, self.prompts[item], self.seed + item)

    def _value(self, item: int, text: Cell) -> float:
        value, reason = self.metric.explained(text.text, self._plain.get(item))
        self.reason = reason or self.reason
        return value


def check_defined(measure: Measure, values: Array) -> None:
    """Raise BadOption if a measure has no value for any unsteered item."""
    if not np.isnan(values).all():
        return
    why = getattr(measure, "reason", "")
    raise BadOption(
        f"{printable(measure.name)} has no value for any unsteered item"
        + (f" ({printable(why)})" if why else "")
        + ": nothing can be compared with it"
    )


SAMPLING = Sampling(max_new_tokens=40, temperature=0.7, top_p=0.9)
"""How a calibration writes texts; not greedily, since small models then loop by themselves."""


def written(lab: Lab, rows: Sequence[Key], **how: Any) -> list[Cell]:
    """A text for each row; equal rows are written once. Raises Cancelled.

    how: options of `batches.write`.
    """
    found: dict[int, Cell] = {}
    for batch in write(lab.runtime, rows, SAMPLING, **how):
        found |= batch
    if len(found) < len(rows) or any(cell.finish == "cancelled" for cell in found.values()):
        raise Cancelled("cancelled: nothing was stored")
    return [found[place] for place in range(len(rows))]
