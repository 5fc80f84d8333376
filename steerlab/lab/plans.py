"""Plans of sweeps on a model: their settings, and the digest by which equal plans are known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from steerlab.core.recipe import ModelIdentity, recipe_to_json
from steerlab.core.record import canonical_json
from steerlab.core.setting import settings_of
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.core.vector import SteeringVector


def planned(
    plan: SweepPlan, vector: SteeringVector, at: SteeringVector, identity: ModelIdentity
) -> Sweep:
    """The sweep of a plan on this model, without cells; at: the vector at the plan's layers."""
    expression = plan.vector if isinstance(plan.vector, str) else str(vector)
    settings = settings_of(at, doses=plan.doses, coefficients=plan.coefficients, label=expression)
    return Sweep(
        plan_digest=_digest(plan, vector, identity, at.layers),
        expression=expression,
        digest=vector.digest,
        model=identity.source,
        model_key="/".join(map(str, identity.key)),
        strength=plan.strength,
        settings=tuple(setting.without_vector() for setting in settings),
        prompts=tuple(plan.prompts),
        seeds=tuple(plan.seeds),
        positions=plan.positions,
        sampling=plan.sampling,
    )


def _digest(
    plan: SweepPlan, vector: SteeringVector, identity: ModelIdentity, layers: Sequence[int]
) -> str:
    """sha256 of everything that decides the texts, in any order.

    The recipe is part of it only where missing layers were made from it.
    """
    anew = any(layer not in vector.directions for layer in layers)
    decides = {
        "format": "steerlab.sweep.1",
        "vector": vector.digest,
        "recipe": recipe_to_json(vector.recipe) if anew else None,
        "model": [*identity.key, identity.dtype, identity.tokenizer],
        "chat_template": identity.chat_template if plan.sampling.chat else None,
        "layers": sorted(layers),
        plan.strength: sorted(plan.strengths),
        "prompts": sorted(plan.prompts),
        "seeds": sorted(plan.seeds),
        "positions": plan.positions,
        "sampling": plan.sampling.options(),
    }
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()
