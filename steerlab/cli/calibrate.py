"""steerlab calibrate: where and how strongly a vector works, as tables and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from steerlab.cli import options, output, types
from steerlab.cli.progress import STOP_KEY, interruptible, load, progress_bar
from steerlab.core.contrast import Contrast
from steerlab.core.display import count, number, printable, signed, signed_dose

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.calibration.curve import Curve, Limits, Point
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.evaluation.statistics import Estimate
    from steerlab.lab.lab import Lab
    from steerlab.progress import Watch

_CHOICES = {"items_file", "metric", "prompts_file", "layers", "doses", "controls", "seed"}
_CHOICES |= {"fluency", "kl", "distinct"}
_LEGEND = (
    ("dose", "length added, relative to the residual stream; c is the coefficient"),
    ("control", "the same for random directions; z is the effect in their standard deviations"),
    ("sound", "within --max-kl, --max-fluency and --min-distinct, on further fresh texts too"),
)


def _limit(option: str, name: str, default: float, text: str) -> Any:
    return click.option(option, name, type=float, default=default, show_default=True, help=text)


_limits = options.grouped(
    "limits",
    fluency=_limit(
        "--max-fluency", "fluency", 1.5, "Perplexity of steered texts over the baseline's, at most."
    ),
    kl=_limit("--max-kl", "kl", 0.5, "KL of the next token's distribution in nats, at most."),
    distinct=_limit(
        "--min-distinct", "distinct", 0.9, "Distinct token pairs over the baseline's, at least."
    ),
)


@options.verb("calibrate", context_settings=options.DASHES)
@options.expression
@click.option(
    "--items",
    "items_file",
    type=types.FILE,
    help="Judge by these: prompt, positive and negative, as JSONL, JSON, CSV or TOML.",
)
@click.option(
    "--more",
    "more_file",
    type=types.FILE,
    help="Measure these items too, where the calibration found it to work: a tighter guarantee.",
)
@click.option("--chat", is_flag=True, help="The items' prompts are messages to a chat model.")
@options.metric(text="Judge by texts: vader, keywords:FILE, …")
@click.option(
    "--prompts", "prompts_file", type=types.FILE, help="For --metric: a file, one prompt a line."
)
@options.layers("Candidates (default: the vector's; all if it has one).")
@options.numbers("--doses", text="Candidates; both signs are measured.")
@options.controls(20)
@_limits
@options.plot("the dose-response")
@options.no_save
@options.other_weights
@options.seed
@options.lab
@options.json
@options.quiet
def calibrate_command(
    expression: str,
    items_file: Path | None,
    more_file: Path | None,
    chat: bool,
    metric: Metric | None,
    prompts_file: Path | None,
    layers: Any,
    doses: tuple[float, ...],
    controls: int,
    limits: dict[str, float],
    plot_file: Path | None,
    no_save: bool,
    other_weights: bool,
    seed: int,
    lab: Lab,
) -> None:
    """Find the layer and dose at which a vector works.

    \b
    steerlab calibrate love
    steerlab calibrate "love - anger" --layers 10:20 --doses 0.1,0.2,0.3
    steerlab calibrate love --more further.jsonl

    Layers are compared at one dose, then doses at one layer, as far as they are sound: neutral
    text stays within the limits below. The effect is measured on held-out items: the vector's
    own pairs, each with a vector made without it, or those of --items. It has to exceed that of
    random directions and shuffled labels of the same length. "Nothing works" is a result, too
    (exit code 0).

    The result is stored with the vector: `generate` without a strength then uses it. A search that
    leaves out the layer in use stands beside it, for `generate --layers`.
    """
    from steerlab.evaluation.calibration.calibrate import calibrate
    from steerlab.evaluation.calibration.curve import Limits
    from steerlab.evaluation.calibration.more import more
    from steerlab.evaluation.calibration.options import DOSES, Options
    from steerlab.evaluation.metrics.items import ContrastItem
    from steerlab.files.contrast import read_items
    from steerlab.files.prompts import read_lines

    if more_file is not None:
        _refuse_choices(click.get_current_context())
    if items_file is not None and metric is not None:
        raise click.UsageError("give --items or --metric, not both")
    if prompts_file is not None and metric is None:
        raise click.UsageError("--prompts are for --metric: give both")
    search = Options(
        doses or DOSES, controls, Limits(**limits), seed, allow_other_weights=other_weights
    )
    how: dict[str, Any] = {"chat": chat, "metric": metric, "layers": layers, "options": search}
    if file := items_file or more_file:
        how["items"] = [ContrastItem(**item) for item in read_items(file)]
    if prompts_file is not None:
        how["prompts"] = read_lines(prompts_file)
    vector = lab.evaluate(expression)
    load(lab, vector)
    if more_file is None:
        _announce(lab, vector, how, kept=not no_save)
    with interruptible() as stop, progress_bar("calibrating") as progress:
        if more_file is not None:
            watch: Watch = {"should_stop": stop, "progress": progress}
            found = more(
                lab, vector, how["items"], chat=chat, allow_other_weights=other_weights, **watch
            )
        else:
            found = calibrate(lab, vector, should_stop=stop, progress=progress, **how)
    if not no_save:
        lab.store.results.save_calibration(found)  # before a closed pipe can lose minutes of work
    if plot_file is not None:
        from steerlab.plots import figures
        from steerlab.plots.calibration import response_of

        output.save_plot(figures.dose_response(response_of(found, str(vector))), plot_file)
    output.show(found, partial(_print, name=str(vector)))
    if not no_save:
        output.say(f"kept{_used(lab, vector, found)}")


def _used(lab: Lab, vector: SteeringVector, found: Calibration) -> str:
    """What uses a calibration that was just stored, and which one is used where nothing is said."""
    known = lab.calibration_of(vector)
    stays = known is not None and (known.layer, known.dose) != (found.layer, found.dose)
    beside = f"; without --layers, layer {known.layer} is used" if known and stays else ""
    if not found.works:
        return beside
    layers = f" --layers {found.layer}" if beside else ""
    return f": steerlab generate \"…\" -v '{vector}'{layers} uses it{beside}"


def _announce(lab: Lab, vector: SteeringVector, how: Mapping[str, Any], *, kept: bool) -> None:
    """Say that it takes minutes, what may come of it, and which result stays in use beside it."""
    from steerlab.evaluation.statistics import RELIABLE

    recipe, known = vector.recipe, lab.calibration_of(vector)
    pairs = len(recipe.positive) if isinstance(recipe, Contrast) else 0
    if 0 < pairs < RELIABLE and how["metric"] is None and "items" not in how:
        output.say(
            f"{count(pairs, 'contrast pair')} may be too few to tell whether it works: extract it "
            f"again with {2 * RELIABLE}, or give --items"
        )
    searched = None if how["layers"] is None else lab.model.layers(how["layers"])
    if kept and known is not None and searched is not None and known.layer not in searched:
        output.say(
            f"{vector} works at layer {known.layer}, dose {signed_dose(known.dose)}: that stays "
            "in use, and what is found at other layers is for generate --layers"
        )
    output.say(f"calibrating {vector}: this takes minutes; {STOP_KEY} stops it")


def _refuse_choices(context: click.Context) -> None:
    """Refuse the options of a search beside --more, which measures at the point that is stored."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in _CHOICES
        and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(
            f"--more keeps layer, dose and controls as they are: leave out {', '.join(given)}"
        )


