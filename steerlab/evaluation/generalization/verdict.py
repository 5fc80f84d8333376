"""The verdict on an evaluation, in words: each sentence follows from intervals and controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from steerlab.core.results import Evaluation, Measured
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.statistics import CONTROLS, critical_z

FLUENCY_LIMIT = 1.5
DISTINCT_LIMIT = 0.9  # of the baseline's
FACTS_LIMIT = 0.05  # a loss of P@1 that is worth a word even where it may be chance

_NOT_EFFECTS = (*names.PRICES, names.STEERABILITY, names.ANTI)
_NOT_STYLES = (names.NEUTRAL, names.ON_TOPIC, names.OFF_TOPIC, names.FACTS, names.OWN_TEXTS)


class Finding(Enum):
    """What an effect comes to."""

    CARRIES = "carries over"
    REVERSED = "is reversed"
    CHANCE = "within its control"
    NOTHING = "no effect"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Judged:
    """A style's effect in a metric, and what it comes to; text: the figures behind it."""

    style: str
    metric: str
    finding: Finding
    text: str


Values = Mapping[tuple[str, str, str], Measured]


def by_name(values: Iterable[Measured]) -> Values:
    """Values by (style, metric, setting)."""
    return {(v.style, v.metric, v.setting): v for v in values}


def effect_metrics(values: Iterable[Measured]) -> tuple[str, ...]:
    """The metrics that say what a vector does, in their order; prices are left out."""
    return tuple(dict.fromkeys(v.metric for v in values if v.metric not in _NOT_EFFECTS))


def styles(values: Iterable[Measured]) -> tuple[str, ...]:
    """The styles that something was written in or chosen between, in their order."""
    return tuple(dict.fromkeys(v.style for v in values if v.style not in _NOT_STYLES))


def judge(values: Values, style: str, metric: str) -> Judged:
    """The rule. An effect carries over where all of these hold:

    the 95% interval of its signed range excludes zero; its z against random directions of the
    same norm reaches CLEAR_Z, in the same direction; and, where there is a shuffled control,
    the interval of what it has beyond that lies above zero.
    """
    effect = values.get((style, metric, names.RANGE))
    if effect is None or effect.estimate is None or effect.low is None or effect.high is None:
        return Judged(style, metric, Finding.UNKNOWN, "no value with an interval")
    size = interval(effect)
    if effect.low <= 0 <= effect.high:
        return Judged(style, metric, Finding.NOTHING, f"{size} holds 0")
    z = values.get((style, metric, names.Z))
    if z is None or z.estimate is None:
        return Judged(style, metric, Finding.CHANCE, f"{size}, and no control to compare with")
    sign = 1 if effect.estimate > 0 else -1
    if sign * z.estimate < critical_z(max(z.n, CONTROLS)):
        return Judged(
            style,
            metric,
            Finding.CHANCE,
            f"{size} is within random directions: z {z.estimate:+.1f}",
        )
    beyond = values.get((style, metric, names.BEYOND))
    if beyond is not None and not (beyond.low is not None and beyond.low > 0):
        return Judged(style, metric, Finding.CHANCE, f"{size} is within shuffled labels")
    found = Finding.CARRIES if sign > 0 else Finding.REVERSED
    return Judged(style, metric, found, f"{size}, z {z.estimate:+.1f}")


def judged(of: Evaluation) -> list[Judged]:
    """Every style and effect that was measured, own pairs left out: those are not held out."""
    values = by_name(of.values)
    return [
        judge(values, style, metric)
        for metric in effect_metrics(of.values)
        for style in styles(of.values)
        if style != names.OWN_PAIRS and (style, metric, names.RANGE) in values
    ]


