"""The verdict on an evaluation in sentences, each derived from intervals and controls.

Claims are shown, refuted or not shown: by where their interval lies against their limit. An
effect below zero is "shown the other way": a scorer such as vader has its own direction, and what
a vector of hate should do is lower it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from steerlab.core.results import Evaluation, Measured
from steerlab.evaluation.calibration.curve import Limits
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.guarantee import at_least, at_most
from steerlab.evaluation.statistics import CONTROLS, Estimate, critical_z

_LIMITS = Limits()
FACTS_LIMIT = 0.05  # the largest loss of P@1 at which facts count as kept

_NOT_EFFECTS = (*names.COSTS, names.STEERABILITY, names.ANTI)
_NOT_STYLES = (names.NEUTRAL, names.ON_TOPIC, names.OFF_TOPIC, names.FACTS, names.OWN_TEXTS)


class Finding(Enum):
    """What an effect amounts to."""

    GENERALIZES = "generalizes"
    REVERSED = "reversed"
    CHANCE = "within chance"
    NOTHING = "no effect"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Judged:
    """A finding about one metric in one style; text: the figures behind it."""

    style: str
    metric: str
    finding: Finding
    text: str


Values = Mapping[tuple[str, str, str], Measured]


def by_name(values: Iterable[Measured]) -> Values:
    """Values by (style, metric, setting)."""
    return {(v.style, v.metric, v.setting): v for v in values}


def effect_metrics(values: Iterable[Measured]) -> tuple[str, ...]:
    """The metrics of what a vector does, in their order; side effects are left out."""
    return tuple(dict.fromkeys(v.metric for v in values if v.metric not in _NOT_EFFECTS))


def styles(values: Iterable[Measured]) -> tuple[str, ...]:
    """The styles of the prompts and items, in their order."""
    return tuple(dict.fromkeys(v.style for v in values if v.style not in _NOT_STYLES))


def judge(values: Values, style: str, metric: str) -> Judged:
    """Judge an effect. It generalizes to a style if all of these hold:

    the 95% interval of its signed range excludes zero; and its z among random directions of the
    same norm, and among shuffled-label vectors if there are any, reaches `critical_z` in the same
    direction.
    """
    effect = values.get((style, metric, names.RANGE))
    if effect is None or effect.estimate is None or effect.low is None or effect.high is None:
        return Judged(style, metric, Finding.UNKNOWN, "no value with an interval")
    size = interval(effect)
    if effect.low <= 0 <= effect.high:
        return Judged(style, metric, Finding.NOTHING, f"{size} includes 0")
    sign, shown = (1 if effect.estimate > 0 else -1), []
    for name, control in ((names.Z, "random directions"), (names.Z_SHUFFLED, "shuffled labels")):
        z = values.get((style, metric, name))
        if z is None and name == names.Z_SHUFFLED:
            continue
        if z is None or z.estimate is None:
            return Judged(style, metric, Finding.CHANCE, f"{size}, and no control to compare with")
        needed, text = critical_z(max(z.n, CONTROLS)), f"z {z.estimate:+.1f}"
        if sign * z.estimate < needed:
            within = f"{size} is within {control}: {text}, needed {needed:.2f}"
            return Judged(style, metric, Finding.CHANCE, within)
        shown.append(text if name == names.Z else f"{text} among {control}")
    found = Finding.GENERALIZES if sign > 0 else Finding.REVERSED
    return Judged(style, metric, found, ", ".join([size, *shown]))


def judged(of: Evaluation) -> list[Judged]:
    """Every effect in every style, without the vector's own pairs, which are not held out."""
    values = by_name(of.values)
    return [
        judge(values, style, metric)
        for metric in effect_metrics(of.values)
        for style in styles(of.values)
        if style != names.OWN_PAIRS and (style, metric, names.RANGE) in values
    ]


