"""steerlab runs: list and show stored texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from steerlab.cli import options
from steerlab.cli.output import (
    minute,
    print_fields,
    print_json,
    print_section,
    print_table,
    print_title,
    say,
)
from steerlab.core.display import printable, signed, signed_dose

if TYPE_CHECKING:
    from steerlab.core.run import Generation, Run
    from steerlab.registry import Store


@click.command("runs")
@options.which
@click.option("--best", type=int, help="Mark this text of run NUMBER as the best (from 0).")
@click.option("--remove", is_flag=True, help="Delete run NUMBER.")
@options.limit()
@options.model
@options.store
@options.json
def runs_command(
    which: str | int | None,
    best: int | None,
    remove: bool,
    limit: int,
    model: str | None,
    store: Store,
    as_json: bool,
) -> None:
    """List stored texts, or show one run.

    A REF lists those whose expression names that vector. The TUI keeps every run; generate
    keeps one with --keep.
    """
    if not isinstance(which, int):
        if remove or best is not None:
            raise click.UsageError("which run? give its number, as `steerlab runs` lists it")
        _print_runs(store.runs.list(which, model=model, limit=limit), as_json)
    elif remove:
        store.runs.remove(which)
        click.echo(f"removed run {which}")
    else:
        run = store.runs.get(which) if best is None else store.runs.rate(which, best)
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
        minute(run.created),
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
    print_title(f"run {run.id}")
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
        strength = f"c {signed(generation.coefficient)}  dose {signed_dose(generation.dose)}"
        heading = strength if generation.coefficient else "baseline"
        star = "  * best" if run.best == index else ""
        print_section(f"── {index}  {heading}{star}")
        click.echo(printable(run.prompt + generation.text, newlines=True))
