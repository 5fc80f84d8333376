"""From a request's steering to what is added: stored vectors at their strengths, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steerlab.core.direction import SMALLEST
from steerlab.errors import BadOption, ModelMismatch
from steerlab.lab.operating_point import all_beyond_safe
from steerlab.serving.request import Steer

if TYPE_CHECKING:
    from steerlab.core.recipe import ModelIdentity
    from steerlab.core.setting import Setting
    from steerlab.core.vector import SteeringVector
    from steerlab.interventions.injection import Injection
    from steerlab.lab.lab import Lab


@dataclass(frozen=True)
class Resolved:
    """What a request adds to the stream. told: each vector as it was used, as JSON values."""

    injections: tuple[Injection, ...] = ()
    told: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_front(self) -> bool:
        """Whether a front vector is among them, so that the prompt must begin with BOS."""
        return any(one.vector.scope == "front" for one in self.injections)


def resolve(lab: Lab, here: ModelIdentity, steers: Sequence[Steer]) -> Resolved:
    """Find the vectors in the store, each at its layers and strength; the model is loaded.

    Raises NotFound with the closest names, ModelMismatch for a vector of another model, and what
    an expression or a strength raises.
    """
    from steerlab.core.setting import Setting
    from steerlab.interventions.injection import Injection

    injections, told, warnings = [], [], []
    for steer in steers:
        vector = evaluated(lab, here, steer.vector)
        steer.check(vector)
        point = lab.operating_point(vector, steer.layers, here=here)
        coefficient = point.coefficient
        if steer.dose is not None:
            coefficient = point.vector.coefficient(steer.dose)
        elif steer.coefficient is not None:
            coefficient = steer.coefficient
        setting = Setting(point.vector, coefficient, steer.vector)
        injections.append(Injection(point.vector, coefficient, steer.positions))
        told.append({"digest": vector.digest} | _told(steer, setting))
        warnings += all_beyond_safe(lab.store, vector, [setting])
    return Resolved(tuple(injections), tuple(told), tuple(warnings))


def _told(steer: Steer, setting: Setting) -> dict[str, Any]:
    """What was added, as JSON values."""
    return {
        "vector": steer.vector,
        "layers": list(setting.layers),
        "coefficient": setting.coefficient,
        "dose": setting.dose,
        "positions": steer.positions,
        "operation": steer.operation,
    }


def watched(lab: Lab, here: ModelIdentity, names: Sequence[str]) -> dict[str, Any]:
    """For each expression the layer to read and the direction scaled to units of dose.

    name -> (layer, (d_model,) float64); a vector of several layers is read at its calibrated
    one, or refused. Their product with the residual stream h is `h · v / (‖v‖ · median ‖h‖)`.
    """
    found = {}
    for name in names:
        point = lab.operating_point(evaluated(lab, here, name), here=here)
        vector = point.vector
        if vector.scope == "front" or len(vector.layers) != 1:
            raise BadOption(
                f"{name} can't be watched: it has no single layer; say which, as in {name}[15]"
            )
        (layer,) = vector.layers
        direction, median = vector.directions[layer][0], vector.residual_norms.get(layer)
        size = float(np.linalg.norm(direction))
        if not median or size < SMALLEST:
            raise BadOption(f"{name} has no dose: it is zero, or its residual norm is unknown")
        found[name] = (layer, direction / (size * median))
    return found


def evaluated(lab: Lab, here: ModelIdentity, expression: str) -> SteeringVector:
    """The vector of an expression, of this very model."""
    from steerlab.interventions.hooks import check_fits

    vector = lab.evaluate(expression)
    try:
        check_fits(vector, here, allow_other_weights=False)
    except ModelMismatch as error:
        raise ModelMismatch(str(error).partition(": pass allow")[0]) from None
    return vector
