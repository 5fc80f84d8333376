"""The texts that were kept: runs."""

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
    store_option,
)
from steerlab.cli.output import print_fields, print_json, print_table, say
from steerlab.core.display import printable, signed, signed_dose

if TYPE_CHECKING:
    from steerlab.core.run import Generation, Run


@click.command("runs")
@click.argument("which", required=False, metavar="[REF|NUMBER]", shell_complete=complete_ref)
@click.option("--best", type=int, help="Say which text of run NUMBER is best, counted from 0.")
@click.option("--remove", is_flag=True, help="Forget run NUMBER.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@model_filter_option
@store_option
@json_option
def runs_command(
    which: str | None,
    best: int | None,
    remove: bool,
    limit: int,
    model: str | None,
    store_path: Path | None,
    as_json: bool,
) -> None:
    """List the texts that were kept, or show one run.

    With a REF, those whose expression names that vector. The TUI keeps every run, and so does
    generate --keep.
    """
    store = open_store(store_path)
    number = int(which) if which is not None and which.isdigit() else None
    if number is None and (remove or best is not None):
        raise click.UsageError("which run? give its number, as `steerlab runs` lists it")
    if number is None:
        found = store.runs.list(which, model=model, limit=limit)
        _print_runs(found, as_json)
    elif remove:
        store.runs.remove(number)
        click.echo(f"removed run {number}")
    else:
        run = store.runs.get(number) if best is None else store.runs.rate(number, best)
        print_json(run.to_json()) if as_json else _print_run(run)


def _print_runs(runs: Sequence[Run], as_json: bool) -> None:
    if as_json:
        print_json([run.to_json() for run in runs])
    elif not runs:
        say("no runs are kept; `steerlab generate … --keep` and the TUI keep them")
    else:
        columns = ["run", "when", "expression", "dose", "prompt", "text"]
        print_table(columns, [_row(run) for run in runs], right=["run"], cut=["prompt", "text"])


def _row(run: Run) -> list[str]:
    strongest = max(run.generations, key=lambda g: abs(g.coefficient), default=None)
    doses = (_strength(g) for g in run.generations if g.coefficient)
    text = "" if strongest is None else strongest.text
    return [
        f"{'*' if run.best is not None else ''}{run.id}",
        run.created[:16].replace("T", " "),
        run.expression or "-",
        " ".join(doses) or "-",
        _line(run.prompt),
        _line(text),
    ]


def _strength(generation: Generation) -> str:
    if generation.dose is None:
        return f"c {signed(generation.coefficient)}"
    return signed_dose(generation.dose)


def _line(text: str) -> str:
    return " ".join(text.split())[:80]


def _print_run(run: Run) -> None:
    click.echo(click.style(f"run {run.id}", bold=True))
    settings = [f"{k.replace('_', ' ')} {v}" for k, v in run.sampling.options().items() if v]
    print_fields(
        [
            ("made", f"{run.created[:19].replace('T', ' ')} UTC on {run.model}"),
            ("steer", run.expression),
            ("layers", run.layers),
            ("positions", run.positions),
            ("sampling", ", ".join([*settings, f"seed {run.seed}"])),
        ]
    )
    for index, generation in enumerate(run.generations):
        dose = signed_dose(generation.dose)
        what = f"c {signed(generation.coefficient)}  dose {dose}"
        heading = what if generation.coefficient else "baseline"
        star = "  * best" if run.best == index else ""
        click.echo(f"\n{click.style(f'── {index}  {heading}{star}', bold=True)}")
        click.echo(printable(run.prompt + generation.text, newlines=True))