def verdict(of: Evaluation) -> list[str]:
    """The verdict, a sentence each: first the effects, then the side effects."""
    values = by_name(of.values)
    found = judged(of)
    lines = [_effect(metric, found) for metric in dict.fromkeys(j.metric for j in found)]
    lines += [_fluency(values, of), _distinct(values, of), _facts(values)]
    lines += [_moved(values), _perplexity(values), _own_pairs(values)]
    return [line for line in (*lines, *_guarantees(values)) if line]


def interval(value: Measured) -> str:
    """An estimate with its interval: "+0.42 [+0.10, +0.73]"."""
    if value.estimate is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.estimate:+.2f}"
    return f"{value.estimate:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _effect(metric: str, found: Sequence[Judged]) -> str:
    kinds: dict[Finding, list[Judged]] = {}
    for judgement in found:
        if judgement.metric == metric and judgement.style != names.ALL:
            kinds.setdefault(judgement.finding, []).append(judgement)
    parts = []
    if general := kinds.get(Finding.GENERALIZES):
        parts.append(f"shown in {_listed(general)}")
    if turned := kinds.get(Finding.REVERSED):
        parts.append(f"shown the other way in {_listed(turned)}")
    missed = [*kinds.get(Finding.CHANCE, ()), *kinds.get(Finding.NOTHING, ())]
    if missed:
        parts.append(f"not shown in {_listed(missed)}")
    if unknown := kinds.get(Finding.UNKNOWN):
        parts.append(f"not measured in {_and([j.style for j in unknown])}")
    parts += [
        f"{names.ALL} together {overall.text}"
        for overall in found
        if (overall.metric, overall.style) == (metric, names.ALL)
    ]
    return f"{metric}: {'; '.join(parts)}"


def _listed(found: Sequence[Judged]) -> str:
    return _and([f"{j.style} ({j.text})" for j in found])


def _fluency(values: Values, of: Evaluation) -> str:
    found = _bounds(values, of, names.FLUENCY)
    return _claim(
        f"fluency kept (perplexity ratio at most {_LIMITS.fluency})", found, _LIMITS.fluency
    )


def _distinct(values: Values, of: Evaluation) -> str:
    found = []
    for bound in _bounds(values, of, names.DISTINCT):
        style, _, _ = bound.place.rpartition(" at ")
        plain = _estimate(values, style, names.DISTINCT, names.BASELINE)
        if plain:
            found.append(bound.lost(plain))
    said = f"no more repetition (distinct-2 falls by at most {1 - _LIMITS.distinct:.0%})"
    return _claim(said, found, 1 - _LIMITS.distinct)


def _facts(values: Values) -> str:
    plain = values.get((names.FACTS, names.P1, names.BASELINE))
    if plain is None or plain.estimate is None:
        return ""
    found = [b.lost(1.0) for b in _at_both_signs(values, names.FACTS, names.P1)]
    steered = " and ".join(f"{plain.estimate - b.estimate:.2f}" for b in found)
    random = _estimate(values, names.FACTS, names.P1, names.RANDOM)
    control = "" if random is None else f", random directions {plain.estimate + random:.2f}"
    said = f"facts kept (P@1 falls by at most {FACTS_LIMIT})"
    claim = _claim(said, found, FACTS_LIMIT)
    return f"{claim}; P@1 {plain.estimate:.2f} -> {steered}, n {plain.n}{control}" if claim else ""


@dataclass(frozen=True)
class _Bound:
    """A side effect somewhere, with its interval; infinite ends where it has none."""

    place: str
    estimate: float
    low: float
    high: float

    def lost(self, of: float) -> _Bound:
        """A change as the share that is lost."""
        return _Bound(self.place, -self.estimate / of + 0.0, -self.high / of, -self.low / of)


def word(bounds: Sequence[tuple[float, float]], limit: float) -> str:
    """Whether intervals show that a side effect is at most a limit everywhere.

    "shown" if all lie within it, "refuted" if one lies beyond it, else "not shown".
    """
    if any(low > limit for low, _ in bounds):
        return "refuted"
    return "shown" if all(high <= limit for _, high in bounds) else "not shown"


