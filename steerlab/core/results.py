"""Results of measuring a vector, as the registry stores them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from steerlab.core import above
from steerlab.core.display import count, signed_dose
from steerlab.core.operation import ADD, Operation
from steerlab.errors import BadOption


@dataclass(frozen=True, repr=False)
class Calibration(above.Drawn):
    """At which layer and strength a vector works, found on some items and judged on others.

    digest: of the vector. layer, dose, coefficient: the operating point; None if no dose beat
        its control.
    safe: the range of signed doses within the limits on side effects; None if nothing works.
    data: the curves and how they were measured, as JSON values; never searched.
    id, created: given by the store. created: UTC, ISO 8601.
    Raises BadOption for a vector that works without an operating point, or a reversed range.
    """

    digest: str
    works: bool
    layer: int | None = None
    dose: float | None = None
    coefficient: float | None = None
    safe: tuple[float, float] | None = None
    data: Any = None
    operation: Operation = ADD
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        point = (self.layer, self.dose, self.coefficient, self.safe)
        if self.works and None in point:
            raise BadOption("a vector that works has a layer, a dose, a coefficient, a safe range")
        if self.safe is not None and not self.safe[0] <= self.safe[1]:
            raise BadOption(f"a safe range goes from low to high, not {self.safe}")

    def __repr__(self) -> str:
        at = (
            f"layer {self.layer}, dose {signed_dose(self.dose)}"
            if self.works
            else "not shown to work"
        )
        return f"<Calibration of {self.digest[:12]}: {at}>"

    @property
    def at(self) -> str:
        """Where and how strongly it works, in words; empty if it does not."""
        if self.safe is None:
            return ""
        low, high = self.safe
        return (
            f"layer {self.layer}, dose {self.dose:+.2f} (c {self.coefficient:+.3g}), "
            f"safe from {low:+.2f} to {high:+.2f}"
        )

    @property
    def brief(self) -> str:
        """The operating point as a list shows it: "+0.15 at 21"; "not shown" to work."""
        return f"{signed_dose(self.dose)} at {self.layer}" if self.works else "not shown"

    @property
    def candidates(self) -> frozenset[int]:
        """The layers that it chose from, as far as its data says."""
        data = self.data if isinstance(self.data, dict) else {}
        known, compared = data.get("candidates"), data.get("layers")
        found = known if isinstance(known, list) and known else []
        if not found and isinstance(compared, list):
            found = [x.get("layer") for x in compared if isinstance(x, dict)]
        return frozenset(x for x in (*found, self.layer) if isinstance(x, int))

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON values."""
        return asdict(self) | self.operation.to_json()


def in_force(found: Iterable[Calibration], layer: int | None = None) -> Calibration | None:
    """The one of a vector's calibrations that counts, given the oldest first; None without one.

    A newer one takes the place of one that works only if it looked at its layer again: what was
    sought at other layers alone stands beside it, and counts once the first is refuted. layer: the
    one that counts there.
    """
    standing: list[Calibration] = []
    for new in found:
        if layer is not None and layer != new.layer and (new.works or layer not in new.candidates):
            continue
        left = [old for old in standing if old.works and old.layer not in new.candidates]
        stays = bool(left) and left[0] is standing[0]
        both = [*left, new] if stays else [new, *left]
        standing = [one for one in both if one.works] or [new]
    return standing[0] if standing else None


def by_layer(found: Sequence[Calibration]) -> dict[int, Calibration]:
    """Layer -> the calibration that counts there, for each layer where one found it to work."""
    layers = sorted({made.layer for made in found if made.works and made.layer is not None})
    here = {layer: in_force(found, layer) for layer in layers}
    return {layer: made for layer, made in here.items() if made is not None and made.works}


def keeps_layers(kind: str, recipe: str) -> bool:
    """Whether a vector acts at its own layers alone, whatever works elsewhere.

    An imported vector has no recipe to make others, and the expression love[15] says its layers.
    kind, recipe: the kind and the text of its recipe.
    """
    return kind == "imported" or (kind == "expression" and "[" in recipe)


def in_use(found: Sequence[Calibration], only: Sequence[int] | None) -> Calibration | None:
    """The calibration by which a vector is used; None without one.

    found: those of its digest, the oldest first. only: the layers at which it is to act; None for
    wherever it works. A copy of love that was imported, or love[15], has the digest of love but
    acts at layer 15 alone.
    """
    made = in_force(found, only[0] if only is not None and len(only) == 1 else None)
    elsewhere = made is not None and made.works and only is not None and made.layer not in only
    return None if elsewhere else made


def beside(found: Sequence[Calibration], only: Sequence[int] | None) -> list[Calibration]:
    """The calibrations of other layers that stand beside the one `in_use`."""
    used, others = in_use(found, only), by_layer(found).values()
    return [one for one in others if one != used and (only is None or one.layer in only)]


@dataclass(frozen=True)
class Measured:
    """An estimate of a metric on one style of text, with its interval.

    setting: in words ("dose +0.15", "control"). estimate, low, high: None where undefined.
    n: number of items.
    """

    style: str
    metric: str
    setting: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def __post_init__(self) -> None:
        for name in ("estimate", "low", "high"):
            object.__setattr__(self, name, defined(getattr(self, name)))


@dataclass(frozen=True, repr=False)
class Evaluation(above.Drawn):
    """A vector measured on a suite of prompts, with one model and one set of library versions.

    digest: of the vector. suite_digest: of the suite's content.
    model: where it was loaded from. model_key: its `ModelIdentity.key`.
    versions: library -> version. data: how it was measured, and notes, as JSON values; never
        searched.
    id, created: given by the store. created: UTC, ISO 8601.
    """

    digest: str
    suite: str
    suite_digest: str
    model: str
    model_key: str
    versions: dict[str, str]
    values: tuple[Measured, ...]
    data: Any = None
    operation: Operation = ADD
    id: int | None = field(default=None, compare=False)
    created: str = field(default="", compare=False)

    def __repr__(self) -> str:
        values = count(len(self.values), "value")
        return f"<Evaluation of {self.digest[:12]}: suite {self.suite}, {values}>"

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return asdict(self) | self.operation.to_json()


def defined(value: float | None) -> float | None:
    """The value, or None for NaN and infinity, which JSON and SQL lack."""
    return value if value is None or math.isfinite(value) else None