def verdict(of: Evaluation) -> list[str]:
    """What an evaluation says, a sentence each: effects first, then what they cost."""
    values = by_name(of.values)
    found = judged(of)
    lines = [_effect(metric, found) for metric in dict.fromkeys(j.metric for j in found)]
    lines += [_fluency(values, of), _distinct(values, of), _facts(values)]
    lines += [_moved(values), _perplexity(values), _own_pairs(values)]
    return [line for line in lines if line]


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
    if carried := kinds.get(Finding.CARRIES):
        parts.append(f"carries over to {_listed(carried)}")
    if turned := kinds.get(Finding.REVERSED):
        parts.append(f"is reversed in {_listed(turned)}")
    missed = [*kinds.get(Finding.CHANCE, ()), *kinds.get(Finding.NOTHING, ())]
    if missed:
        where = _listed(missed)
        parts.append(f"not to {where}" if carried else f"does not carry over to {where}")
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
    found = _at_both_signs(values, of, names.FLUENCY)
    known = [(where, v.estimate) for where, v in found if v.estimate is not None]
    if not known:
        return ""
    over = [f"{ratio:.2f} times in {where}" for where, ratio in known if ratio > FLUENCY_LIMIT]
    if over:
        return f"fluency suffers: the perplexity of what is written grows {_and(over)}"
    where, ratio = max(known, key=lambda pair: pair[1])
    return f"text stays fluent: perplexity ratio at most {ratio:.2f} ({where})"


def _distinct(values: Values, of: Evaluation) -> str:
    found = _at_both_signs(values, of, names.DISTINCT)
    low = []
    for (where, change), style in zip(found, (v.style for _, v in found), strict=True):
        plain = values.get((style, names.DISTINCT, names.BASELINE))
        if plain is None or plain.estimate is None or change.estimate is None:
            continue
        if plain.estimate + change.estimate < DISTINCT_LIMIT * plain.estimate:
            low.append(f"{plain.estimate + change.estimate:.2f} in {where}")
    if low:
        return f"text repeats itself: distinct-2 falls to {_and(low)}"
    return "text does not repeat itself more than the baseline" if found else ""


def _facts(values: Values) -> str:
    plain = values.get((names.FACTS, names.P1, names.BASELINE))
    if plain is None or plain.estimate is None:
        return ""
    signs = [values.get((names.FACTS, names.P1, sign)) for sign in (names.TOWARD, names.AWAY)]
    known = [change for change in signs if change is not None and change.estimate is not None]
    steered = " and ".join(f"{plain.estimate + (c.estimate or 0):.2f}" for c in known)
    figures = f"P@1 {plain.estimate:.2f} -> {steered}"
    if any(change.high is not None and change.high < 0 for change in known):
        return f"facts lost: {figures}"
    if any((change.estimate or 0) < -FACTS_LIMIT for change in known):
        return f"facts perhaps lost, perhaps chance: {figures}, n {plain.n}"
    return f"facts kept: {figures}"


def _moved(values: Values) -> str:
    signs = [values.get((names.NEUTRAL, names.KL, s)) for s in (names.TOWARD, names.AWAY)]
    known = [f"{v.estimate:.2f}" for v in signs if v is not None and v.estimate is not None]
    random = values.get((names.NEUTRAL, names.KL, names.RANDOM))
    if not known:
        return ""
    beside = ""
    if random is not None and random.estimate is not None:
        beside = f" (random directions: {random.estimate:.2f})"
    return f"neutral beginnings move by {' and '.join(known)} nats{beside}"


def _perplexity(values: Values) -> str:
    parts = []
    for style in (names.ON_TOPIC, names.OWN_TEXTS, names.OFF_TOPIC):
        signs = [values.get((style, names.PERPLEXITY, s)) for s in (names.TOWARD, names.AWAY)]
        known = [f"{v.estimate:.2f}" for v in signs if v is not None and v.estimate is not None]
        if known:
            parts.append(f"{style} {' and '.join(known)}")
    return f"perplexity of given texts, times: {'; '.join(parts)}" if parts else ""


def _own_pairs(values: Values) -> str:
    slope = values.get((names.OWN_PAIRS, names.STEERABILITY, names.RANGE))
    anti = values.get((names.OWN_PAIRS, names.ANTI, names.RANGE))
    if slope is None or slope.estimate is None or anti is None or anti.estimate is None:
        return ""
    return (
        f"{names.OWN_PAIRS}: steerability {interval(slope)} nats per dose, "
        f"{anti.estimate:.0%} of the pairs anti-steerable"
    )


def _at_both_signs(values: Values, of: Evaluation, metric: str) -> list[tuple[str, Measured]]:
    """The metric at +c and -c of every style, with where that is."""
    found = []
    for style in styles(of.values):
        for sign, setting in (("+", names.TOWARD), ("-", names.AWAY)):
            if (style, metric, setting) in values:
                found.append((f"{style} at {sign}", values[style, metric, setting]))
    return found


def _and(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
