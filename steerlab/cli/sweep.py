"""steerlab sweep: layers x strengths x prompts, and its table."""

from __future__ import annotations

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
    plot_option,
    quiet_option,
    sampling_options,
    seed_option,
    steering_options,
    store_option,
)
from steerlab.cli.output import print_json, say
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.cli.sweep_output import plot_grid, print_sweep, rows_of, say_limits
from steerlab.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerlab.core.sweep import StoredSweep, SweepPlan
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab
    from steerlab.lab.sweeps import CellMetric

PROMPT = "I think you are a"
DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)
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
@click.option(
    "--measure", is_flag=True, help="Also each cell's fluency, repetition and KL: kept with it."
)
@plot_option("the metric's grid")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Generations of each cell.")
@click.option("--no-store", is_flag=True, help="Write all of it anew, and keep nothing.")
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
    measure: bool,
    plot_file: Path | None,
    seeds: int,
    no_store: bool,
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
    differ in dose: compare layers at equal dose.

    The texts are kept: `steerlab sweeps` lists them. After Ctrl-C, or a kill, the same command
    writes only what is missing. `accelerate launch --multi_gpu --num_processes 2 -m steerlab
    sweep …` splits the cells over processes, without GPUs too.

    --metric shows its mean over prompts and seeds, layers x doses. Such a value describes the
    texts; that steering did it takes a comparison with random directions of the same norm.

    --measure takes the model, for about a third of the time that writing takes: the perplexity
    of each text's beginning over that of its baseline's (so have a dose 0 among the doses),
    distinct-2, the longest repeated run, and how far the next token after the prompt moves.
    """
    if coefficients and doses:
        raise click.UsageError("give --coefficients or --doses, not both")
    if seeds > 1 and sampling["temperature"] == 0:
        raise click.UsageError("greedy text is the same for every seed: give a --temperature")
    if plot_file is not None and metric is None:
        raise click.UsageError("--plot draws a metric's grid: say which with --metric")
    from steerlab.core.sampling import Sampling
    from steerlab.core.sweep import SweepPlan
    from steerlab.files.prompts import read_lines
    from steerlab.lab.sweeps import run_sweep
    from steerlab.lab.workers import WorkerShard

    if prompts_file is not None:
        prompts = (*prompts, *read_lines(prompts_file))
    plan = SweepPlan(
        " ".join(expression),
        prompts or (PROMPT,),
        layers,
        doses=() if coefficients else doses or DOSES,
        coefficients=coefficients or (),
        seeds=range(seed, seed + seeds),
        sampling=Sampling(**sampling),
        **where,
    )
    lab = open_lab(store_path, loading)
    vector = lab.evaluate(" ".join(expression))
    if not no_store and not lab.store.writable:
        raise StoreError(f"the store {lab.store_path} is read-only: say --no-store to keep nothing")
    shard = WorkerShard.current(loading["device"])
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
    if plot_file is not None and metric is not None:
        plot_grid(sweep, metric, plot_file, quiet=quiet)
    if as_json:
        print_json(rows_of(sweep, str(vector), metric))
    else:
        print_sweep(sweep, metric)
        say_limits(sweep, metric, quiet=quiet)
    if sweep.id is None:
        stop.check()
        return
    kept = f"{sweep.done} of {sweep.total} cells are kept as sweep {sweep.id}"
    stop.check(f"cancelled; {kept}: the same command goes on from there")
    say(f"kept as sweep {sweep.id}", quiet=quiet)


def _metrics(lab: Lab, vector: SteeringVector, plan: SweepPlan) -> Sequence[CellMetric]:
    """What every cell is measured by, at the layers that the plan names."""
    from steerlab.evaluation.metrics.cells import default_metrics

    at = lab.at_layers(vector, list(vector.layers) if plan.layers is None else plan.layers)
    vectors = {layer: at[layer] for layer in at.layers}
    return default_metrics(vectors, allow_other_weights=plan.allow_other_weights)


def _say_found(sweep: StoredSweep, *, quiet: bool) -> None:
    """What needs not be written again."""
    if sweep.done:
        say(f"{sweep.done} of {sweep.total} cells were there already", quiet=quiet)
