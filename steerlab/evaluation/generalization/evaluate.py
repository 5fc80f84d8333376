"""Evaluation: does a vector's effect generalize to other styles of text, and at what cost?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steerlab.core.arguments import checks_names
from steerlab.core.direction import Scope
from steerlab.core.recipe import Contrast, Recipe
from steerlab.core.record import software
from steerlab.core.results import Evaluation, Measured, defined
from steerlab.core.setting import is_front
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts, Cancelled, Incompatible, NotFound
from steerlab.evaluation.calibration.curve import Limits
from steerlab.evaluation.calibration.held_out import shuffled_controls, source_in
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.conditions import (
    Conditions,
    changes,
    conditions,
    effects,
    measured,
    ratios,
    shares,
    weighted,
)
from steerlab.evaluation.generalization.fitting import beginning, fitted, longer
from steerlab.evaluation.generalization.plan import TEXT_LIMIT, EvaluationPlan
from steerlab.evaluation.generalization.suite import Style, Suite, combined, suite
from steerlab.evaluation.metrics.items import ContrastItem, items_of_pairs
from steerlab.evaluation.metrics.scorers import scorer
from steerlab.evaluation.metrics.texts import METRICS, Metric
from steerlab.evaluation.statistics import Estimate, means, steerability
from steerlab.files.contrast import read_items
from steerlab.progress import Parts, Progress, ShouldStop, with_bar

if TYPE_CHECKING:
    from steerlab.core.cell import Cell
    from steerlab.evaluation.metrics.passes import How
    from steerlab.evaluation.metrics.predictions import Contribution
    from steerlab.lab.lab import Lab

Array = NDArray[np.float64]
_TOP = 8  # tokens named for a divergence
_LIKELIHOODS = 0.3  # time of all likelihoods, relative to that of writing


@checks_names()
@with_bar("evaluating")
def evaluate(
    lab: Lab,
    of: str | SteeringVector,
    plan: EvaluationPlan | None = None,
    *,
    keep: bool = True,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Evaluation:
    """Measure a vector and its controls on a suite.

    of: a vector, or an expression over stored vectors. If the plan names neither layers nor
        strength, they come from the vector's calibration, if the store has one.
    keep: store the evaluation. progress: called with (done, 1000).

    Intervals are over prompts: the texts of several seeds count as one.
    Raises BadPrompts for a bad suite, BadOption for bad metrics and strengths, Cancelled, and
    the errors of evaluating expressions, loading and steering.
    """
    from steerlab.models.fast_layers import packing

    plan = plan or EvaluationPlan()
    chosen, items, scorers = named(plan)
    made = lab.evaluate(of) if isinstance(of, str) else of
    vector, coefficient, calibrated = operating_point(lab, made, plan)
    lm = lab.load(vector)
    fits, notes = fitted(lm, chosen, vector, plan.max_new_tokens)
    parts = Parts(progress, fits.count * (1 + _LIKELIHOODS) or 1.0)
    run = _Run(lab, plan, fits, scorers, should_stop, parts, notes=notes)
    run.conditions = conditions(vector, coefficient, plan.controls, run.shuffled(made, vector))
    with packing(lm.model):
        for style in fits.styles:
            run.texts(style)
        run.together()
        run.neutral()
        run.perplexities(_on_topic(chosen, made.recipe))
        run.facts()
        run.items(made.recipe, vector.scope, items)
    run.parts.finish()
    found = Evaluation(
        digest=made.digest,
        suite=chosen.name,
        suite_digest=chosen.digest,
        model=lm.identity.source,
        model_key="/".join(map(str, lm.identity.key)),
        versions=software(),
        values=tuple(run.values),
        data={
            "vector": str(made),
            "plan": plan.to_json(),
            "layers": list(vector.layers),
            "coefficient": coefficient,
            "dose": defined(vector.dose(coefficient) or np.nan),
            "calibrated": calibrated,
            "tokens": run.tokens,
            "notes": run.notes,
        },
    )
    return lab.store.results.save_evaluation(found) if keep else found


def named(plan: EvaluationPlan) -> tuple[Suite, tuple[ContrastItem, ...], list[Metric]]:
    """Read the suite, items and metrics that a plan names; needs no model."""
    chosen = combined([suite(which) for which in plan.suites])
    read = read_items(Path(plan.items)) if plan.items else []
    items = tuple(ContrastItem(**item) for item in read)
    return chosen, items, [scorer(spec) for spec in plan.metrics]


def operating_point(
    lab: Lab, vector: SteeringVector, plan: EvaluationPlan
) -> tuple[SteeringVector, float, bool]:
    """The vector at its layers, its absolute coefficient, and whether a calibration chose them."""
    point = lab.operating_point(vector, None if plan.layers is None else list(plan.layers))
    if not point.vector.norm:
        raise Incompatible(f"{point.vector} is zero: there is nothing to measure")
    if plan.coefficient is not None:
        return point.vector, plan.coefficient, False
    if plan.dose is None and point.calibration is not None:
        return point.vector, abs(point.coefficient), True
    return point.vector, point.vector.coefficient(plan.dose or names.DOSE), False


@dataclass
class _Run:
    """An evaluation in progress; each part adds to `values` and `notes`."""

    lab: Lab
    plan: EvaluationPlan
    suite: Suite
    scorers: Sequence[Metric]
    stop: ShouldStop | None
    parts: Parts
    values: list[Measured] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tokens: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tables: dict[str, list[Array]] = field(default_factory=lambda: defaultdict(list))
    conditions: Conditions = field(init=False)

    def how(self, share: float) -> How:
        """Options of a metric that takes this share of the time of all likelihoods."""
        return {
            "allow_other_weights": self.plan.allow_other_weights,
            "should_stop": self.stop,
            "progress": self.parts.part(self.suite.count * _LIKELIHOODS * share),
        }

    def shuffled(self, made: SteeringVector, at: SteeringVector) -> list[SteeringVector]:
        """Vectors of shuffled labels at the layers of `at`; a note says why there are none."""
        try:
            source = source_in(self.lab, made, at.layers, lambda: {"should_stop": self.stop})
            found, why = shuffled_controls(source, at, self.plan.controls), source.unshuffled
        except (BadPrompts, Incompatible, NotFound) as error:
            found, why = [], str(error)
        if why:
            self.notes.append(f"no shuffled controls: {why}")
        return found

    def texts(self, style: Style) -> None:
        """Write texts after every prompt of a style, and score them."""
        if style.items:
            self._items(style.name, style.items, style.chat)
        if not style.prompts:
            return
        cells = self._written(style)
        for metric in self.scorers:
            found = self._scores(style, metric, cells)
            self.tables[metric.name].append(found)
            self.values += effects(style.name, metric.name, found, self.conditions)
        for metric in (METRICS[names.DISTINCT], METRICS[names.RUN]):
            if metric not in self.scorers:
                found = self._scores(style, metric, cells, silent=True)
                self.values += changes(style.name, metric.name, found, self.conditions)
        self._fluency(style, cells)

    def together(self) -> None:
        """The effects over the prompts of all styles, if there are several."""
        for metric, tables in self.tables.items():
            if len(tables) > 1:
                whole = np.concatenate(tables, axis=1)
                self.values += effects(names.ALL, metric, whole, self.conditions)

    def _written(self, style: Style) -> list[list[Cell]]:
        """Texts: [setting][prompt, seed]."""
        cells = self.lab.compare(
            style.prompts,
            self.conditions.settings,
            seeds=range(self.plan.seeds),
            chat=style.chat,
            should_stop=self.stop,
            progress=self.parts.part(len(style.prompts)),
            **self.plan.sampling,
        )
        ways = len(self.conditions.settings)
        whole = len(style.prompts) * self.plan.seeds * ways
        if len(cells) < whole or any(c.finish == "cancelled" for c in cells):
            raise Cancelled("cancelled: nothing was stored")
        return [cells[i::ways] for i in range(ways)]

    def _scores(
        self, style: Style, metric: Metric, cells: list[list[Cell]], *, silent: bool = False
    ) -> Array:
        """Means over seeds: (n_settings, n_prompts). Notes how many texts lack a value."""
        reasons: Counter[str] = Counter()
        table = np.full((len(cells), len(cells[0])), np.nan)
        for row, column in np.ndindex(*table.shape):
            text, plain = cells[row][column].text, cells[0][column].text
            table[row, column], why = metric.explained(text, plain)
            reasons[why] += 1
        del reasons[""]
        if reasons and not silent:
            why, _ = reasons.most_common(1)[0]
            self.notes.append(
                f"{style.name}, {metric.name}: {reasons.total()} of {table.size} texts have no "
                f"value: {why}"[:300]
            )
        if metric.name == names.DISTINCT:
            table = np.nan_to_num(table, nan=0.0)  # a text without words counts as all repetition
        return _over_seeds(table, self.plan.seeds)

    def _fluency(self, style: Style, cells: list[list[Cell]]) -> None:
        """Perplexity of the beginnings of steered texts, relative to the baseline's."""
        from steerlab.evaluation.metrics.likelihood import perplexities

        own = [cell for row in cells[:3] for cell in row]
        found = perplexities(
            self.lab.model,
            [cell.prompt for cell in own],
            [cell.token_ids for cell in own],
            chat=style.chat,
            bos=is_front(self.conditions.settings),
            limit=TEXT_LIMIT,
            **self.how(0.5 / len(self.suite.styles)),
        )
        logs = np.log(found).reshape(3, -1)
        logs = _over_seeds(logs[1:] - logs[0], self.plan.seeds)
        self.values += ratios(style.name, names.FLUENCY, logs, self.conditions)
        loose = logs > np.log(Limits().fluency)
        self.values += shares(style.name, names.LOOSE, loose, ~np.isnan(logs).any(axis=0))

    def neutral(self) -> None:
        """How far the next token of neutral prompts moves, and which tokens contribute most."""
        from steerlab.evaluation.metrics.predictions import divergence

        if not self.suite.neutral:
            return
        found = divergence(
            self.lab.model, self.suite.neutral, self.conditions.settings, top=_TOP, **self.how(0.2)
        )
        made = changes(names.NEUTRAL, names.KL, found.nats, self.conditions)
        self.values += [value for value in made if value.setting != names.BASELINE]
        for sign, row in ((names.TOWARD, 1), (names.AWAY, 2)):
            self.tokens[sign] = _together(found.top[row])

    def perplexities(self, on_topic: Mapping[str, Sequence[str]]) -> None:
        """How much less likely given texts become, on and off topic."""
        from steerlab.evaluation.metrics.likelihood import perplexity_ratio

        groups = {**on_topic, names.OFF_TOPIC: self.suite.off_topic}
        for style, texts in groups.items():
            if not texts:
                continue
            ways = self.conditions.settings[1:]
            found = perplexity_ratio(self.lab.model, texts, ways, **self.how(0.1))
            with np.errstate(divide="ignore"):
                logs = np.log(found.each)
            rows = [weighted(row, n) for row, n in zip(logs, found.counts, strict=True)]
            self.values += ratios(style, names.PERPLEXITY, rows, self.conditions)

    def facts(self) -> None:
        """Whether the answers to known facts are still likely."""
        from steerlab.evaluation.metrics.predictions import answer_ranks

        if not self.suite.facts:
            return
        ways = self.conditions.settings
        ranks = answer_ranks(self.lab.model, self.suite.facts, ways, **self.how(0.1))
        for name, k in ((names.P1, 1), (names.P10, 10)):
            hits = (ranks < k).astype(np.float64)  # NaN is a miss
            self.values += changes(names.FACTS, name, hits, self.conditions)
        known, *steered = ranks[:3] < 1
        self.values += shares(names.FACTS, names.LOST, [~row for row in steered], known)

    def items(self, recipe: Recipe, scope: Scope, given: Sequence[ContrastItem]) -> None:
        """Contrast items of a file, or of the vector's own pairs if no style has any."""
        if given:
            vector = self.conditions.vector
            fit = longer(self.lab.model, given, vector, names.ITEMS, self.notes, beginning)
            self._items(names.ITEMS, fit, False)
            return
        if any(s.items for s in self.suite.styles) or not isinstance(recipe, Contrast):
            return
        if not recipe.pairs or scope == "front":  # it would reach beyond the common prompt
            return
        try:
            own = items_of_pairs(self.lab.model, recipe.pairs, chat=recipe.chat)
        except BadPrompts as error:
            self.notes.append(f"its own pairs can't be scored: {error}")
            return
        self._items(names.OWN_PAIRS, own, False)

    def _items(self, style: str, items: Sequence[ContrastItem], chat: bool) -> None:
        from steerlab.evaluation.metrics.likelihood import propensity

        if not items:
            return
        ways = self.conditions.settings
        m = propensity(self.lab.model, items, ways, chat=chat, **self.how(0.1))
        self.values += effects(style, names.PROPENSITY, m, self.conditions)
        strengths = [setting.dose for setting in self.conditions.own]
        doses = [s.coefficient for s in self.conditions.own] if None in strengths else strengths
        found = steerability([float(d or 0) for d in doses], m[:3])
        anti = found.anti_steerable
        self.values += [
            measured(style, names.STEERABILITY, names.RANGE, found.mean),
            measured(style, names.ANTI, names.RANGE, Estimate(anti, n=found.mean.n)),
        ]


def _over_seeds(table: Array, seeds: int) -> Array:
    """Means over seeds of (n_settings, n_prompts * seeds); NaN without any value."""
    return means(table.reshape(len(table), -1, seeds))


def _together(tops: Sequence[Sequence[Contribution]]) -> list[dict[str, Any]]:
    """The tokens that contribute most over all prompts, in nats per prompt."""
    nats: dict[str, float] = defaultdict(float)
    for part in (part for top in tops for part in top):
        nats[part.token] += part.nats / len(tops)
    largest = sorted(nats.items(), key=lambda entry: -entry[1])[:_TOP]
    return [{"token": token, "nats": value} for token, value in largest]


def _on_topic(suite: Suite, recipe: Recipe) -> Mapping[str, Sequence[str]]:
    """Texts on topic: the suite's, or else the positive prompts that the vector was made from."""
    if suite.on_topic:
        return {names.ON_TOPIC: suite.on_topic}
    if not isinstance(recipe, Contrast) or recipe.chat or len(recipe.positive) < 2:
        return {}
    return {names.OWN_TEXTS: recipe.positive}
