"""steerlab runs and steerlab sweeps: list and show the texts that a store keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.core.display import count, marked_words, printable, signed, signed_dose
from steerlab.core.notation import span
from steerlab.errors import BadOption

if TYPE_CHECKING:
    from steerlab.core.run import Generation, Run
    from steerlab.core.sweep import Sweep
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.registry import Store


def _kept(noun: str, printed: Callable[[Any], None]) -> Callable[[Any], Any]:
    """A verb that lists runs or sweeps, removes one, or hands the number of one to `function`."""

    def decorate(function: Callable[..., None]) -> Any:
        @options.which
        @click.option("--remove", is_flag=True, help=f"Delete {noun} NUMBER.")
        @options.limit()
        @options.model
        @options.store
        @options.json
        @wraps(function)
        def command(
            which: str | int | None, remove: bool, limit: int, model: Any, store: Store, **own: Any
        ) -> None:
            kept = getattr(store, f"{noun}s")
            if isinstance(which, int) and not remove:
                function(store, which, **own)
            elif isinstance(which, int):
                kept.remove(which)
                click.echo(f"removed {noun} {which}")
            elif remove or any(value is not None for value in own.values()):
                listed = f"`steerlab {noun}s` lists it"
                raise click.UsageError(f"which {noun}? give its number, as {listed}")
            else:
                output.show(kept.list(which, model=model, limit=limit), printed)

        return command

    return decorate


def _print_runs(runs: Sequence[Run]) -> None:
    if not runs:
        output.say("no runs are kept; `steerlab generate … --keep` and the TUI keep them")
        return
    columns = ["run", "when", "expression", "dose", "prompt", "text"]
    output.table(columns, [_run(run) for run in runs], right=["run"], cut=["prompt", "text"])


def _run(run: Run) -> list[str]:
    strongest = max(run.generations, key=lambda g: abs(g.coefficient), default=None)
    doses = (_strength(g) for g in run.generations if g.coefficient)
    text = "" if strongest is None else strongest.text
    return [
        f"{'*' if run.best is not None else ''}{run.id}",
        output.minute(run.created),
        run.expression or "-",
        " ".join(doses) or "-",
        _line(run.prompt, 80),
        _line(text, 80),
    ]


def _strength(generation: Generation) -> str:
    dose, rating = generation.dose, generation.rating
    shown = f"c {signed(generation.coefficient)}" if dose is None else signed_dose(dose)
    return shown if rating is None else f"{shown} ({rating}/5)"


def _line(text: str, most: int) -> str:
    return " ".join(text.split())[:most]


def _print_sweeps(sweeps: Sequence[Sweep]) -> None:
    if not sweeps:
        output.say("no sweeps are kept; `steerlab sweep …` keeps them")
        return
    columns = ["sweep", "when", "expression", "layers", "strengths", "cells", "prompts"]
    rows = [_sweep(sweep) for sweep in sweeps]
    output.table(columns, rows, right=["sweep", "cells"], cut=["prompts"])


def _sweep(sweep: Sweep) -> list[str]:
    more = f" (+{len(sweep.prompts) - 1})" if len(sweep.prompts) > 1 else ""
    return [
        str(sweep.id),
        output.minute(sweep.created),
        sweep.expression,
        span(sweep.layers) or "-",
        _strengths(sweep),
        f"{sweep.done}/{sweep.total}",
        _line(sweep.prompts[0], 60) + more,
    ]


def _strengths(sweep: Sweep) -> str:
    by_dose = sweep.strength == "dose"
    shown = " ".join(map(signed_dose if by_dose else signed, sweep.strengths))
    return shown if by_dose else f"c {shown}"


@options.verb("runs")
@click.option("--best", type=int, help="Mark this text of run NUMBER as the best (from 0).")
@click.option("--diff", is_flag=True, default=None, help="Mark the words that steering changed.")
@_kept("run", _print_runs)
def runs_command(store: Store, number: int, best: int | None, diff: bool | None) -> None:
    """List stored texts, or show one run.

    A REF lists those whose expression names that vector. The TUI keeps every run; generate
    keeps one with --keep.
    """
    runs = store.runs
    run = runs.get(number) if best is None else runs.rate(number, best)
    output.show(run, partial(_print_run, diff=bool(diff)))


def _print_run(run: Run, diff: bool) -> None:
    baseline = next((g.text for g in run.generations if not g.coefficient), None)
    if diff and (baseline is None or len(run.generations) < 2):
        raise BadOption(f"run {run.id} has no baseline beside another text to compare with")
    _print_head("run", run, run.layers, f"seed {run.seed}")
    for index, generation in enumerate(run.generations):
        strength = f"c {signed(generation.coefficient)}  dose {signed_dose(generation.dose)}"
        heading = strength if generation.coefficient else "baseline"
        own = f"{generation.expression}  " if generation.expression else ""
        rated = f"  {generation.rating}/5" if generation.rating is not None else ""
        star = "  * best" if run.best == index else ""
        output.section(printable(f"── {index}  {own}{heading}{star}{rated}"))
        prompt = printable(run.sampling.shown(run.prompt), newlines=True)
        click.echo(prompt + _marked(generation.text, baseline if diff else None))


def _marked(text: str, baseline: str | None) -> str:
    """A text whose words that are not the baseline's stand in [brackets], bold in a terminal."""
    return "".join(
        click.style(f"[{piece}]", bold=True, fg="yellow") if differs else piece
        for piece, differs in marked_words(text, baseline)
    )


