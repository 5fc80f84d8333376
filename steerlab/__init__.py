"""steerlab: where steering vectors live.

    from steerlab import LanguageModel, steering
    from steerlab.vectors import love, anger

    lm = LanguageModel.load("smollm2")
    with steering(lm, love - anger, coefficient=2.0):
        print(lm.generate("I think you are a"))

Every public name is imported on first use, so `import steerlab` costs next to nothing and
torch is loaded only by what runs a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from steerlab.errors import SteerlabError
    from steerlab.evaluation.calibration.calibrate import calibrate
    from steerlab.evaluation.carryover.evaluate import evaluate
    from steerlab.evaluation.inspection.difference import difference
    from steerlab.evaluation.inspection.inspect import inspect
    from steerlab.expression import compose
    from steerlab.lab import Lab
    from steerlab.model import LanguageModel
    from steerlab.registry import Store
    from steerlab.steer import Injection, steering
    from steerlab.sweep import SweepPlan
    from steerlab.vector import SteeringVector, mean, project, random_like, reject, unit

_HOMES = {
    "Injection": "steer",
    "Lab": "lab",
    "LanguageModel": "model",
    "SteeringVector": "vector",
    "SteerlabError": "errors",
    "Store": "registry",
    "SweepPlan": "sweep",
    "calibrate": "evaluation.calibration.calibrate",
    "compose": "expression",
    "difference": "evaluation.inspection.difference",
    "evaluate": "evaluation.carryover.evaluate",
    "inspect": "evaluation.inspection.inspect",
    "mean": "vector",
    "project": "vector",
    "random_like": "vector",
    "reject": "vector",
    "steering": "steer",
    "unit": "vector",
}

__all__ = [
    "Injection",
    "Lab",
    "LanguageModel",
    "SteeringVector",
    "SteerlabError",
    "Store",
    "SweepPlan",
    "calibrate",
    "compose",
    "difference",
    "evaluate",
    "inspect",
    "mean",
    "project",
    "random_like",
    "reject",
    "steering",
    "unit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'steerlab' has no attribute {name!r}")
    value = getattr(import_module(f"steerlab.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
