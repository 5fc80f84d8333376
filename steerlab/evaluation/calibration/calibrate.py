"""Calibration: find the layer and dose at which a vector works, or show that it works nowhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from steerlab.core.arguments import checks_names
from steerlab.core.display import count
from steerlab.core.recipe import Contrast
from steerlab.core.results import Calibration
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, BadPrompts
from steerlab.evaluation.calibration.effects import Attribute, Measure, Propensity
from steerlab.evaluation.calibration.held_out import Pair, Source, source_in
from steerlab.evaluation.calibration.more import different, keys
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.calibration.search import Search
from steerlab.evaluation.calibration.side_effects import NEUTRAL
from steerlab.evaluation.calibration.trials import Trials
from steerlab.evaluation.metrics.items import ContrastItem, items_of_pairs
from steerlab.progress import Parts, Progress, ShouldStop, Watch, with_bar

if TYPE_CHECKING:
    from steerlab.core.notation import LayerChoice
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab

LEAST_ITEMS = 3  # one to report on, one to choose on, one to make the vector from
_ITEMS = 16
_WHOLE = 155  # of progress: what its parts took when they were timed


@checks_names()
@with_bar("calibrating")
def calibrate(
    lab: Lab,
    of: str | SteeringVector,
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
    """Find the layer and dose of a vector, and its effect on items that the choice has not seen.

    of: a vector, or an expression over stored vectors.
    items: contrast items (chat: their prompts are messages); None takes the vector's own pairs,
        each scored under a vector made without it. metric: judge the texts written after
        `prompts` instead.
    layers: to choose from; None takes the vector's own if there are several, else all that its
        recipe can make. The last fifth of the model is never chosen.
    progress: called with (done, total); done equals total in the last call.

    A vector works if its held-out signed range S(+d) - S(-d) beats that of random directions
    and shuffled labels with the same norm: z at least `HeldOutEffect.critical`, and a 95% interval
    above zero. Nothing is stored.
    Raises BadPrompts without held-out items, Incompatible without a dose, Cancelled.
    """
    from steerlab.models.fast_layers import packing

    options = options or Options()
    vector = lab.evaluate(of) if isinstance(of, str) else of
    lm = lab.load(vector)
    candidates = _candidates(lab, vector, layers)
    vector.coefficient(1.0)  # raises without a residual norm or with a zero direction
    parts = Parts(progress, _WHOLE)

    def watch() -> Watch:
        return {"progress": parts.part(2), "should_stop": should_stop}

    source = source_in(lab, vector, candidates, watch)
    crossed: Sequence[Pair] = ()
    measure: Measure
    how: dict[str, bool] = {
        "bos": vector.scope == "front",
        "allow_other_weights": options.allow_other_weights,
    }
    if metric is not None:
        measure = Attribute(lab, metric, prompts, seed=options.seed, **how)
    else:
        if items is None:
            crossed = _pairs(vector, source, options.seed)
            items, chat = items_of_pairs(lm, crossed, chat=_chat(vector, lab)), False
        else:
            items = different(items)
        measure = Propensity(lab, items, chat=chat, **how)
    _check_count(measure.count)
    trials = Trials(source, measure, crossed, options.seed, parts, should_stop)
    known = () if crossed or metric is not None else keys(items or ())
    with packing(lm.model):
        return Search(lab, vector, trials, candidates, options, tuple(known)).run()


def _candidates(lab: Lab, vector: SteeringVector, layers: LayerChoice) -> list[int]:
    """The layers to choose from, without the model's last fifth."""
    lm = lab.model
    extends = vector.model.has_weights_of(lm.identity) and lab.extends(vector)
    if layers is not None:
        wanted = lm.layers(layers)
        lacking = [b for b in wanted if b not in vector.directions]
        if lacking and not extends:
            lab.at_layers(vector, wanted)  # raises, with the reason
    elif len(vector.layers) > 1 or not extends:
        wanted = list(vector.layers)
    else:
        wanted = lm.layers("all")
    last = math.ceil(0.8 * lm.n_layers)
    found = [b for b in wanted if b < last]
    if not found:
        raise BadOption(
            f"layer {wanted[0]} is in the last fifth of {lm.source}'s {lm.n_layers} layers, where "
            f"a vector is little more than a bias of the logits: choose layers 0 to {last - 1}"
        )
    return found


def _pairs(vector: SteeringVector, source: Source, seed: int) -> list[Pair]:
    """Up to 16 of the vector's own pairs, each once, as items."""
    found = list({frozenset(pair): pair for pair in source.pairs}.values())
    if len(found) < LEAST_ITEMS:
        if isinstance(vector.recipe, Contrast) and (named := vector.recipe.prompt_set) is not None:
            raise BadPrompts(
                f"no held-out items: the pairs of {vector} are many, in {named.path}: give a few "
                "others (--items), a metric (--metric), or extract it with --embed-prompts"
            )
        owned = f"only {count(len(found), 'contrast pair')}" if found else "no contrast pairs"
        raise BadPrompts(
            f"no held-out items: {vector} has {owned} of its own, and leaving some out takes "
            f"{LEAST_ITEMS}: give a file of prompt, positive and negative (--items), or a metric "
            "(--metric)"
        )
    if len(found) > _ITEMS:
        chosen = np.random.default_rng(seed).choice(len(found), _ITEMS, replace=False)
        found = [found[i] for i in sorted(chosen)]
    return found


def _chat(vector: SteeringVector, lab: Lab) -> bool:
    """Whether the pairs are chat messages, by the recipe of the vector or of its first operand."""
    recipe = vector.recipe
    while not isinstance(recipe, Contrast):
        operands = getattr(recipe, "operands", ())
        if not operands:
            return False
        recipe = lab.store.load(operands[0].ref, vector.model).recipe
    return recipe.chat


def _check_count(found: int) -> None:
    if found < LEAST_ITEMS:
        raise BadPrompts(
            f"no held-out items: {count(found, 'different item')} are too few to choose layer and "
            f"dose on some and report on others: give at least {LEAST_ITEMS}"
        )