def _print_head(
    noun: str,
    kept: Run | Sweep,
    layers: str,
    seeds: str,
    strengths: str = "",
    cells: str = "",
) -> None:
    """How kept texts were made."""
    sampling = [f"{k.replace('_', ' ')} {v}" for k, v in kept.sampling.options().items() if v]
    output.title(f"{noun} {kept.id}")
    output.fields(
        [
            ("made", f"{kept.created[:19].replace('T', ' ')} UTC on {kept.model}"),
            ("steer", kept.expression),
            ("layers", layers),
            ("strengths", strengths),
            ("positions", kept.positions),
            ("sampling", ", ".join([*sampling, seeds])),
            ("cells", cells),
        ]
    )


@options.verb("sweeps")
@click.option("--metric", help="Score the texts of sweep NUMBER and show a grid.")
@click.option(
    "--csv", "csv_file", type=types.FILE, help="Write the cells of sweep NUMBER to a file."
)
@options.plot("the metric's grid")
@_kept("sweep", _print_sweeps)
def sweeps_command(
    store: Store, number: int, metric: str | None, csv_file: Path | None, plot_file: Path | None
) -> None:
    """List stored sweeps, or show one.

    A REF lists those whose expression names that vector. To continue an incomplete sweep, run
    its command again.
    """
    if plot_file is not None and metric is None:
        raise click.UsageError(options.PLOT_NEEDS)
    from steerlab.cli import sweep_tables
    from steerlab.plots.sweep_grid import metric_of

    sweep = store.sweeps.get(number)
    chosen = metric_of(sweep, metric) if metric else None
    if csv_file is not None:
        sweep_tables.write_csv(sweep, csv_file)
        output.say(f"wrote {count(len(sweep.cells), 'cell')} to {csv_file}")
    if plot_file is not None and chosen is not None:
        sweep_tables.plot_grid(sweep, chosen, plot_file)
    if csv_file is None or output.asked("json"):
        output.show(
            sweep, partial(_print_sweep, metric=chosen), partial(_sweep_json, metric=chosen)
        )


def _print_sweep(sweep: Sweep, metric: Metric | None) -> None:
    from steerlab.cli.sweep_tables import print_sweep

    cells = f"{sweep.done} of {sweep.total}"
    seeds = f"seeds {span(sweep.seeds)}"
    _print_head("sweep", sweep, span(sweep.layers), seeds, _strengths(sweep), cells)
    click.echo()
    print_sweep(sweep, metric)


def _sweep_json(sweep: Sweep, metric: Metric | None) -> dict[str, Any]:
    from steerlab.cli.sweep_tables import rows_of

    data, values = sweep.to_json(), rows_of(sweep, sweep.expression, metric)
    cells = [{**v, **c} for c, v in zip(data["cells"], values, strict=True)]
    return {**data, "cells": cells}
