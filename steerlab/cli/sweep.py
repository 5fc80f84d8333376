"""steerlab sweep: run a grid of settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.engine import engine
from steerlab.cli.progress import Interrupt, interruptible, load, progress_bar
from steerlab.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steerlab.core.sweep import Sweep, SweepPlan
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab
    from steerlab.lab.sweeps import CellMetric

PROMPT = "I think you are a"
DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)
_METRIC = "Score each text: vader, distinct-2, keywords:FILE, regex:…, package.module:function."


@options.verb("sweep")
@options.expression
@options.layers("Layers to compare (default: the vector's, and the calibrated one).")
@options.numbers("--coefficients", text="Such as -60,-30,0,30,60")
@options.numbers("--doses", text="Instead: such as -0.2,-0.1,0,0.1,0.2 (the default)")
@click.option("--prompt", "prompts", multiple=True, help="May be repeated.")
@click.option(
    "--prompts", "prompts_file", type=types.FILE, help="A text file with one prompt a line."
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
@engine
@options.json
@options.quiet
def sweep_command(
    expression: str,
    metric: Metric | None,
    measure: bool,
    plot_file: Path | None,
    no_store: bool,
    lab: Lab,
    **grid: Any,
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
    if plot_file is not None and metric is None:
        raise click.UsageError(options.PLOT_NEEDS)
    if measure and lab.engine is not None:
        raise click.UsageError("--measure needs the model here: an engine gives no logits")
    plan = _plan(expression, **grid)
    vector = lab.evaluate(expression)
    if not no_store and not lab.store.upkeep.writable:
        raise StoreError(f"the store {lab.store_path} is read-only: use --no-store to keep nothing")
    from steerlab.lab.sweeps import run_sweep
    from steerlab.lab.workers import WorkerShard

    shard = WorkerShard.current(lab.options["device"])
    lab.options |= {"device": shard.device}
    if not shard.is_first:
        output.silence()
    load(lab, vector)
    with interruptible() as stop, progress_bar("sweeping") as progress:
        sweep = run_sweep(
            lab,
            plan,
            keep=not no_store,
            on_start=partial(_say_found, lab, vector),
            should_stop=stop,
            progress=progress,
            shard=shard,
            metrics=_metrics(lab, vector, plan) if measure else (),
        )
    shard.leave()
    if shard.is_first:
        _print(sweep, str(vector), metric, plot_file)
        _conclude(sweep, stop)


def _plan(
    expression: str, prompts_file: Path | None, seeds: int, seed: int, where: Any, **grid: Any
) -> SweepPlan:
    """The plan of these options; `grid` has the fields of a SweepPlan."""
    from steerlab.core.sweep import SweepPlan
    from steerlab.files.prompts import read_lines

    if grid["coefficients"] and grid["doses"]:
        raise click.UsageError("give --coefficients or --doses, not both")
    if seeds > 1 and grid["sampling"].temperature == 0:
        raise click.UsageError("greedy text is the same for every seed: give a --temperature")
    if prompts_file is not None:
        grid["prompts"] = (*grid["prompts"], *read_lines(prompts_file))
    grid["prompts"] = grid["prompts"] or (PROMPT,)
    if not grid["coefficients"]:
        grid["doses"] = grid["doses"] or DOSES
    return SweepPlan(expression, seeds=range(seed, seed + seeds), **where, **grid)


def _metrics(lab: Lab, vector: SteeringVector, plan: SweepPlan) -> Sequence[CellMetric]:
    """The measurements of --measure, at the layers of the plan."""
    from steerlab.evaluation.metrics.cells import default_metrics

    at = lab.swept(vector, plan.layers)
    vectors = {layer: at[layer] for layer in at.layers}
    return default_metrics(vectors, allow_other_weights=plan.allow_other_weights)


def _say_found(lab: Lab, vector: SteeringVector, sweep: Sweep) -> None:
    from steerlab.lab.operating_point import all_beyond_safe

    for text in all_beyond_safe(lab.store, vector, sweep.settings):
        output.warn(text)
    if sweep.done:
        output.say(f"{sweep.done} of {sweep.total} cells were already there")


def _print(sweep: Sweep, label: str, metric: Metric | None, plot_file: Path | None) -> None:
    from steerlab.cli import sweep_tables

    if plot_file is not None and metric is not None:
        sweep_tables.plot_grid(sweep, metric, plot_file)
    output.show(
        sweep,
        partial(sweep_tables.print_sweep, metric=metric),
        partial(sweep_tables.rows_of, label=label, metric=metric),
    )


def _conclude(sweep: Sweep, stop: Interrupt) -> None:
    """Say where the texts are kept; end as cancelled after Ctrl-C."""
    if sweep.id is None:
        stop.check()
        return
    kept = f"{sweep.done} of {sweep.total} cells are kept as sweep {sweep.id}"
    stop.check(f"cancelled; {kept}: the same command goes on from there")
    output.say(f"kept as sweep {sweep.id}")
