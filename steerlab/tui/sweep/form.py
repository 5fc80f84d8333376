"""The form of a sweep: expression, layers, strengths, prompts and metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, Select, TextArea

from steerlab.core.notation import layers_of
from steerlab.core.sweep import SweepPlan
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import METRICS, Metric
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.fields import field

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

DOSES = "-0.3,-0.2,-0.1,0,0.1,0.2,0.3"
COEFFICIENTS = "-2,-1,-0.5,0,0.5,1,2"
AROUND = (-5, -2, 0, 2, 5)
"""Offsets of the layers proposed around a vector's own."""

EMPTY = "type an expression such as love - 0.5*anger"
UNDOSED = "no residual norm: the dose of c differs from layer to layer"

_MOST = 7  # proposed layers
_FAVOURITE = "vader"


class SweepForm(Vertical):
    """Expression, layers, strengths, prompts and metric."""

    DEFAULT_CSS = """
    SweepForm { height: auto; padding: 0 1; }
    SweepForm .row { height: 1; }
    SweepForm .field { height: 1; width: 1fr; }
    SweepForm Label { width: 9; color: $text-muted; }
    SweepForm .field.second Label { width: 9; padding-left: 2; }
    SweepForm Input { width: 1fr; }
    SweepForm Select { width: 1fr; }
    SweepForm #prompts-field { height: auto; }
    SweepForm TextArea { width: 1fr; height: auto; min-height: 1; max-height: 4; padding: 0; }
    """

    def __init__(self, lab: Lab, expression: str, prompt: str, names: Sequence[str]) -> None:
        super().__init__()
        self.lab, self.names = lab, names
        self.expression, self.prompt = expression, prompt
        self.by_dose = True
        self._proposed = ""
        self._n_layers = 0

    def compose(self) -> ComposeResult:
        """Five lines; more on a narrow terminal."""
        names = list(METRICS)
        chosen = _FAVOURITE if _FAVOURITE in names else names[1]
        metrics = [(name, name) for name in names]
        metric = Select(metrics, value=chosen, allow_blank=False, compact=True, id="metric")
        layers = Input(id="layers", compact=True, placeholder="10,15,20 or 10:20 or all")
        prompts = TextArea(self.prompt, id="prompts", compact=True, placeholder="one per line")
        yield ExpressionLine(self.lab, self.expression, self.names, extends=True)
        with Horizontal(classes="row"):
            yield field("layers", layers)
            yield field("metric", metric, classes="field second")
        yield field("doses", Input(DOSES, id="strengths", compact=True))
        yield field("prompts", prompts, id="prompts-field")

    @property
    def advice(self) -> str:
        """What to know before the sweep runs; empty if there is nothing."""
        if not self.query_one(ExpressionLine).text.strip():
            return EMPTY
        return "" if self.by_dose else UNDOSED

    @property
    def metric(self) -> Metric:
        """The selected metric."""
        return METRICS[str(self.query_one("#metric", Select).value)]

    def next_metric(self) -> None:
        """Select the next metric."""
        names = list(METRICS)
        place = names.index(self.metric.name) + 1
        self.query_one("#metric", Select).value = names[place % len(names)]

    @on(ExpressionLine.Checked)
    def propose(self, event: ExpressionLine.Checked) -> None:
        """Propose layers and strengths for the vector; typed values stay."""
        vector, box = event.meaning.vector, self.query_one("#layers", Input)
        if vector is None:
            return
        self._n_layers = vector.model.n_layers
        if box.value in ("", self._proposed):
            found = event.meaning.calibration
            works = [] if found is None or found.layer is None else [found.layer]
            layers = sorted({*around(vector, extends=event.meaning.extends), *works})
            self._proposed = box.value = ",".join(map(str, layers))
        dosed = vector.dose(1.0) is not None
        if dosed != self.by_dose:
            self.by_dose = dosed
            self.query_one("#strengths-label", Label).update("doses" if dosed else "c")
            self.query_one("#strengths", Input).value = DOSES if dosed else COEFFICIENTS

    def chosen_layers(self) -> list[int]:
        """The layers as typed, of the expression's model; raises BadOption."""
        return chosen(self.query_one("#layers", Input).value, self._n_layers)

    def plan(self) -> SweepPlan:
        """The requested sweep, with a baseline to compare texts with; raises BadOption."""
        expression, layers, strengths = (
            self.query_one(f"#{name}", Input).value.strip()
            for name in ("expression", "layers", "strengths")
        )
        if not expression:
            raise BadOption("no expression: type one, such as love")
        lines = self.query_one("#prompts", TextArea).text.splitlines()
        prompts = [line for line in lines if line.strip()]
        if not prompts:
            raise BadOption("no prompt: type one or more, one per line")
        typed = numbers(strengths, "doses" if self.by_dose else "coefficients")
        doses, coefficients = (typed, ()) if self.by_dose else ((), typed)
        return SweepPlan(expression, prompts, layers_of(layers), doses, coefficients)


def chosen(text: str, n_layers: int) -> list[int]:
    """The layers that a text selects in a model of `n_layers`; raises BadOption."""
    layers = layers_of(text)
    if isinstance(layers, list):
        return sorted(set(layers))
    return list(range(n_layers)[layers if isinstance(layers, slice) else slice(None)])


def around(vector: SteeringVector, *, extends: bool) -> list[int]:
    """Layers to compare: a vector's own if it has several, else some on either side."""
    own: Sequence[int] = vector.layers
    if len(own) > 1 or not extends:
        if len(own) <= _MOST:
            return list(own)
        step = (len(own) - 1) / (_MOST - 1)
        return [own[round(i * step)] for i in range(_MOST)]
    last = vector.model.n_layers - 1
    return sorted({max(0, min(last, own[0] + offset)) for offset in AROUND})


def numbers(text: str, what: str = "doses") -> tuple[float, ...]:
    """The finite numbers of a list such as -0.2,0.2, and 0, sorted; raises BadOption."""
    try:
        found = sorted({0.0, *map(float, text.split(","))})
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise BadOption(f"{text!r} is not a list of {what} such as -0.2,0,0.2")
    if not any(found):
        raise BadOption(f"a sweep needs {what} other than 0")
    return tuple(found)
