"""steerlab report: a page about a vector, for a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import interruptible, load, progress_bar

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.lab.lab import Lab
    from steerlab.report.examples import Examples


@options.verb("report")
@options.ref
@click.option(
    "--html", "file", type=types.PAGE, required=True, help="The file; overwritten if it exists."
)
@click.option("--prompt", "prompts", multiple=True, help="Generate examples; may be repeated.")
@options.numbers("--doses", text="Doses of the examples, such as -0.2,-0.1,0.1,0.2")
@options.no_model
@options.seed
@options.lab
@options.quiet
def report_command(ref: str, file: Path, no_model: bool, lab: Lab, **writing: Any) -> None:
    """Write a page about a vector.

    \b
    steerlab report love --html love.html
    steerlab report love --html love.html --prompt "I think you are a" --doses -0.2,0.2
    steerlab report love --html love.html --no-model

    One self-contained file for a colleague: what the vector is, its recipe, its dose-response
    beside random directions, texts from the most negative dose to the most positive, its
    neighbours and how to load it. It loads nothing from the network.

    The texts are those of its newest sweep or run. If there are none, or with --prompt or
    --doses, they are generated, within the calibrated range if there is one.
    """
    asked = bool(writing["prompts"] or writing["doses"])
    if no_model and asked:
        raise click.UsageError("--prompt and --doses need the model: leave out --no-model")
    from steerlab.files import durable
    from steerlab.report.page import page, report

    name = lab.store.qualified(ref, lab.stored_model())
    found = report(lab.store, name)
    if not no_model and (asked or not found.examples):
        found = report(lab.store, name, examples=_written(lab, name, found.calibration, **writing))
    durable.write(file, page(found).encode("utf-8"))
    output.say(f"wrote {file}: open it in a browser or mail it")


def _written(
    lab: Lab, ref: str, calibration: Calibration | None, **writing: Any
) -> tuple[Examples, ...]:
    from steerlab.report.examples import PROMPTS, written_examples

    vector = lab.store.load(ref)
    load(lab, vector)
    with interruptible() as stop, progress_bar("writing examples") as progress:
        return written_examples(
            lab,
            vector,
            calibration,
            prompts=writing["prompts"] or PROMPTS,
            doses=writing["doses"],
            seed=writing["seed"],
            progress=progress,
            should_stop=stop,
        )
