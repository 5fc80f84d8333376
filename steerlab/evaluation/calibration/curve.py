"""What a calibration found, as values: read by tables, plots and reports. Needs no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from steerlab.core.results import Calibration, defined
from steerlab.errors import CorruptPayload
from steerlab.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Limits:
    """What a dose may cost, measured on neutral prompts; beyond it the text is not sound.

    fluency: perplexity of the steered texts by the unsteered model, over the baseline's.
    kl: nats by which the next token's distribution may move, KL(p_s‖p), on average. Half a nat
        leaves the unsteered model e^-0.5, so 0.6, of the steered one's probability a token: a
        little beyond ln 1.5 = 0.41, which is what the fluency limit says of whole texts, since
        the next token is where a wanted change shows as well.
    distinct: distinct pairs of tokens over the baseline's, which a loop has none of.
    """

    fluency: float = 1.5
    kl: float = 0.5
    distinct: float = 0.9


@dataclass(frozen=True)
class Cost:
    """What a dose does to neutral text; None where it was not measured or is undefined.

    Texts are written only for doses within the limit on `kl`. longest_run: tokens in the
    longest run that comes again in its text, on average.
    """

    kl: float | None = None
    fluency: float | None = None
    distinct: float | None = None
    longest_run: float | None = None

    def within(self, limits: Limits) -> bool:
        """Whether everything was measured, and within its limit."""
        if self.kl is None or self.fluency is None or self.distinct is None:
            return False
        return (
            self.kl <= limits.kl
            and self.fluency <= limits.fluency
            and self.distinct >= limits.distinct
        )


@dataclass(frozen=True)
class Controls:
    """The same effect of random directions of the same norm: its mean, its scatter, how many."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Point:
    """One signed dose of the curve.

    coefficient: that of the whole vector at the curve's layer.
    effect: how far the items move from where they are unsteered, each under a vector that was
        made without it. z: the effect against its controls; None where they do not scatter.
    """

    dose: float
    coefficient: float
    effect: Estimate
    controls: Controls
    z: float | None
    cost: Cost
    sound: bool


@dataclass(frozen=True)
class LayerEffect:
    """The signed range S(+d) - S(-d) at one layer, at the dose that all layers are compared at."""

    layer: int
    effect: Estimate


@dataclass(frozen=True)
class Fold:
    """What was chosen without looking at some of the items, to be reported on just these."""

    items: tuple[int, ...]
    layer: int
    dose: float


@dataclass(frozen=True)
class Held:
    """The effect on items that neither vector, nor layer, nor dose has seen.

    effect: the signed range S(+d) - S(-d), which damage alone does not move; plus, minus: its
        two sides, from the unsteered items. z: the range against that of random directions;
        critical: the z that counts as more than chance, for as many layers as were tried.
    """

    effect: Estimate
    plus: Estimate
    minus: Estimate
    controls: Controls
    z: float | None
    critical: float
    folds: tuple[Fold, ...]

    @property
    def beats_chance(self) -> bool:
        """Whether z and interval both say that the items move the vector's way."""
        return self.z is not None and self.z >= self.critical and self.effect.low > 0


@dataclass(frozen=True)
class Curve:
    """A dose-response at one layer, how that layer was chosen, and what it is worth held out.

    measure: what an effect is ("propensity", in nats, or a metric's name).
    points: by dose, from the most negative. layers: the layers compared, all at `profile_dose`.
    plus, minus: the dose of the largest effect that is sound, on either side; None without one.
    crossed: whether the items are the vector's own pairs, each scored without itself.
    reason: why the vector counts as not working; empty where it works.
    """

    measure: str
    layer: int
    points: tuple[Point, ...]
    layers: tuple[LayerEffect, ...]
    profile_dose: float
    held: Held
    plus: float | None
    minus: float | None
    limits: Limits
    items: int
    crossed: bool
    seed: int
    reason: str
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The curve as JSON values; None for NaN."""
        data: dict[str, Any] = _plain(self)
        return data

    @classmethod
    def of(cls, calibration: Calibration) -> Curve:
        """The curve that a calibration holds; raises CorruptPayload for anything else."""
        try:
            return _curve(calibration.data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptPayload(f"the calibration can't be read: {error!r}") from None

    def at(self, dose: float) -> Point | None:
        """The point of a signed dose."""
        return next((p for p in self.points if math.isclose(p.dose, dose)), None)


def verdict(calibration: Calibration) -> str:
    """What a calibration comes to, in a sentence."""
    if not calibration.works or calibration.safe is None:
        return f"does not work: {Curve.of(calibration).reason}"
    held = Curve.of(calibration).held
    low, high = calibration.safe
    return (
        f"works: layer {calibration.layer}, dose {calibration.dose:+.2f} "
        f"(c {calibration.coefficient:+.3g}), safe from {low:+.2f} to {high:+.2f}; "
        f"held-out range {held.effect.mean:+.2f} "
        f"({held.effect.low:+.2f} to {held.effect.high:+.2f}), "
        f"z {shown_z(held.z)} against {held.controls.n} random directions"
    )


def shown_z(z: float | None) -> str:
    """A z in few characters."""
    return "-" if z is None else f"{z:+.1f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return defined(value) if isinstance(value, float) else value


def _curve(data: Mapping[str, Any]) -> Curve:
    return Curve(
        **{
            **data,
            "points": tuple(_point(p) for p in data["points"]),
            "layers": tuple(
                LayerEffect(row["layer"], _estimate(row["effect"])) for row in data["layers"]
            ),
            "held": _held(data["held"]),
            "limits": Limits(**data["limits"]),
        }
    )


def _point(data: Mapping[str, Any]) -> Point:
    parts = {
        "effect": _estimate(data["effect"]),
        "controls": _controls(data["controls"]),
        "cost": Cost(**data["cost"]),
    }
    return Point(**{**data, **parts})


def _held(data: Mapping[str, Any]) -> Held:
    estimates = {name: _estimate(data[name]) for name in ("effect", "plus", "minus")}
    folds = tuple(Fold(tuple(f["items"]), f["layer"], f["dose"]) for f in data["folds"])
    return Held(**{**data, **estimates, "controls": _controls(data["controls"]), "folds": folds})


def _controls(data: Mapping[str, Any]) -> Controls:
    return Controls(_number(data["mean"]), _number(data["sd"]), data["n"])


def _estimate(data: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_number(data[name]) for name in ("mean", "low", "high"))
    return Estimate(mean, low, high, data["n"])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def widened(estimate: Estimate, factor: float) -> Estimate:
    """An estimate whose interval is wider by a factor, on each side of its mean."""
    low, high = (
        estimate.mean + factor * (end - estimate.mean) for end in (estimate.low, estimate.high)
    )
    return Estimate(estimate.mean, low, high, estimate.n)


def controls_of(values: Sequence[float]) -> Controls:
    """Mean, scatter and number of what random directions do; NaN is left out."""
    found = [value for value in values if not math.isnan(value)]
    n = len(found)
    mean = math.fsum(found) / n if n else math.nan
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in found) / (n - 1)) if n > 1 else math.nan
    return Controls(mean, sd, n)
