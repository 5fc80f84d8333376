"""steerlab benchmark: the starter concepts on any model, in one table."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import interruptible, load, progress_bar
from steerlab.core.display import number, printable, signed_dose

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.progress import Progress

_LEGEND = (
    ("effect", "S(+dose) - S(-dose) on held-out pairs, in nats, with its 95% interval"),
    ("random, shuffled", "the same of random directions and of shuffled labels, ± sd"),
    ("moved", "at least this share of such items moves the right way (95%, Clopper-Pearson)"),
    ("styles", "styles of text in which an effect is shown, of those measured"),
)


@options.verb("benchmark")
@click.argument("concepts", nargs=-1)
@click.option("--no-evaluate", is_flag=True, help="Extract and calibrate only.")
@click.option(
    "--suite",
    "suites",
    metavar="NAME|FILE",
    multiple=True,
    help="To evaluate on: as for evaluate; the default, standard, takes the longest.",
)
@options.numbers("--doses", text="Candidates; both signs are measured.")
@options.controls(20)
@options.seed
@options.lab
@options.json
@options.quiet
def benchmark_command(
    concepts: tuple[str, ...],
    no_evaluate: bool,
    suites: tuple[str, ...],
    doses: tuple[float, ...],
    controls: int,
    seed: int,
    lab: Lab,
) -> None:
    """Measure the starter concepts on a model.

    \b
    steerlab benchmark --model Qwen/Qwen2.5-0.5B
    steerlab benchmark love anger --no-evaluate --json

    Extracts each starter concept, calibrates and evaluates it, and stores every step. What is
    stored is not measured again: after Ctrl-C or a kill the same command continues. All concepts
    take an hour or more on a small model.
    """
    from steerlab.evaluation.benchmark import benchmark, chosen
    from steerlab.evaluation.calibration.options import DOSES, Options
    from steerlab.evaluation.generalization.evaluate import named
    from steerlab.evaluation.generalization.plan import EvaluationPlan
    from steerlab.evaluation.generalization.suite import STANDARD

    if suites and no_evaluate:
        raise click.UsageError("--suite is to evaluate on: leave it out, or --no-evaluate")
    plan = None if no_evaluate else EvaluationPlan(suites=suites or (STANDARD,))
    chosen(concepts)  # before a model is loaded for nothing
    if plan is not None:
        named(plan)
    load(lab)
    search = Options(doses or DOSES, controls, seed=seed)
    found: list[dict[str, Any]] = []
    with interruptible() as stop, ExitStack() as stack:

        def watching(step: str) -> Progress | None:
            stack.close()
            return stack.enter_context(progress_bar(step))

        for result in benchmark(
            lab, concepts, options=search, plan=plan, watching=watching, should_stop=stop
        ):
            found.append(result.to_json())
            output.say(printable(f"{found[-1]['vector']} {found[-1]['verdict']}"))
    if output.asked("json"):
        output.print_json(found)
        return
    columns = ["vector", "layer", "dose", "effect", "95% interval", "random", "shuffled", "z"]
    columns += ["moved", "KL", "fluency", "styles"]
    output.table(columns, [_row(row) for row in found], right=columns[1:], wrap=["95% interval"])
    output.fields(_LEGEND)


def _row(found: dict[str, Any]) -> list[str]:
    low, high = found["interval"]
    shown = found["shown"]
    return [
        found["vector"],
        str(found["layer"]),
        signed_dose(found["dose"]) if found["works"] else "fails",
        "-" if found["effect"] is None else f"{found['effect']:+.2f}",
        "-" if low is None else f"{low:+.2f} to {high:+.2f}",
        _control(found["random"]),
        _control(found["shuffled"]),
        "-" if found["z"] is None else f"{found['z']:+.1f}",
        f"{100 * (found['moved'] or 0):.0f}%",
        number(found["kl"], 2),
        number(found["fluency"], 2),
        "-" if shown is None else f"{shown[0]} of {shown[1]}",
    ]


def _control(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None or found["sd"] is None:
        return "-"
    return f"{found['mean']:+.2f} ± {found['sd']:.2f}"
