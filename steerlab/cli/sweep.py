"""steerlab sweep and steerlab sweeps: run a grid of settings, list and show stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options
from steerlab.cli.output import minute, print_fields, print_json, print_table, print_title, say
from steerlab.cli.progress import interruptible, load, progress_bar
from steerlab.core.display import count, signed, signed_dose
from steerlab.core.notation import span
from steerlab.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerlab.core.sweep import StoredSweep, SweepPlan
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab
    from steerlab.lab.sweeps import CellMetric
    from steerlab.registry import Store

PROMPT = "I think you are a"
DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)
_METRIC = "Score each text: vader, distinct-2, keywords:FILE, regex:…, package.module:function."
_PLOT_NEEDS = "--plot draws a metric's grid: say which with --metric"


@click.command("sweep")
@options.expression
@options.layers("Layers to compare (default: the vector's).")
@click.option("--coefficients", type=options.NUMBERS, help="Such as -60,-30,0,30,60")
@click.option(
    "--doses", type=options.NUMBERS, help="Instead: such as -0.2,-0.1,0,0.1,0.2 (the default)"
)
@click.option("--prompt", "prompts", multiple=True, help="May be repeated.")
@click.option(
    "--prompts", "prompts_file", type=options.FILE, help="A text file with one prompt a line."
)
@options.metric(text=_METRIC)
@click.option(
    "--measure", is_flag=True, help="Measure each cell's fluency, repetition and KL, too."
)
@options.plot("the metric's grid")
@options.integer("--seeds", least=1, default=1, text="Texts of each cell.")
@click.option("--no-store", is_flag=True, help="Neither use nor keep stored cells.")
@options.steering
@options.sampling
@options.seed
@options.lab
@options.json
@options.quiet
def sweep_command(
    expression: str,
    layers: Any,
    coefficients: tuple[float, ...] | None,
    doses: tuple[float, ...] | None,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    metric: Metric | None,
    measure: bool,
    plot_file: Path | None,
    seeds: int,
    no_store: bool,
    where: dict[str, Any],
    sampling: dict[str, Any],
    seed: int,
    lab: Lab,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare layers x strengths x prompts in one batch.

    \b
    steerlab sweep "love - anger" --layers 10,15,20 --doses -0.2,-0.1,0,0.1,0.2
    steerlab sweep love --layers 10,15,20 --coefficients -1,0,1 --prompt "I think you are a"

    Layers that the vector lacks are made from its recipe. At equal coefficient, layers differ
    in dose: compare layers at equal dose.

    The texts are kept: `steerlab sweeps` lists them. After Ctrl-C, or a kill, the same command
    generates only what is missing. `accelerate launch --multi_gpu --num_processes 2 -m steerlab
    sweep …` splits the cells over processes, without GPUs too.

    --metric prints the metric's mean over prompts and seeds, by layer and dose. It describes the
    texts; to show that steering caused it, compare with random directions of the same norm.

    --measure runs the model, for about a third of the time that generation takes: perplexity
    of each text's beginning relative to its baseline's (include dose 0), distinct-2, the
    longest repeated run, and the KL divergence of the next token after the prompt.
    """
    if coefficients and doses:
        raise click.UsageError("give --coefficients or --doses, not both")
    if seeds > 1 and sampling["temperature"] == 0:
        raise click.UsageError("greedy text is the same for every seed: give a --temperature")
    if plot_file is not None and metric is None:
        raise click.UsageError(_PLOT_NEEDS)
    from steerlab.core.sampling import Sampling
    from steerlab.core.sweep import SweepPlan
    from steerlab.files.prompts import read_lines
    from steerlab.lab.sweeps import run_sweep
    from steerlab.lab.workers import WorkerShard

    if prompts_file is not None:
        prompts = (*prompts, *read_lines(prompts_file))
    plan = SweepPlan(
        expression,
        prompts or (PROMPT,),
        layers,
        doses=() if coefficients else doses or DOSES,
        coefficients=coefficients or (),
        seeds=range(seed, seed + seeds),
        sampling=Sampling(**sampling),
        **where,
    )
    vector = lab.evaluate(expression)
    if not no_store and not lab.store.upkeep.writable:
        raise StoreError(f"the store {lab.store_path} is read-only: use --no-store to keep nothing")
    shard = WorkerShard.current(lab.options["device"])
    lab.options |= {"device": shard.device}
    quiet = quiet or not shard.is_first
    load(lab, vector, quiet=quiet)
    with interruptible() as stop, progress_bar("sweeping", quiet=quiet) as progress:
        sweep = run_sweep(
            lab,
            plan,
            keep=not no_store,
            on_start=lambda found: _say_found(found, quiet=quiet),
            should_stop=stop,
            progress=progress,
            shard=shard,
            metrics=_metrics(lab, vector, plan) if measure else (),
        )
    shard.leave()
    if not shard.is_first:
        return
    from steerlab.cli import sweep_tables

    if plot_file is not None and metric is not None:
        sweep_tables.plot_grid(sweep, metric, plot_file, quiet=quiet)
    if as_json:
        print_json(sweep_tables.rows_of(sweep, str(vector), metric))
    else:
        sweep_tables.print_sweep(sweep, metric)
        sweep_tables.say_limits(sweep, metric, quiet=quiet)
    if sweep.id is None:
        stop.check()
        return
    kept = f"{sweep.done} of {sweep.total} cells are kept as sweep {sweep.id}"
    stop.check(f"cancelled; {kept}: the same command goes on from there")
    say(f"kept as sweep {sweep.id}", quiet=quiet)


