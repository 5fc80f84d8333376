"""A report: everything known about a stored vector, as values and as a self-contained page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from steerlab.core.display import number, printable, signed_dose
from steerlab.core.notation import span
from steerlab.core.recipe import Contrast, Expression
from steerlab.core.version import __version__
from steerlab.evaluation.calibration.curve import Curve, findings
from steerlab.evaluation.generalization.verdict import verdict as evaluation_verdict
from steerlab.plots.calibration import layers_of, response_of, unit_of
from steerlab.plots.generalization import effect_panels, tables
from steerlab.plots.values import legends, profiles

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from steerlab.core.record import Record
    from steerlab.core.results import Calibration, Evaluation
    from steerlab.registry import Store
    from steerlab.registry.lineage import Lineage
    from steerlab.registry.neighbours import Neighbour
    from steerlab.report.examples import Examples

_NEIGHBOURS = 8
_PAIRS = 60
"""Number of contrast pairs shown."""
_FIGURES = {"profile": 0.68, "lineage": 0.95, "response": 0.68, "layers": 0.68, "effects": 0.68}
"""Figures of the page, and the smallest scale of each; see `drawing.inline_svg`."""


@dataclass(frozen=True)
class Report:
    """The content of a page about a vector.

    calibration: the one that counts, or None. beside: those of other layers where it works.
    evaluation: the newest, or None. examples: may be empty.
    """

    record: Record
    lineage: Lineage
    neighbours: tuple[Neighbour, ...] = ()
    calibration: Calibration | None = None
    beside: tuple[Calibration, ...] = ()
    evaluation: Evaluation | None = None
    examples: tuple[Examples, ...] = ()
    made: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def report(
    store: Store, ref: str, model: str | None = None, *, examples: Sequence[Examples] = ()
) -> Report:
    """Collect what the store knows about a vector.

    examples: texts to show; empty takes stored ones, if any.
    Raises NotFound, and the errors of reading the store.
    """
    from steerlab.report.examples import kept_examples

    record, name = store.record(ref, model), store.qualified(ref, model)
    calibration, beside = store.results.in_use(record)
    layer = calibration.layer if calibration is not None else None
    return Report(
        record,
        store.lineage(name),
        tuple(store.similar(name, limit=_NEIGHBOURS)),
        calibration,
        tuple(beside),
        next(iter(store.results.evaluations(name, limit=1)), None),
        tuple(examples) or kept_examples(store, record, layer),
    )


# the page


def page(found: Report) -> str:
    """The report as one HTML file that loads nothing and runs no script.

    All names, notes, prompts and texts are escaped.
    """
    return _template().render(_facts(found))


@cache
def _template() -> Template:
    source = files("steerlab.report").joinpath("page.html").read_text("utf-8")
    return environment().from_string(source)


def environment() -> Environment:
    """Where pages are made: text is escaped, control characters are shown."""
    from jinja2 import Environment, StrictUndefined

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "signed": signed, "fixed": fixed, "span": span}
    return made


def _shown(value: object) -> object:
    """Text without control characters; our own markup unchanged."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value, newlines=True)
    return value


def signed(dose: float | None) -> str:
    """A dose with its sign; "-" for None."""
    return signed_dose(dose).replace("-", "−")


def fixed(value: float | None, form: str = "+.2f") -> str:
    """A number in a fixed form; a dash for None and NaN."""
    known = value is not None and math.isfinite(value)
    return f"{value:{form}}".replace("-", "−") if known else "–"


def _facts(found: Report) -> Mapping[str, Any]:
    """The variables of the template."""
    record, calibration, evaluation = found.record, found.calibration, found.evaluation
    recipe, doses = record.recipe, record.doses()
    pairs: list[tuple[str | None, str | None]] = []
    if isinstance(recipe, Contrast):
        positive, negative, _ = (map(str, side) for side in recipe.sides)
        pairs = list(zip_longest(positive, negative))
    return {
        "r": found,
        "record": record,
        "layers": span([facts.layer for facts in record.layers]),
        "doses": doses,
        "dose_of_one": number(max((d for d in doses.values() if d), default=None))
        if record.summed
        else "-",
        "diagnostics": _diagnostics(record),
        "legends": legends(_diagnostics(record)),
        "pairs": pairs[:_PAIRS],
        "more_pairs": len(pairs) - len(pairs[:_PAIRS]),
        "contrast": recipe if isinstance(recipe, Contrast) else None,
        "expression": recipe if isinstance(recipe, Expression) else None,
        "figures": _figures(found),
        "point": calibration if calibration is not None and calibration.works else None,
        "calibrated": None if calibration is None else _calibrated(calibration),
        "evaluated": None if evaluation is None else _evaluated(evaluation),
        "examples": [_example(e) for e in found.examples],
        "snippet": snippets(record, calibration),
        "version": __version__,
        "software": ", ".join(f"{k} {v}" for k, v in record.software.items()),
    }


def _calibrated(calibration: Calibration) -> Mapping[str, Any]:
    """A calibration's verdict and its curve; each point with whether its dose was chosen."""
    curve, dose = Curve.of(calibration), calibration.dose
    chosen = [dose is not None and math.isclose(p.dose, dose) for p in curve.points]
    return {
        "works": calibration.works,
        "verdict": findings(calibration),
        "unit": unit_of(curve),
        "curve": curve,
        "points": list(zip(curve.points, chosen, strict=True)),
    }


