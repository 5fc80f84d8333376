"""steerlab calibrate: where and how strongly a vector works, as a table and a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.algebra import DASHES
from steerlab.cli.options import (
    LayerRange,
    MetricSpec,
    Numbers,
    complete_ref,
    grouped,
    json_option,
    load,
    model_options,
    open_lab,
    plot_option,
    quiet_option,
    seed_option,
    store_option,
)
from steerlab.cli.output import print_json, print_table, say, width
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.core.display import count, number, printable, signed, signed_dose

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.evaluation.calibration.curve import Curve, Point
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.evaluation.statistics import Estimate

_FILE = click.Path(dir_okay=False, path_type=Path)
_limits = grouped(
    "limits",
    fluency=click.option(
        "--max-fluency",
        "fluency",
        type=float,
        default=1.5,
        show_default=True,
        help="Perplexity of steered texts over the baseline's, at most.",
    ),
    kl=click.option(
        "--max-kl",
        "kl",
        type=float,
        default=0.5,
        show_default=True,
        help="Nats by which the next token's distribution moves, at most.",
    ),
    distinct=click.option(
        "--min-distinct",
        "distinct",
        type=float,
        default=0.9,
        show_default=True,
        help="Distinct pairs of tokens over the baseline's, at least.",
    ),
)


@click.command("calibrate", context_settings=DASHES)
@click.argument("expression", nargs=-1, required=True, shell_complete=complete_ref)
@click.option(
    "--items",
    "items_file",
    type=_FILE,
    help="Judge by these: prompt, positive and negative, as JSONL, JSON, CSV or TOML.",
)
@click.option("--chat", is_flag=True, help="The items' prompts are messages to a chat model.")
@click.option("--metric", type=MetricSpec(), help="Judge by texts: vader, keywords:FILE, …")
@click.option("--prompts", "prompts_file", type=_FILE, help="For --metric: a prompt a line.")
@click.option(
    "--layers",
    type=LayerRange(),
    help="To choose from (default: the vector's, or all if it has one).",
)
@click.option("--doses", type=Numbers(), help="To choose from; both signs are measured.")
@click.option(
    "--controls",
    type=click.IntRange(5),
    default=20,
    show_default=True,
    help="Random directions that it has to beat.",
)
@_limits
@plot_option("the dose-response")
@click.option("--no-save", is_flag=True, help="Only report.")
@click.option("--other-weights", is_flag=True, help="Accept a vector of a model of the same shape.")
@seed_option
@model_options
@store_option
@json_option
@quiet_option
def calibrate_command(
    expression: tuple[str, ...],
    items_file: Path | None,
    chat: bool,
    metric: Metric | None,
    prompts_file: Path | None,
    layers: Any,
    doses: tuple[float, ...] | None,
    controls: int,
    limits: dict[str, float],
    plot_file: Path | None,
    no_save: bool,
    other_weights: bool,
    seed: int,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the layer and the dose at which a vector works.

    \b
    steerlab calibrate love
    steerlab calibrate "love - anger" --layers 10:20 --doses 0.1,0.2,0.3

    Layers are compared at one dose, and doses up to what leaves neutral text sound. The effect
    is measured on items that the choice has not seen: the vector's own pairs, each under a
    vector made without it, or those of --items. It has to beat random directions of the same
    length. A verdict that nothing works is a result too (exit code 0).

    The result is kept with the vector: `generate` without a strength then uses it.
    """
    from steerlab.evaluation.calibration.calibrate import calibrate
    from steerlab.evaluation.calibration.curve import Curve, Limits, verdict
    from steerlab.evaluation.calibration.search import DOSES, Options
    from steerlab.evaluation.metrics.items import ContrastItem
    from steerlab.files.prompts import read_items, read_lines

    if items_file is not None and metric is not None:
        raise click.UsageError("give --items or --metric, not both")
    if prompts_file is not None and metric is None:
        raise click.UsageError("--prompts are what --metric judges texts of: give it too")
    options = Options(
        doses or DOSES, controls, Limits(**limits), seed, allow_other_weights=other_weights
    )
    asked: dict[str, Any] = {"chat": chat, "metric": metric, "layers": layers, "options": options}
    if items_file is not None:
        asked["items"] = [ContrastItem(**item) for item in read_items(items_file)]
    if prompts_file is not None:
        asked["prompts"] = read_lines(prompts_file)
    lab = open_lab(store_path, loading)
    vector = lab.evaluate(" ".join(expression))
    load(lab, vector, quiet=quiet)
    say(f"calibrating {vector}: this takes minutes; Ctrl-C stops it", quiet=quiet)
    with interruptible() as stop, progress_bar("calibrating", quiet=quiet) as progress:
        found = calibrate(lab, vector, should_stop=stop, progress=progress, **asked)
    if not no_save:
        lab.store.results.save_calibration(found)  # before a closed pipe can lose minutes of work
    if plot_file is not None:
        from steerlab.plots import drawing, figures
        from steerlab.plots.calibration import response_of

        drawing.save(figures.dose_response(response_of(found, str(vector))), plot_file)
        say(f"wrote {plot_file}", quiet=quiet)
    if as_json:
        print_json(found.to_json())
    else:
        _print_curve(Curve.of(found))
        _print_chart(found, str(vector))
        sentence = printable(verdict(found))
        click.echo(click.style(f"\n{vector} {sentence}", fg="green" if found.works else "yellow"))
    if not no_save:
        say(_kept(found.works, str(vector)), quiet=quiet)


def _kept(works: bool, name: str) -> str:
    if works:
        return f"kept: steerlab generate \"…\" -v '{name}' uses it"
    return "kept"


def _print_curve(curve: Curve) -> None:
    """The layers at one dose, then the dose-response at the chosen one."""
    unit = "nats" if curve.measure == "propensity" else "mean"
    what = printable(curve.measure)
    held = "each under a vector made without it" if curve.crossed else "that it was not made of"
    click.echo(
        click.style(f"S(+d) - S(-d) of {what} at dose {curve.profile_dose:g}, by layer", bold=True)
    )
    layers = [[str(row.layer), *_estimated(row.effect)] for row in curve.layers]
    print_table(["layer", unit, "95% interval"], layers, right=["layer", unit])
    heading = f"{what} at layer {curve.layer}, {count(curve.items, 'item')}, {held}"
    click.echo(click.style(f"\n{heading}", bold=True))
    columns = ["dose", "c", unit, "95% interval", "control", "z", "KL", "fluency", "distinct-2"]
    print_table([*columns, "sound"], [_row(p) for p in curve.points], right=columns)
    chosen = dict.fromkeys((fold.layer, fold.dose) for fold in curve.held.folds)
    where = ", ".join(f"layer {layer} at dose {signed_dose(dose)}" for layer, dose in chosen)
    click.echo(f"chosen without the items it is judged on: {where}")


def _print_chart(found: Calibration, name: str) -> None:
    from steerlab.plots.calibration import response_of
    from steerlab.plots.terminal import dose_response

    click.echo()
    for line in dose_response(response_of(found, name), width() or 100):
        click.echo(line)


def _row(point: Point) -> list[str]:
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
        "yes" if point.sound else "no",
    ]


def _estimated(effect: Estimate) -> tuple[str, str]:
    return f"{effect.mean:+.2f}", f"{effect.low:+.2f} to {effect.high:+.2f}"
