"""How a sweep is shown: a grid of a metric, its texts as tables, JSON and CSV."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from steerlab.cli.output import print_table, say, signed, signed_dose
from steerlab.errors import BadOption, NotFound
from steerlab.evaluation.grid import mean
from steerlab.evaluation.texts import METRICS, Metric
from steerlab.notation import printable
from steerlab.sweep import StoredSweep, SweepCell

_CAVEAT = "Values describe texts: that steering did it takes random directions to compare with."
_UNEQUAL = "At equal coefficient the doses of layers differ: compare layers at equal dose."


def metric_of(sweep: StoredSweep, name: str) -> Metric:
    """A metric of texts, or one that was measured when they were written; raises NotFound."""
    if name in METRICS:
        return METRICS[name]
    if name not in sweep.metrics:
        known = ", ".join([*METRICS, *sweep.metrics])
        raise NotFound(f"there is no metric {name!r} of this sweep: there are {known}")
    return Metric(name, "measured with the model", lambda text, baseline: math.nan, high=None)


def values_of(sweep: StoredSweep, metric: Metric) -> list[float]:
    """Each cell's value, beside the baseline of the same prompt and seed; NaN if undefined."""
    if metric.name not in METRICS:
        found = [cell.metrics.get(metric.name) for cell in sweep.cells]
        return [math.nan if v is None or v.value is None else v.value for v in found]
    plain = [sweep.baseline(cell) for cell in sweep.cells]
    return [
        metric.score(cell.text, None if base is None else base.text)
        for cell, base in zip(sweep.cells, plain, strict=True)
    ]


def rows_of(sweep: StoredSweep, label: str, metric: Metric | None) -> list[dict[str, Any]]:
    """The cells as JSON values. label: what the vector is called."""
    rows = [
        {**sweep.row(cell), "vector": None if cell.setting.layer is None else label}
        for cell in sweep.cells
    ]
    if metric is not None:
        for row, value in zip(rows, values_of(sweep, metric), strict=True):
            row |= {"metric": metric.name, "value": None if math.isnan(value) else value}
    return rows


def print_sweep(sweep: StoredSweep, metric: Metric | None) -> None:
    """The metric's grid, then a table for each prompt."""
    if metric is not None:
        _print_grid(sweep, metric)
    several_seeds = len(sweep.seeds) > 1
    columns = ["layer", "c", "dose", *(["seed"] if several_seeds else []), *sweep.metrics, "text"]
    for number, prompt in enumerate(dict.fromkeys(cell.prompt for cell in sweep.cells)):
        if number:
            click.echo()
        click.echo(click.style(printable(prompt), bold=True))
        rows = [_row(sweep, cell, several_seeds) for cell in sweep.cells if cell.prompt == prompt]
        print_table(columns, rows, right=columns[:-1], wrap=["text"])


def say_limits(sweep: StoredSweep, metric: Metric | None, *, quiet: bool = False) -> None:
    """What the numbers do not show; that layers differ in dose is said with -q too."""
    if metric is not None:
        say(_CAVEAT, quiet=quiet)
    if sweep.strength == "coefficient" and len(sweep.layers) > 1:
        say(_UNEQUAL)


def _row(sweep: StoredSweep, cell: SweepCell, with_seed: bool) -> list[str]:
    setting = cell.setting
    steered = setting.layer is not None
    values = [cell.metrics.get(name) for name in sweep.metrics]
    return [
        str(setting.layer) if steered else "-",
        signed(setting.coefficient),
        signed_dose(setting.dose) if steered else "baseline",
        *([str(cell.seed)] if with_seed else []),
        *("-" if v is None or v.value is None else f"{v.value:.3g}" for v in values),
        cell.text.strip().replace("\n", "⏎"),
    ]


def _print_grid(sweep: StoredSweep, metric: Metric) -> None:
    """The metric's means over prompts and seeds, layers x strengths."""
    scores = defaultdict(list)
    for cell, value in zip(sweep.cells, values_of(sweep, metric), strict=True):
        scores[cell.setting.layer, cell.setting.strength].append(value)
    click.echo(click.style(f"{metric.name}: {metric.about}", bold=True))
    heading = signed_dose if sweep.strength == "dose" else signed
    columns = ["layer", *map(heading, sweep.strengths)]
    rows = [
        [
            str(layer),
            *(metric.shown(mean(scores[layer if s else None, s])) for s in sweep.strengths),
        ]
        for layer in sweep.layers
    ]
    print_table(columns, rows, right=columns)
    click.echo()


def write_csv(sweep: StoredSweep, file: Path) -> None:
    """A line a cell, a column for each metric; empty where a value is undefined.

    Raises BadOption where no file can be written.
    """
    columns = ["prompt", "seed", "layer", "coefficient", "dose", "text", "finish", "tokens"]
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out)
            table.writerow([*columns, *sweep.metrics])
            for cell in sweep.cells:
                table.writerow([*_plain(cell), *_measured(cell, sweep.metrics)])
    except OSError as error:
        raise BadOption(f"can't write {file}: {error.strerror or error}") from None


def _plain(cell: SweepCell) -> list[object]:
    setting = cell.setting
    strength = (setting.layer, setting.coefficient, setting.dose)
    return [cell.prompt, cell.seed, *strength, cell.text, cell.finish, cell.tokens]


def _measured(cell: SweepCell, names: Sequence[str]) -> list[object]:
    found = [cell.metrics.get(name) for name in names]
    return [None if value is None else value.value for value in found]
