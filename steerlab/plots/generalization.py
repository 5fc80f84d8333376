"""An evaluation as plots and tables: the effect on each style with its controls, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.evaluation.calibration.curve import Controls
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.verdict import by_name, effect_metrics, judged
from steerlab.evaluation.statistics import Estimate
from steerlab.plots.values import EffectPanel, StyleEffect

if TYPE_CHECKING:
    from steerlab.core.results import Evaluation, Measured
    from steerlab.evaluation.generalization.verdict import Values

_CONTROLS = (names.RANDOM, names.Z, names.SHUFFLED, names.Z_SHUFFLED)
_EFFECT = (names.BASELINE, names.TOWARD, names.AWAY, names.RANGE, *_CONTROLS)
_RATIOS = (names.FLUENCY, names.PERPLEXITY, names.KL)  # shown without a sign
_BARE = (names.BASELINE, *_CONTROLS)  # shown without an interval
_PRICE = (names.BASELINE, names.TOWARD, names.AWAY, names.RANDOM)


def effect_panels(found: Evaluation, name: str) -> tuple[EffectPanel, ...]:
    """A panel for each metric: the signed range in each style that has one."""
    values = by_name(found.values)
    rows: dict[str, list[StyleEffect]] = {metric: [] for metric in effect_metrics(found.values)}
    for judgement in judged(found):
        style, metric = judgement.style, judgement.metric
        effect = _estimate(values.get((style, metric, names.RANGE)))
        if effect is not None:
            shuffled = values.get((style, metric, names.SHUFFLED))
            rows[metric].append(
                StyleEffect(
                    style,
                    effect,
                    _control(values, style, metric, effect),
                    None if shuffled is None else shuffled.estimate,
                    judgement.finding.value,
                )
            )
    return tuple(EffectPanel(name, metric, tuple(rows[metric])) for metric in rows if rows[metric])


def _control(values: Values, style: str, metric: str, effect: Estimate) -> Controls | None:
    """Mean and standard deviation of random directions; sd from z = (effect - mean) / sd."""
    random, z = (values.get((style, metric, setting)) for setting in (names.RANDOM, names.Z))
    if random is None or z is None or random.estimate is None or not z.estimate:
        return None
    sd = abs((effect.mean - random.estimate) / z.estimate)
    return Controls(random.estimate, sd, z.n)


def _estimate(value: Measured | None) -> Estimate | None:
    if value is None or value.estimate is None or value.low is None or value.high is None:
        return None
    return Estimate(value.estimate, value.low, value.high, value.n)


@dataclass(frozen=True)
class Table:
    """A row for each (style, metric), and for each setting an estimate and its interval.

    Both as text, empty where undefined.
    """

    caption: str
    settings: tuple[str, ...]
    rows: Mapping[tuple[str, str], tuple[tuple[str, str], ...]]


def tables(found: Evaluation) -> tuple[Table, ...]:
    """The values of an evaluation: effects, and side effects."""
    cells: dict[tuple[str, str], dict[str, Measured]] = {}
    for value in found.values:
        cells.setdefault((value.style, value.metric), {})[value.setting] = value
    effects = {key: row for key, row in cells.items() if names.RANGE in row}
    prices = {key: row for key, row in cells.items() if names.RANGE not in row}
    both = (
        _table(
            "Effects: the signed range, S(+c) − S(−c), and the same of random directions and "
            "shuffled labels",
            _EFFECT,
            effects,
        ),
        _table(
            "Side effects toward (+c) and away (−c), and those of random directions", _PRICE, prices
        ),
    )
    return tuple(table for table in both if table.rows)


def _table(
    caption: str, order: Sequence[str], rows: Mapping[tuple[str, str], Mapping[str, Measured]]
) -> Table:
    there = dict.fromkeys(setting for row in rows.values() for setting in row)
    first = [setting for setting in order if setting in there]
    others = [s for s in there if s not in order]
    settings = (*first, *others)
    texts = {key: tuple(_cell(row.get(s)) for s in settings) for key, row in rows.items()}
    return Table(caption, settings, texts)


def _cell(value: Measured | None) -> tuple[str, str]:
    """An estimate and its interval as text; changes have a sign."""
    if value is None or value.estimate is None:
        return "", ""
    sign = "" if value.setting == names.BASELINE or value.metric in _RATIOS else "+"
    bounded = value.setting not in _BARE and value.low is not None and value.high is not None
    interval = f"{value.low:{sign}.2f} to {value.high:{sign}.2f}" if bounded else ""
    return f"{value.estimate:{sign}.2f}".replace("-", "−"), interval.replace("-", "−")