def _claim(said: str, found: Sequence[_Bound], limit: float) -> str:
    """A claim, its word, and the place that decides; empty without values."""
    if not found:
        return ""
    end = "low" if any(b.low > limit for b in found) else "high"
    worst = max(found, key=lambda b: (getattr(b, end), b.estimate))
    known = math.isfinite(worst.low) and math.isfinite(worst.high)
    ends = f" [{worst.low:.2f}, {worst.high:.2f}]" if known else " without an interval"
    judged_as = word([(b.low, b.high) for b in found], limit)
    return f"{said}: {judged_as}, {worst.estimate:.2f}{ends} in {worst.place}"


def _bounds(values: Values, of: Evaluation, metric: str) -> list[_Bound]:
    return [b for style in styles(of.values) for b in _at_both_signs(values, style, metric)]


def _at_both_signs(values: Values, style: str, metric: str) -> list[_Bound]:
    found = []
    for sign, name in ((names.TOWARD, "+"), (names.AWAY, "-")):
        value = values.get((style, metric, sign))
        if value is not None and value.estimate is not None:
            low = -math.inf if value.low is None else value.low
            high = math.inf if value.high is None else value.high
            found.append(_Bound(f"{style} at {name}", value.estimate, low, high))
    return found


def _guarantees(values: Values) -> list[str]:
    """What share of such items, texts and facts behaves like those measured."""
    lines = []
    for (style, metric, setting), value in values.items():
        if value.estimate is None or value.low is None or value.high is None:
            continue
        found = Estimate(value.estimate, value.low, value.high, value.n)
        if setting == names.SHARE and style != names.OWN_PAIRS:
            where = f"{style}, {metric}: " if metric != names.PROPENSITY else f"{style}: "
            line = at_least(found, "moved the right way", "of such items do")
        elif metric in (names.LOST, names.LOOSE):
            where = f"{style} at {'+' if setting == names.TOWARD else '-'}: "
            line = at_most(found, f"{metric}", "of such ones are")
        else:
            continue
        lines += [where + line] if line else []
    return lines


def _moved(values: Values) -> str:
    known = _joined(values, names.NEUTRAL, names.KL)
    random = _estimate(values, names.NEUTRAL, names.KL, names.RANDOM)
    control = "" if random is None else f" (random directions: {random:.2f})"
    return f"the next token of neutral prompts moves by {known} nats{control}" if known else ""


def _perplexity(values: Values) -> str:
    groups = (names.ON_TOPIC, names.OWN_TEXTS, names.OFF_TOPIC)
    known = {style: _joined(values, style, names.PERPLEXITY) for style in groups}
    parts = "; ".join(f"{style} {ratios}" for style, ratios in known.items() if ratios)
    return f"perplexity of given texts, relative to the baseline: {parts}" if parts else ""


def _own_pairs(values: Values) -> str:
    slope = values.get((names.OWN_PAIRS, names.STEERABILITY, names.RANGE))
    anti = _estimate(values, names.OWN_PAIRS, names.ANTI, names.RANGE)
    if slope is None or slope.estimate is None or anti is None:
        return ""
    return (
        f"{names.OWN_PAIRS}: steerability {interval(slope)} nats per dose, "
        f"{anti:.0%} of the pairs anti-steerable"
    )


def _estimate(values: Values, style: str, metric: str, setting: str) -> float | None:
    value = values.get((style, metric, setting))
    return None if value is None else value.estimate


def _joined(values: Values, style: str, metric: str) -> str:
    """The estimates at +c and -c, without those that are undefined."""
    found = (_estimate(values, style, metric, sign) for sign in (names.TOWARD, names.AWAY))
    return " and ".join(f"{x:.2f}" for x in found if x is not None)


def _and(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
