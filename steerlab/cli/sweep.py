"""steerlab sweep: layers x strengths x prompts, and its table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    LayerRange,
    MetricSpec,
    Numbers,
    complete_ref,
    json_option,
    load,
    model_options,
    open_lab,
    quiet_option,
    sampling_options,
    seed_option,
    steering_options,
    store_option,
)
from steerlab.cli.output import print_json, print_table, say, signed, signed_dose
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.evaluation.grid import Grid
from steerlab.evaluation.texts import Metric
from steerlab.notation import printable, span

if TYPE_CHECKING:
    from steerlab.lab import Cell

PROMPT = "I think you are a"
DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)
_CAVEAT = "Values describe texts: that steering did it takes random directions to compare with."
_METRIC = "Value each text: vader, distinct-2, keywords:FILE, regex:…, package.module:function."
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("sweep")
@click.argument("expression", nargs=-1, required=True, shell_complete=complete_ref)
@click.option("--layers", type=LayerRange(), help="Layers to compare (default: the vector's).")
@click.option("--coefficients", type=Numbers(), help="Such as -60,-30,0,30,60")
@click.option("--doses", type=Numbers(), help="Instead: such as -0.2,-0.1,0,0.1,0.2 (the default)")
@click.option("--prompt", "prompts", multiple=True, help="May be repeated.")
@click.option("--prompts", "prompts_file", type=_FILE, help="A text file with a prompt a line.")
@click.option("--metric", type=MetricSpec(), help=_METRIC)
@click.option("--seeds", type=click.IntRange(1), default=1, help="Generations of each cell.")
@steering_options
@sampling_options
@seed_option
@model_options
@store_option
@json_option
@quiet_option
def sweep_command(
    expression: tuple[str, ...],
    layers: Any,
    coefficients: tuple[float, ...] | None,
    doses: tuple[float, ...] | None,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    metric: Metric | None,
    seeds: int,
    where: dict[str, Any],
    sampling: dict[str, Any],
    seed: int,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Layers x strengths x prompts in one batch.

    \b
    steerlab sweep "love - anger" --layers 10,15,20 --doses -0.2,-0.1,0,0.1,0.2
    steerlab sweep love --layers 10,15,20 --coefficients -1,0,1 --prompt "I think you are a"

    Layers that the vector lacks are made again from its recipe. At equal coefficient, layers
    differ in dose: compare layers at equal dose. Ctrl-C keeps what has been written.

    --metric shows its mean over prompts and seeds, layers x doses. Such a value describes the
    texts; that steering did it takes a comparison with random directions of the same norm.
    """
    if coefficients and doses:
        raise click.UsageError("give --coefficients or --doses, not both")
    if seeds > 1 and sampling["temperature"] == 0:
        raise click.UsageError("greedy text is the same for every seed: give a --temperature")
    from steerlab.prompts import read_lines

    if prompts_file is not None:
        prompts = (*prompts, *read_lines(prompts_file))
    lab = open_lab(store_path, loading)
    vector = lab.evaluate(" ".join(expression))
    load(lab, vector, quiet=quiet)
    if not doses and not coefficients:
        doses = DOSES
    with interruptible() as stop, progress_bar("sweeping", quiet=quiet) as progress:
        settings = lab.sweep_settings(
            vector,
            list(vector.layers) if layers is None else layers,
            coefficients=coefficients or (),
            doses=doses or (),
        )
        cells = lab.compare(
            prompts or (PROMPT,),
            settings,
            seeds=range(seed, seed + seeds),
            should_stop=stop,
            progress=progress,
            **where,
            **sampling,
        )
    values = _values(cells, metric) if metric is not None else None
    if as_json:
        print_json(_json(cells, metric, values))
    else:
        if metric is not None and values is not None:
            grid = Grid(coefficients or doses or (), tuple(settings))
            _print_grid(grid, metric, cells, values, signed if coefficients else signed_dose)
        _print_cells(cells)
        if values is not None:
            _say_undefined(values)
            say(_CAVEAT, quiet=quiet)
        if coefficients and len({cell.layers for cell in cells if cell.layers}) > 1:
            say("At equal coefficient the doses of layers differ: compare layers at equal dose.")
    stop.check()


_Value = tuple[float, str]
"""A text's value, and why there is none."""


def _values(cells: Sequence[Cell], metric: Metric) -> list[_Value]:
    """Each cell's value, compared with the baseline of the same prompt and seed."""
    plain = {(c.prompt, c.seed): c.completion.text for c in cells if c.vector is None}
    return [metric.explained(c.completion.text, plain.get((c.prompt, c.seed))) for c in cells]


def _json(
    cells: Sequence[Cell], metric: Metric | None, values: Sequence[_Value] | None
) -> list[dict[str, Any]]:
    if values is None or metric is None:
        return [cell.to_json() for cell in cells]
    return [
        {**cell.to_json(), "metric": metric.name}
        | ({"value": None, "reason": why} if why else {"value": value})
        for cell, (value, why) in zip(cells, values, strict=True)
    ]


def _say_undefined(values: Sequence[_Value]) -> None:
    """Why texts have no value: the most frequent reason."""
    reasons = Counter(why for _, why in values if why)
    for why, count in reasons.most_common(1):
        texts = "1 text has" if reasons.total() == 1 else f"{reasons.total()} texts have"
        more = f" ({count} of them)" if len(reasons) > 1 else ""
        say(f"{texts} no value: {printable(why)[:200]}{more}")


def _print_grid(
    grid: Grid,
    metric: Metric,
    cells: Sequence[Cell],
    values: Sequence[_Value],
    heading: Callable[[float], str],
) -> None:
    """The metric's means, layers x strengths, above the texts."""
    places = {setting: place for place, setting in reversed([*enumerate(grid.settings)])}
    scores = defaultdict(list)
    for cell, (value, _) in zip(cells, values, strict=True):
        scores[places[cell.setting]].append(value)
    click.echo(click.style(f"{metric.name}: {metric.about}", bold=True))
    columns = ["layer", *map(heading, grid.strengths)]
    rows = [
        [str(layer), *map(metric.shown, row)]
        for layer, row in zip(grid.layers, grid.means(scores), strict=True)
    ]
    print_table(columns, rows, right=columns)
    click.echo()


def _print_cells(cells: Sequence[Cell]) -> None:
    """A sweep as a table: one block a prompt, a line a cell."""
    several_seeds = len({cell.seed for cell in cells}) > 1
    columns = ["layer", "c", "dose", *(["seed"] if several_seeds else []), "text"]
    for number, prompt in enumerate(dict.fromkeys(cell.prompt for cell in cells)):
        if number:
            click.echo()
        click.echo(click.style(printable(prompt), bold=True))
        rows = [_row(cell, several_seeds) for cell in cells if cell.prompt == prompt]
        print_table(columns, rows, right=columns[:-1], wrap=["text"])


def _row(cell: Cell, with_seed: bool) -> list[str]:
    return [
        span(cell.layers) or "-",
        signed(cell.coefficient),
        signed_dose(cell.dose) if cell.vector is not None else "baseline",
        *([str(cell.seed)] if with_seed else []),
        cell.completion.text.strip().replace("\n", "⏎"),
    ]
