"""More items for a calibration: the share of items that move the right way is bounded tighter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from steerlab.core.record import canonical_json
from steerlab.core.results import Calibration
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts, NotFound
from steerlab.evaluation.calibration.curve import Curve
from steerlab.evaluation.calibration.effects import Propensity
from steerlab.evaluation.calibration.held_out import source_in
from steerlab.evaluation.metrics.items import ContrastItem
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab


def more(
    lab: Lab,
    vector: SteeringVector,
    items: Sequence[ContrastItem],
    *,
    chat: bool = False,
    allow_other_weights: bool = False,
    **watch: Unpack[Watch],
) -> Calibration:
    """The newest calibration of a vector with further items measured at its operating point.

    Neither the vector nor the choice of layer and dose has seen them. Nothing is stored.
    chat: the items' prompts are messages. allow_other_weights: as for `steering`.
    Raises NotFound without a calibration that works on the lab's model, BadPrompts for one that
    judged by a metric of texts, for items that are no new ones or can't move, and Cancelled.
    """
    lab.load(vector)
    at, coefficient, known = lab.operating_point(vector)
    if known is None:
        raise NotFound(
            f"{vector} has no calibration that works and could take more items: run steerlab "
            "calibrate without --more first"
        )
    curve = Curve.of(known)
    if curve.measure != Propensity.name:
        raise BadPrompts(
            f"{vector} was calibrated by {curve.measure} of texts, and items have no text: "
            "calibrate it with --items first"
        )
    pairs = source_in(lab, vector, at.layers).pairs
    seen = {*curve.keys, *keys([ContrastItem("", str(a), str(b)) for a, b in pairs])}
    once = different(items)
    fresh = {key: item for key, item in zip(keys(once), once, strict=True) if key not in seen}
    if not fresh:
        raise BadPrompts(
            f"all {len(items)} items were measured before, or are pairs that {vector} was made "
            "from: give new ones"
        )
    how = {"bos": at.scope == "front", "allow_other_weights": allow_other_weights}
    measure = Propensity(lab, [*fresh.values()], chat=chat, **how)
    both = [Setting(at, abs(coefficient)), Setting(at, -abs(coefficient))]
    found = measure.values([(i, s) for s in both for i in range(measure.count)], **watch)
    ranges = found[: measure.count] - found[measure.count :]
    grown = replace(
        curve, keys=(*curve.keys, *fresh), added=(*curve.added, *map(float, ranges.tolist()))
    )
    return replace(known, data=grown.to_json(), id=None, created="")


def different(items: Sequence[ContrastItem]) -> list[ContrastItem]:
    """Each item once; raises BadPrompts for one whose two sides are the same."""
    for number, item in enumerate(items, 1):
        if item.positive == item.negative:
            raise BadPrompts(
                f"the positive and the negative side of item {number} are the same: no vector can "
                "move it"
            )
    return list(dict(zip(keys(items), items, strict=True)).values())


def keys(items: Iterable[ContrastItem]) -> list[str]:
    """A short digest of the two whole texts of each item, by which it is known again."""
    made = ([_joined(x.prompt, text) for text in (x.positive, x.negative)] for x in items)
    return [hashlib.sha256(canonical_json(texts).encode()).hexdigest()[:16] for texts in made]


def _joined(prompt: str | tuple[int, ...], text: str | tuple[int, ...]) -> object:
    if isinstance(prompt, str) and isinstance(text, str):
        return prompt + text
    return [*prompt, *text]