def _print(found: Calibration, name: str) -> None:
    from steerlab.evaluation.calibration.curve import Curve, findings

    _print_curve(Curve.of(found))
    output.response(found, name)
    says, *evidence = findings(found)
    click.echo()
    output.hanging(f"{printable(name)} ", says, fg="green" if found.works else "yellow")
    for line in evidence:
        output.hanging("  · ", line)


def _print_curve(curve: Curve) -> None:
    """The layers at one dose, then the dose-response at the chosen one."""
    unit = "nats" if curve.measure == "propensity" else "mean"
    held = "each with a vector made without it" if curve.crossed else "none used to make it"
    output.title(f"S(+d) - S(-d) of {curve.measure} at dose {curve.profile_dose:g}, by layer")
    layers = [[str(x.layer), *_estimated(x.effect), number(x.kl, 2)] for x in curve.layers]
    output.table(["layer", unit, "95% interval", "KL"], layers, right=["layer", unit, "KL"])
    output.section(f"{curve.measure} at layer {curve.layer}, {count(curve.items, 'item')}, {held}")
    columns = ["dose", "c", unit, "95% interval", "control", "z", "KL", "fluency", "distinct-2"]
    output.table([*columns, "sound"], [_row(p, curve.limits) for p in curve.points], right=columns)
    chosen = dict.fromkeys((fold.layer, fold.dose) for fold in curve.held.folds)
    where = ", ".join(f"layer {layer} at dose {signed_dose(dose)}" for layer, dose in chosen)
    output.fields(_LEGEND)
    click.echo(f"chosen without the items that judge it: {where}")


def _row(point: Point, limits: Limits) -> list[str]:
    mean, interval = _estimated(point.effect)
    cost = point.cost
    return [
        signed_dose(point.dose),
        signed(point.coefficient),
        mean,
        interval,
        f"{point.controls.mean:+.2f} ± {point.controls.sd:.2f}",
        "-" if point.z is None else f"{point.z:+.1f}",
        *(number(value, 2) for value in (cost.kl, cost.fluency, cost.distinct)),
        _sound(point, limits),
    ]


def _sound(point: Point, limits: Limits) -> str:
    """Whether a dose is sound, and whether fresh texts decided against the figures beside it.

    A dose beyond one whose KL is too large has no texts, however small its own KL is.
    """
    cost = point.cost
    within = (
        cost.fluency is not None
        and cost.distinct is not None
        and (cost.kl or 0) <= limits.kl
        and cost.fluency <= limits.fluency
        and cost.distinct >= limits.distinct
    )
    return "yes" if point.sound else "no: fresh texts" if within else "no"


def _estimated(effect: Estimate) -> tuple[str, str]:
    return f"{effect.mean:+.2f}", f"{effect.low:+.2f} to {effect.high:+.2f}"
