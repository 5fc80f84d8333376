"""Calibration: at which layer and how strongly a vector works, or that it works nowhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from steerlab.core.recipe import Contrast
from steerlab.core.results import Calibration
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, BadPrompts
from steerlab.evaluation.calibration.effects import Attribute, Measure, Propensity
from steerlab.evaluation.calibration.held_out import Pair, Source, source_of
from steerlab.evaluation.calibration.search import Options, Search
from steerlab.evaluation.calibration.side_effects import NEUTRAL
from steerlab.evaluation.calibration.trials import Steps, Trials
from steerlab.evaluation.metrics.items import ContrastItem, items_of_pairs
from steerlab.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.extraction.readings import Readings
    from steerlab.lab.lab import Lab

_LEAST_ITEMS = 3  # one to report on, one to choose on, one to make the vector of
_ITEMS = 16


def calibrate(
    lab: Lab,
    vector: SteeringVector,
    *,
    items: Sequence[ContrastItem] | None = None,
    chat: bool = False,
    metric: Metric | None = None,
    prompts: Sequence[str] = NEUTRAL,
    layers: LayerChoice = None,
    options: Options | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Calibration:
    """Find layer and dose of a vector, with the effect on items that the choice has not seen.

    items: contrast items (chat: their prompts are messages); None takes the vector's own pairs,
        each scored under a vector made without it. metric: instead, an attribute of the texts
        written after `prompts`.
    layers: to choose from; None takes the vector's own if there are several, else all that its
        recipe can make. The last fifth of the model is never taken.
    progress: called with (done, total), of which the last call has both the same.

    A vector works if its held-out signed range S(+d) - S(-d) beats that of random directions of
    the same norm: z at or above `critical_z`, and a 95% interval above zero.
    Raises BadPrompts without held-out items, Incompatible without a dose, Cancelled once
    should_stop() says so; nothing is stored here.
    """
    options = options or Options()
    lm = lab.load(vector)
    candidates = _candidates(lab, vector, layers)
    vector.coefficient(1.0)  # without a residual norm or a direction there is no dose
    if vector.scope == "front" and set(candidates) - set(vector.layers):
        vector = lab.at_layers(vector, candidates)
    steps = Steps(progress, should_stop)

    def read(recipe: Contrast, wanted: Sequence[int]) -> Readings:
        from steerlab.extraction import runner

        with lm.lock:
            return runner.read(lm, recipe, wanted, steps.part(2), should_stop)[1]

    source = source_of(lm, vector, candidates, lambda ref: lab.operand(vector, ref), read)
    crossed: Sequence[Pair] = ()
    measure: Measure
    if metric is not None:
        measure = Attribute(
            lab,
            metric,
            prompts,
            seed=options.seed,
            bos=vector.scope == "front",
            allow_other_weights=options.allow_other_weights,
        )
    else:
        if items is None:
            crossed = _pairs(vector, source, options.seed)
            items, chat = items_of_pairs(lm, crossed, chat=_chat(vector, lab)), False
        measure = Propensity(
            lab,
            items,
            chat=chat,
            bos=vector.scope == "front",
            allow_other_weights=options.allow_other_weights,
        )
    _check_count(measure.count)
    trials = Trials(source, measure, crossed, options.seed, steps)
    return Search(lab, vector, trials, candidates, options).run()


def _candidates(lab: Lab, vector: SteeringVector, layers: LayerChoice) -> list[int]:
    """The layers to choose from, the model's last fifth left out."""
    lm = lab.model
    if layers is not None:
        wanted = lm.layers(layers)
        lacking = [b for b in wanted if b not in vector.directions]
        if lacking and not lab.extends(vector):
            lab.at_layers(vector, wanted)  # says why it can't be made
    elif len(vector.layers) > 1 or not lab.extends(vector):
        wanted = list(vector.layers)
    else:
        wanted = lm.layers("all")
    last = math.ceil(0.8 * lm.n_layers)
    found = [b for b in wanted if b < last]
    if not found:
        raise BadOption(
            f"layer {wanted[0]} and all after it are in the last fifth of {lm.source}'s "
            f"{lm.n_layers} layers, where a vector is little more than a bias of the logits: "
            f"choose from 0 to {last - 1}"
        )
    return found


def _pairs(vector: SteeringVector, source: Source, seed: int) -> list[Pair]:
    """The vector's own pairs that become items; each once, and not too many."""
    found = list({frozenset(pair): pair for pair in source.pairs}.values())
    if len(found) < _LEAST_ITEMS:
        count = f"of {len(found)} contrast pairs" if found else "without contrast pairs of its own"
        raise BadPrompts(
            f"no held-out items: {vector} is {count}, and {_LEAST_ITEMS} are needed to leave some "
            "out: give a file of prompt, positive and negative (--items), or a metric (--metric)"
        )
    if len(found) > _ITEMS:
        chosen = np.random.default_rng(seed).choice(len(found), _ITEMS, replace=False)
        found = [found[i] for i in sorted(chosen)]
    return found


def _chat(vector: SteeringVector, lab: Lab) -> bool:
    """Whether the pairs are messages: those of the vector's recipe, or of its first operand."""
    recipe = vector.recipe
    while not isinstance(recipe, Contrast):
        operands = getattr(recipe, "operands", ())
        if not operands:
            return False
        recipe = lab.store.load(operands[0].ref, vector.model).recipe
    return recipe.chat


def _check_count(count: int) -> None:
    if count < _LEAST_ITEMS:
        raise BadPrompts(
            f"no held-out items: of {count}, none is left to report on once layer and dose are "
            f"chosen: {_LEAST_ITEMS} are needed"
        )
