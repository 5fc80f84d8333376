"""steerlab sweeps: the sweeps that were kept, as table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    plot_option,
    store_option,
)
from steerlab.cli.output import print_fields, print_json, print_table, say
from steerlab.core.display import signed, signed_dose
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.core.sweep import StoredSweep

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("sweeps")
@click.argument("which", required=False, metavar="[REF|NUMBER]", shell_complete=complete_ref)
@click.option("--metric", help="Value the texts of sweep NUMBER; a grid of them.")
@click.option("--csv", "csv_file", type=_FILE, help="Write the cells of sweep NUMBER to a file.")
@plot_option("the metric's grid")
@click.option("--remove", is_flag=True, help="Forget sweep NUMBER.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@model_filter_option
@store_option
@json_option
def sweeps_command(
    which: str | None,
    metric: str | None,
    csv_file: Path | None,
    plot_file: Path | None,
    remove: bool,
    limit: int,
    model: str | None,
    store_path: Path | None,
    as_json: bool,
) -> None:
    """List the sweeps that were kept, or show one again.

    With a REF, those whose expression names that vector. A sweep that is not whole goes on when
    its command is run again.
    """
    store = open_store(store_path)
    if plot_file is not None and metric is None:
        raise click.UsageError("--plot draws a metric's grid: say which with --metric")
    number = int(which) if which is not None and which.isdigit() else None
    if number is None:
        if remove or metric or csv_file or plot_file:
            raise click.UsageError("which sweep? give its number, as `steerlab sweeps` lists it")
        _print_list(store.sweeps.list(which, model=model, limit=limit), as_json)
    elif remove:
        store.sweeps.remove(number)
        click.echo(f"removed sweep {number}")
    else:
        _show(store.sweeps.get(number), metric, csv_file, plot_file, as_json)


def _print_list(sweeps: Sequence[StoredSweep], as_json: bool) -> None:
    if as_json:
        print_json([sweep.to_json() for sweep in sweeps])
    elif not sweeps:
        say("no sweeps are kept; `steerlab sweep …` keeps them")
    else:
        columns = ["sweep", "when", "expression", "layers", "strengths", "cells", "prompts"]
        rows = [_line(sweep) for sweep in sweeps]
        print_table(columns, rows, right=["sweep", "cells"], cut=["prompts"])


def _line(sweep: StoredSweep) -> list[str]:
    first = " ".join(sweep.prompts[0].split())[:60]
    more = f" (+{len(sweep.prompts) - 1})" if len(sweep.prompts) > 1 else ""
    return [
        str(sweep.id),
        sweep.created[:16].replace("T", " "),
        sweep.expression,
        span(sweep.layers) or "-",
        _strengths(sweep),
        f"{sweep.done}/{sweep.total}",
        first + more,
    ]


def _strengths(sweep: StoredSweep) -> str:
    by_dose = sweep.strength == "dose"
    shown = " ".join(map(signed_dose if by_dose else signed, sweep.strengths))
    return shown if by_dose else f"c {shown}"


def _show(
    sweep: StoredSweep,
    metric: str | None,
    csv_file: Path | None,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    from steerlab.cli.sweep_output import plot_grid, print_sweep, rows_of, say_limits, write_csv
    from steerlab.plots.sweep_grid import metric_of

    chosen = metric_of(sweep, metric) if metric else None
    if csv_file is not None:
        write_csv(sweep, csv_file)
        say(f"wrote {len(sweep.cells)} cells to {csv_file}")
    if plot_file is not None and chosen is not None:
        plot_grid(sweep, chosen, plot_file)
    if as_json:
        data = sweep.to_json()
        values = rows_of(sweep, sweep.expression, chosen)
        data["cells"] = [{**v, **c} for c, v in zip(data["cells"], values, strict=True)]
        print_json(data)
    elif csv_file is None:
        _print_header(sweep)
        print_sweep(sweep, chosen)
        say_limits(sweep, chosen)


def _print_header(sweep: StoredSweep) -> None:
    click.echo(click.style(f"sweep {sweep.id}", bold=True))
    settings = [f"{k.replace('_', ' ')} {v}" for k, v in sweep.sampling.options().items() if v]
    print_fields(
        [
            ("made", f"{sweep.created[:19].replace('T', ' ')} UTC on {sweep.model}"),
            ("steer", sweep.expression),
            ("layers", span(sweep.layers)),
            ("strengths", _strengths(sweep)),
            ("positions", sweep.positions),
            ("sampling", ", ".join([*settings, f"seeds {span(sweep.seeds)}"])),
            ("cells", f"{sweep.done} of {sweep.total}"),
        ]
    )
    click.echo()