def _metrics(lab: Lab, vector: SteeringVector, plan: SweepPlan) -> Sequence[CellMetric]:
    """The measurements of --measure, at the layers of the plan."""
    from steerlab.evaluation.metrics.cells import default_metrics

    at = lab.at_layers(vector, list(vector.layers) if plan.layers is None else plan.layers)
    vectors = {layer: at[layer] for layer in at.layers}
    return default_metrics(vectors, allow_other_weights=plan.allow_other_weights)


def _say_found(sweep: StoredSweep, *, quiet: bool) -> None:
    if sweep.done:
        say(f"{sweep.done} of {sweep.total} cells were already there", quiet=quiet)


@click.command("sweeps")
@options.which
@click.option("--metric", help="Score the texts of sweep NUMBER and show a grid.")
@click.option(
    "--csv", "csv_file", type=options.FILE, help="Write the cells of sweep NUMBER to a file."
)
@options.plot("the metric's grid")
@click.option("--remove", is_flag=True, help="Delete sweep NUMBER.")
@options.limit()
@options.model
@options.store
@options.json
def sweeps_command(
    which: str | int | None,
    metric: str | None,
    csv_file: Path | None,
    plot_file: Path | None,
    remove: bool,
    limit: int,
    model: str | None,
    store: Store,
    as_json: bool,
) -> None:
    """List stored sweeps, or show one.

    A REF lists those whose expression names that vector. To continue an incomplete sweep, run
    its command again.
    """
    if plot_file is not None and metric is None:
        raise click.UsageError(_PLOT_NEEDS)
    if not isinstance(which, int):
        if remove or metric or csv_file or plot_file:
            raise click.UsageError("which sweep? give its number, as `steerlab sweeps` lists it")
        _print_list(store.sweeps.list(which, model=model, limit=limit), as_json)
    elif remove:
        store.sweeps.remove(which)
        click.echo(f"removed sweep {which}")
    else:
        _show(store.sweeps.get(which), metric, csv_file, plot_file, as_json)


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
        minute(sweep.created),
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
    from steerlab.cli import sweep_tables
    from steerlab.plots.sweep_grid import metric_of

    chosen = metric_of(sweep, metric) if metric else None
    if csv_file is not None:
        sweep_tables.write_csv(sweep, csv_file)
        say(f"wrote {count(len(sweep.cells), 'cell')} to {csv_file}")
    if plot_file is not None and chosen is not None:
        sweep_tables.plot_grid(sweep, chosen, plot_file)
    if as_json:
        data = sweep.to_json()
        values = sweep_tables.rows_of(sweep, sweep.expression, chosen)
        data["cells"] = [{**v, **c} for c, v in zip(data["cells"], values, strict=True)]
        print_json(data)
    elif csv_file is None:
        _print_header(sweep)
        sweep_tables.print_sweep(sweep, chosen)
        sweep_tables.say_limits(sweep, chosen)


def _print_header(sweep: StoredSweep) -> None:
    print_title(f"sweep {sweep.id}")
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
