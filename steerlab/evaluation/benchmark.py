"""The benchmark: the starter concepts extracted, calibrated and evaluated on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.core.recipe import Contrast
from steerlab.core.results import Calibration, Evaluation, defined
from steerlab.core.vector import SteeringVector
from steerlab.errors import NotFound
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Curve
from steerlab.evaluation.calibration.curve import verdict as calibrated
from steerlab.evaluation.calibration.effects import Propensity
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.evaluate import evaluate
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.generalization.verdict import Finding, judged
from steerlab.evaluation.generalization.verdict import verdict as evaluated
from steerlab.evaluation.guarantee import share_moved
from steerlab.lab.starter import extract, starters
from steerlab.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

Watching = Callable[[str], Progress | None]
"""Gives the progress of a step by its name."""


@dataclass(frozen=True)
class Result:
    """A concept on a model. evaluation: None if it was not asked for, or if nothing works."""

    vector: SteeringVector
    calibration: Calibration
    evaluation: Evaluation | None = None

    def to_json(self) -> dict[str, Any]:
        """One row of the table, and both verdicts.

        Effect, controls and z are those of the operating point, or the held-out ones if nothing
        works. moved: at least this share of such items moves the right way (95%). kl, fluency:
        at the dose. shown: styles of text in which an effect is shown, of those measured.
        """
        curve, found = Curve.of(self.calibration), self.calibration
        at = (curve.point if found.works else None) or curve.held
        cost = next((p.cost for p in curve.points if p.dose == found.dose), None)
        effects = judged(self.evaluation) if self.evaluation is not None else []
        styles = [j.finding for j in effects if j.style != names.ALL]
        controls = {"random": at.controls, "shuffled": at.shuffled}
        return {
            "vector": str(self.vector),
            "model": self.vector.model.source,
            "works": found.works,
            "layer": curve.layer,
            "dose": found.dose,
            "effect": defined(at.effect.mean),
            "interval": [defined(at.effect.low), defined(at.effect.high)],
            **{
                name: c and {"mean": defined(c.mean), "sd": defined(c.sd), "n": c.n}
                for name, c in controls.items()
            },
            "z": at.z,
            "items": curve.items,
            "moved": defined(share_moved((*curve.held.values, *curve.added)).low),
            "safe": found.safe,
            "kl": cost and cost.kl,
            "fluency": cost and cost.fluency,
            "shown": [styles.count(Finding.GENERALIZES), len(styles)] if styles else None,
            "verdict": calibrated(found),
            "evaluation": evaluated(self.evaluation) if self.evaluation is not None else None,
        }


def benchmark(
    lab: Lab,
    concepts: Sequence[str] = (),
    *,
    options: Options | None = None,
    plan: EvaluationPlan | None = None,
    watching: Watching | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[Result]:
    """Extract, calibrate and evaluate starter concepts on the lab's model, and store each step.

    A step that the store has, made as it would be now, is not repeated, so that an interrupted
    benchmark goes on where it was. concepts: names of starter vectors; empty takes all. plan: None
    evaluates nothing.
    watching: called with the name of each step, for its progress.
    Raises NotFound for a concept that is none, Cancelled, and the errors of the three.
    """
    concepts, options = chosen(concepts), options or Options()
    results, watching = lab.store.results, watching or (lambda step: None)
    for name in concepts:
        vector = extracted(lab, name)
        found = results.calibration_of(vector.digest)
        if found is None or not made_so(found, options):
            progress = watching(f"{name}: calibrating")
            made = calibrate(
                lab, vector, options=options, progress=progress, should_stop=should_stop
            )
            found = results.save_calibration(made)
        evaluation = None
        if plan is not None and found.works:
            kept = (e for e in results.evaluations(str(vector), model=vector.model))
            wanted = {
                "plan": plan.to_json(),
                "layers": [found.layer],
                "coefficient": abs(found.coefficient or 0.0),
            }
            evaluation = next((e for e in kept if wanted.items() <= (e.data or {}).items()), None)
            if evaluation is None:
                progress = watching(f"{name}: evaluating")
                evaluation = evaluate(lab, vector, plan, progress=progress, should_stop=should_stop)
        yield Result(vector, found, evaluation)


def made_so(found: Calibration, options: Options) -> bool:
    """Whether a calibration is one on the vector's own pairs, of several layers, by these options.

    The newest calibration of a vector may have been made for something else.
    """
    curve = Curve.of(found)
    return (
        curve.measure == Propensity.name
        and curve.crossed
        and len(curve.layers) > 1
        and {abs(p.dose) for p in curve.points} == set(options.doses)
        and (curve.held.controls.n, curve.limits, curve.seed)
        == (options.controls, options.limits, options.seed)
    )


def chosen(concepts: Sequence[str]) -> Sequence[str]:
    """The named starter concepts, or all; raises NotFound for one that is none."""
    for name in concepts:
        if name not in starters():
            raise NotFound(f"no starter concept {name}: there are {', '.join(starters())}")
    return concepts or tuple(starters())


def extracted(lab: Lab, name: str) -> SteeringVector:
    """The starter concept on the lab's model, stored under its name; extracted if need be."""
    entry, lm = starters()[name], lab.model
    try:
        known = lab.store.load(name, lm.identity)
        recipe = known.recipe
        if isinstance(recipe, Contrast) and (recipe.positive, recipe.negative, recipe.method) == (
            entry.positive,
            entry.negative,
            "mean_difference",
        ):
            return known
    except NotFound:
        pass
    return extract(lab, name, lm.n_layers // 2)