def _evaluated(evaluation: Evaluation) -> Mapping[str, Any]:
    """An evaluation's verdict in sentences, where the vector steered, and all values."""
    data = evaluation.data if isinstance(evaluation.data, dict) else {}
    layers, dose = data.get("layers"), data.get("dose")
    at = [f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"] if layers else []
    at += [f"dose ±{abs(dose):.2f}"] if dose else []
    return {
        "verdict": evaluation_verdict(evaluation),
        "suite": evaluation.suite,
        "made": evaluation.created[:10],
        "at": at,
        "tables": tables(evaluation),
    }


def _diagnostics(record: Record) -> list[str]:
    return sorted({name for facts in record.layers for name in facts.diagnostics})


def _example(found: Examples) -> Mapping[str, Any]:
    """A prompt's texts, each with its strength in percent of the largest."""
    most = max((abs(t.coefficient) for t in found.texts), default=0.0) or 1.0
    texts = [(t, round(100 * abs(t.coefficient) / most)) for t in found.texts]
    return {"prompt": found.prompt, "source": found.source, "texts": texts}


def _figures(found: Report) -> Mapping[str, Markup | None]:
    """Figures as markup; None where there is nothing to draw."""
    from markupsafe import Markup

    from steerlab.plots import drawing, figures
    from steerlab.plots.lineage import lineage_graph

    record, lineage, calibration = found.record, found.lineage, found.calibration
    drawn: dict[str, Figure | None] = dict.fromkeys(_FIGURES)
    if len(record.layers) > 1:
        drawn["profile"] = figures.layer_profile(record.ref, profiles(record))
    if lineage.parents or lineage.children:
        drawn["lineage"] = lineage_graph(lineage, str(record.recipe))
    if calibration is not None:
        drawn["response"] = figures.dose_response(response_of(calibration, record.ref))
        if layers := layers_of(calibration):
            drawn["layers"] = figures.layer_profile(record.ref, layers)
    if found.evaluation is not None and (panels := effect_panels(found.evaluation, record.ref)):
        drawn["effects"] = figures.generalization(panels)
    return {
        name: None if x is None else Markup(drawing.inline_svg(x, name, least=_FIGURES[name]))
        for name, x in drawn.items()
    }


# how to load it


def snippets(record: Record, calibration: Calibration | None = None) -> Mapping[str, str]:
    """Code that uses the vector: in Python, in the shell, and without steerlab.

    At the calibrated layer and dose, if there are any.
    """
    layers = [facts.layer for facts in record.layers]
    b, dose, calibrated = layers[len(layers) // 2], 0.15, False
    if calibration is not None and calibration.layer is not None and calibration.dose is not None:
        b, dose, calibrated = calibration.layer, calibration.dose, True
    known = calibrated or record.doses()[b]
    here = b if b in layers else layers[len(layers) // 2]
    return {
        "python": _python(record, b if calibrated else None, f"dose={dose:g}" if known else ""),
        "shell": _shell(record, "" if calibrated else f"--dose {dose:g}" if known else "-c 1"),
        "plain": _plain(record, here),
    }


def _python(record: Record, layer: int | None, strength: str) -> str:
    if layer is None or layer in (facts.layer for facts in record.layers):
        at = f"[{layer}]" if layer is not None and len(record.layers) > 1 else ""
        return (
            "from steerlab import LanguageModel, Store, steering\n\n"
            f"vector = Store().load({record.ref!r}){at}\n"
            f"lm = LanguageModel.load({record.model.source!r})\n"
            f"with steering(lm, vector, {strength or 'coefficient=1.0'}):\n"
            '    print(lm.generate("I think you are a"))'
        )
    return (
        "from steerlab import Lab, steering\n\n"
        "lab = Lab()\n"
        f"vector = lab.at_layers(lab.store.load({record.ref!r}), {layer})  # from its recipe\n"
        f"with steering(lab.model, vector, {strength}):\n"
        '    print(lab.model.generate("I think you are a"))'
    )


def _shell(record: Record, strength: str) -> str:
    ref, name = record.ref, record.name
    lines = (
        (f'steerlab generate "I think you are a" -v {ref}', "# where it works"),
        (f"steerlab export {ref} {name}.safetensors", "# one file that can be mailed"),
        (f"steerlab import {name}.safetensors", "# at the other end"),
    )
    if strength:
        lines = ((f"{lines[0][0]} {strength}", ""), *lines[1:])
    edge = max(len(line) for line, comment in lines if comment) + 3
    return "\n".join(f"{line:{edge}}{comment}".rstrip() for line, comment in lines)


def _plain(record: Record, layer: int) -> str:
    where = (
        f"row i is added at token i of the prompt (0 is BOS), at the input of block {layer}"
        if record.scope == "front"
        else f"add c * direction at every position, at the input of block {layer}"
    )
    shape = (record.layers[0].positions, record.model.d_model)
    return (
        "from safetensors.numpy import load_file\n\n"
        f'tensors = load_file("{record.name}.safetensors")  # made by steerlab export\n'
        f'direction = tensors["{record.story}/{layer}"]  # float32, {shape}\n'
        f"# {where}"
    )
