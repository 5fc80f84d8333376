"""A sweep as output: the grid of a metric, tables of texts, JSON and CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from steerlab.cli import output
from steerlab.core.cell import Cell
from steerlab.core.display import count, signed, signed_dose
from steerlab.core.sweep import Sweep
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.sweep_grid import heat_grid, values_of
from steerlab.plots.terminal import heatmap

_CAVEAT = "Values describe texts; to show that steering caused them, compare random directions."
_UNEQUAL = "At equal coefficient the doses of layers differ: compare layers at equal dose."


def rows_of(sweep: Sweep, label: str, metric: Metric | None) -> list[dict[str, Any]]:
    """The cells as JSON values. label: the name of the vector."""
    rows = [
        {**cell.to_json(), "vector": None if cell.setting.layer is None else label}
        for cell in sweep.cells
    ]
    for row, cell in zip(rows, sweep.cells, strict=True):
        if cell.metrics:
            row["metrics"] = {name: asdict(value) for name, value in sorted(cell.metrics.items())}
    if metric is not None:
        for row, (value, why) in zip(rows, values_of(sweep, metric), strict=True):
            row |= {"metric": metric.name}
            row |= {"value": None, "reason": why} if why else {"value": value}
    return rows


def print_sweep(sweep: Sweep, metric: Metric | None) -> None:
    """Print the metric's grid, a table for each prompt, and what the numbers do not show."""
    if metric is not None:
        values = values_of(sweep, metric)
        for line in heatmap(heat_grid(sweep, metric, [value for value, _ in values])):
            click.echo(line)
        click.echo()
        _say_undefined([why for _, why in values if why])
    several_seeds = len(sweep.seeds) > 1
    columns = ["layer", "c", "dose", *(["seed"] if several_seeds else []), *sweep.metrics, "text"]
    for number, prompt in enumerate(dict.fromkeys(cell.prompt for cell in sweep.cells)):
        if number:
            click.echo()
        output.title(prompt)
        rows = [_row(sweep, cell, several_seeds) for cell in sweep.cells if cell.prompt == prompt]
        output.table(columns, rows, right=columns[:-1], wrap=["text"])
    if metric is not None:
        output.say(_CAVEAT)
    if sweep.strength == "coefficient" and len(sweep.layers) > 1:
        output.say(_UNEQUAL, always=True)


def _row(sweep: Sweep, cell: Cell, with_seed: bool) -> list[str]:
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


def _say_undefined(reasons: Sequence[str]) -> None:
    """Say why texts have no value: the most frequent reason."""
    for why, times in Counter(reasons).most_common(1):
        texts = f"{count(len(reasons), 'text')} {'has' if len(reasons) == 1 else 'have'}"
        more = f" ({times} of them)" if times < len(reasons) else ""
        output.say(f"{texts} no value: {why[:200]}{more}", always=True)


def plot_grid(sweep: Sweep, metric: Metric, file: Path) -> None:
    """Save the metric's grid as a picture."""
    from steerlab.plots import figures

    values = [value for value, _ in values_of(sweep, metric)]
    output.save_plot(figures.heatmap(heat_grid(sweep, metric, values)), file)


def write_csv(sweep: Sweep, file: Path) -> None:
    """Write a line for each cell and a column for each metric; undefined values are empty.

    A text that a spreadsheet would run as a formula has an apostrophe before it.
    Raises BadOption if the file can't be written.
    """
    columns = ["prompt", "seed", "layer", "coefficient", "dose", "text", "finish", "tokens"]
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.DictWriter(out, [*columns, *sweep.metrics], extrasaction="ignore")
            table.writeheader()
            for cell in sweep.cells:
                metrics = {name: found.value for name, found in cell.metrics.items()}
                more = {"layer": cell.setting.layer, "tokens": cell.tokens, **metrics}
                row = {**cell.to_json(), **more}
                table.writerow({key: _no_formula(value) for key, value in row.items()})
    except OSError as error:
        raise BadOption(f"can't write {file}: {error.strerror or error}") from None


def _no_formula(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value
