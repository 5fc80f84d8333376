"""steerlab: a registry, an algebra and a lab for steering vectors.

    from steerlab import Lab, LanguageModel, Store, steering
    from steerlab.vectors import love, anger

    lm = LanguageModel.load("smollm2")
    with steering(lm, love - anger, dose=0.15):
        print(lm.generate("I think you are a"))
    with Lab(Store(), lm).steering(love):  # at the layer and strength at which it works
        print(lm.generate("I think you are a"))

Public names are imported on first use: `import steerlab` is cheap, and torch is loaded only by
what runs a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steerlab.core import above as _above
from steerlab.core.version import __version__ as __version__

if TYPE_CHECKING:
    from steerlab.core.algebra import mean, project, random_like, reject, unit
    from steerlab.core.expression import compose
    from steerlab.core.sweep import SweepPlan
    from steerlab.core.vector import SteeringVector
    from steerlab.errors import SteerlabError
    from steerlab.evaluation.calibration.calibrate import calibrate
    from steerlab.evaluation.calibration.options import Options
    from steerlab.evaluation.generalization.evaluate import evaluate
    from steerlab.evaluation.generalization.plan import EvaluationPlan
    from steerlab.evaluation.inspection.difference import difference
    from steerlab.evaluation.inspection.inspect import inspect
    from steerlab.evaluation.metrics.items import ContrastItem
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.interventions.hooks import steering
    from steerlab.interventions.in_graph import compilable
    from steerlab.interventions.injection import Injection
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel
    from steerlab.notebook.compare import compare
    from steerlab.notebook.playground import playground
    from steerlab.registry import Store

_HOMES = {
    "ContrastItem": "evaluation.metrics.items",
    "EvaluationPlan": "evaluation.generalization.plan",
    "Injection": "interventions.injection",
    "Lab": "lab.lab",
    "LanguageModel": "models.language_model",
    "Metric": "evaluation.metrics.texts",
    "Options": "evaluation.calibration.options",
    "SteeringVector": "core.vector",
    "SteerlabError": "errors",
    "Store": "registry",
    "SweepPlan": "core.sweep",
    "calibrate": "evaluation.calibration.calibrate",
    "compare": "notebook.compare",
    "compilable": "interventions.in_graph",
    "compose": "core.expression",
    "difference": "evaluation.inspection.difference",
    "evaluate": "evaluation.generalization.evaluate",
    "inspect": "evaluation.inspection.inspect",
    "mean": "core.algebra",
    "playground": "notebook.playground",
    "project": "core.algebra",
    "random_like": "core.algebra",
    "reject": "core.algebra",
    "steering": "interventions.hooks",
    "unit": "core.algebra",
}

__all__ = [
    "ContrastItem",
    "EvaluationPlan",
    "Injection",
    "Lab",
    "LanguageModel",
    "Metric",
    "Options",
    "SteeringVector",
    "SteerlabError",
    "Store",
    "SweepPlan",
    "calibrate",
    "compare",
    "compilable",
    "compose",
    "difference",
    "evaluate",
    "inspect",
    "mean",
    "playground",
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
    return [*__all__]


def _html(value: object) -> str:
    from steerlab.notebook.pages import html

    return html(value)


def _figure(value: object, **options: Any) -> Any:
    from steerlab.notebook.figures import figure

    return figure(value, **options)


def _identity(model: object) -> Any:
    from steerlab.models.identity import identity_of

    return identity_of(model)


_above.bring(html=_html, figure=_figure, identity=_identity)
